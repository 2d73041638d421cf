"""Raw text to a store, beside DuckDB: the figures that an ingest is held to, in one run.

    make bench-ingest                                        every part at full size: half an hour
    make bench-ingest ARGS="--scale 0.01 --workdir bench"                            a quick look
    make bench-ingest ARGS="--part csv20 --part memory --json out.json"    some parts

Seconds run from the call of ``nd.ingest``, with an open client and loaded kernels, to the manifest
on disk. DuckDB reads the equal CSV and writes both sorted orders with as many threads; its seconds
run from the first statement to the last file. Both take turns, each from an empty folder after the
disk is at rest; the ratio is that of the best runs. Memory is the sum of the proportional set sizes
(PSS) of the process, its scheduler and its workers, polled in runs of their own. The inputs are
made once below ``--workdir``: a native ``training_set.tar`` and a CSV of the same lines.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ingest_steps
import numpy as np
import parse_speed
import psutil

import netflixdask as nd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netflixdask.store.ratings import RatingsStore

SIZES = {
    "csv20": (20_000_000, 95_550, 17_770),
    "tar100": (100_480_507, 480_189, 17_770),
}
COLUMNS = {"user": "user", "item": "movie", "rating": "rating", "time": "date"}
PARTS = ("csv20", "tar100", "append", "parse", "memory", "threads", "blocks", "synth", "steps")
POLL_SECONDS = 0.05

DUCKDB = """
import duckdb, json, sys, time
csv, out, threads = sys.argv[1:]
db = duckdb.connect()
db.execute(f"SET threads={threads}")
db.execute("SET enable_progress_bar=false")
start = time.perf_counter()
db.execute(
    f"CREATE TABLE r AS SELECT * FROM read_csv('{csv}', header=true, columns="
    "{'movie':'INTEGER','user':'INTEGER','rating':'TINYINT','date':'DATE'})"
)
for name, order in (("by_user", '"user", movie'), ("by_item", 'movie, "user"')):
    db.execute(
        f"COPY (SELECT * FROM r ORDER BY {order}) TO '{out}/{name}.parquet'"
        " (FORMAT parquet, COMPRESSION zstd)"
    )
print(json.dumps(time.perf_counter() - start))
"""

# One ingest in a process of its own, for the memory of the whole tree.
CHILD = """
import json, sys, time
import netflixdask as nd
if __name__ == "__main__":
    source, out, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    with nd.open_client("laptop", quiet=True):
        nd.ingest(source, out, overwrite=True, **options)
"""


class Report:
    """Collects the figures and prints each as it comes."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        must: float | None = None,
        aim: float | None = None,
        note: str = "",
        *,
        more: bool = False,
    ) -> None:
        """Add a figure; ``more`` says that larger ones are better."""
        verdict = ""
        if must is not None and aim is not None:
            sign = -1 if more else 1
            verdict = "missed"
            if sign * value <= sign * must:
                verdict = "aim" if sign * value <= sign * aim else "must"
        row = {"what": name, "value": value, "unit": unit, "must": must, "aim": aim}
        self.rows.append({**row, "verdict": verdict, "note": note})
        self._say(self.rows[-1])

    def _say(self, row: dict[str, Any]) -> None:
        limits = "" if row["must"] is None else f"{row['must']:g} / {row['aim']:g}"
        sys.stdout.write(
            f"{row['what']:<46} {row['value']:>9.2f} {row['unit']:<6} {limits:>12}  "
            f"{row['verdict']:<7}{row['note']}\n"
        )
        sys.stdout.flush()

    def table(self) -> None:
        """Print all figures once more, in one piece."""
        title = f"{'what':<46} {'figure':>9} {'':<6} {'must / aim':>12}  verdict\n"
        sys.stdout.write("\n" + title)
        for row in self.rows:
            self._say(row)


class Inputs:
    """Native text and the equal CSV, made once."""

    def __init__(self, folder: Path, scale: float) -> None:
        self.folder = folder
        self.scale = scale
        folder.mkdir(parents=True, exist_ok=True)

    def sizes(self, part: str) -> dict[str, int]:
        """Return options of synth: the shape stays, each side shrinks by the root of the scale."""
        n, users, items = SIZES[part]
        if self.scale == 1:
            return {"n_ratings": n, "n_users": users, "n_items": items}
        side = self.scale**0.5
        return {
            "n_ratings": int(n * self.scale),
            "n_users": max(50, int(users * side)),
            "n_items": max(50, int(items * side)),
        }

    def tar(self, part: str) -> Path:
        """Return ``training_set.tar``, alone in its folder: every line of it is a rating."""
        folder = self.folder / f"{part}-{self.scale:g}"
        path = folder / "training_set.tar"
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=self.folder) as made:
                with nd.open_client("laptop", quiet=True):
                    nd.synth(made, layout="tar", overwrite=True, **self.sizes(part))
                folder.mkdir(exist_ok=True)
                (Path(made) / "training_set.tar").rename(path)
        return path

    def csv(self, part: str) -> Path:
        """Return the lines of the tar as ``movie,user,rating,date``."""
        tar = self.tar(part)
        path = tar.with_name("ratings.csv")
        if not path.exists():
            unfinished = path.with_suffix(".tmp")
            with tarfile.open(tar) as archive, unfinished.open("wb") as out:
                out.write(b"movie,user,rating,date\n")
                for member in archive:
                    if not member.isfile():
                        continue
                    stream = archive.extractfile(member)
                    assert stream is not None
                    movie, text = stream.read().split(b":\n", 1)
                    lines = text.rstrip(b"\n").replace(b"\n", b"\n" + movie + b",")
                    out.write(movie + b"," + lines + b"\n")
            unfinished.rename(path)
        return path

    def more(self, part: str) -> Path:
        """Return a hundredth as many new rows: the users of the old ones, other movies, later."""
        csv = self.csv(part)
        path = csv.with_name("more.csv")
        if not path.exists():
            with csv.open() as lines:
                picked = [line.split(",") for line in itertools.islice(lines, 50, None, 100)]
            movies = np.random.default_rng(1).permutation([row[0] for row in picked])
            with path.open("w") as out:
                out.write("movie,user,rating,date\n")
                for movie, row in zip(movies, picked, strict=True):
                    out.write(f"{movie},{row[1]},{row[2]},2006-01-01\n")
        return path


class Bench:
    """One run: the options, the inputs, the figures."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.work: Path = options.workdir.absolute()
        self.inputs = Inputs(self.work / "inputs", options.scale)
        self.report = Report()
        self.seconds: dict[str, list[float]] = {}

    def source(self, part: str) -> tuple[Path, dict[str, Any]]:
        """Return what a part reads, and the options that its columns need."""
        return (self.inputs.csv(part), COLUMNS) if part == "csv20" else (self.inputs.tar(part), {})

    def ingest(self, part: str) -> tuple[float, RatingsStore]:
        """Run ours once, from an empty place; return its seconds."""
        source, columns = self.source(part)
        out = self.work / "store"
        at_rest(out)
        start = time.perf_counter()
        store = nd.ingest(source, out, **columns)
        return time.perf_counter() - start, store

    def duckdb(self, part: str) -> float:
        """Run DuckDB once, from an empty place; return its seconds."""
        csv, out = self.inputs.csv(part), self.work / "duckdb"
        at_rest(out)
        out.mkdir()
        args = [str(csv), str(out), str(self.options.threads)]
        found = subprocess.run(
            [self.options.peer_python, "-c", DUCKDB, *args],
            check=True,
            capture_output=True,
            text=True,
        )
        shutil.rmtree(out)
        return float(json.loads(found.stdout))

    @contextmanager
    def client(self, threads: int | None = None) -> Iterator[None]:
        """Open a client and load its kernels by an ingest of some rows in both forms."""
        with nd.open_client("laptop", quiet=True, threads=threads or self.options.threads):
            small = Inputs(self.work / "inputs", 0.001)
            out = self.work / "warm"
            nd.ingest(small.csv("csv20"), out, overwrite=True, **COLUMNS)
            nd.ingest(small.tar("csv20"), out, overwrite=True)
            shutil.rmtree(out)
            yield

    def against_duckdb(self, part: str) -> None:
        """Time both in turns, then the command line."""
        what = "CSV" if part == "csv20" else "training_set.tar"
        self.inputs.csv(part)
        ours, theirs = [], []
        with self.client():
            for _ in range(self.options.repeat):
                seconds, store = self.ingest(part)
                ours.append(seconds)
                theirs.append(self.duckdb(part))
        self.seconds[part] = ours
        name = f"{store.n_ratings:,} ratings, {what}"
        for who, took in (("ours", ours), ("DuckDB", theirs)):
            note = f"best of {len(took)}; median {statistics.median(took):.2f}"
            self.report.add(f"{name}: {who}", min(took), "s", note=note)
        middle = statistics.median(ours) / statistics.median(theirs)
        note = f"of medians {middle:.2f}"
        self.report.add(f"{part}: ours / DuckDB", min(ours) / min(theirs), "", 1.0, 0.5, note)
        entries = [*store.manifest.by_user, *store.manifest.by_item]
        disk = sum(entry.bytes for entry in entries) / 2 / store.n_ratings
        each = [
            sum(entry.bytes for entry in side) / store.n_ratings
            for side in (store.manifest.by_user, store.manifest.by_item)
        ]
        note = "by user {:.2f}, by item {:.2f}".format(*each)
        self.report.add(f"{part}: bytes a rating and order", disk, "B", 3.5, 3.0, note)
        took = self.command_line(part)
        self.report.add(f"{part}: `netflixdask ingest`, whole wall", took, "s")

    def command_line(self, part: str) -> float:
        """Time the CLI, from the start of Python to its end."""
        source, columns = self.source(part)
        out = self.work / "store"
        at_rest(out)
        named = [f"--{name}={column}" for name, column in columns.items()]
        start = time.perf_counter()
        command = [sys.executable, "-m", "netflixdask", "ingest", str(source), str(out), *named]
        subprocess.run([*command, "--quiet"], check=True, capture_output=True)
        return time.perf_counter() - start

    def append(self) -> None:
        """Time an append of a hundredth beside the whole, in turns."""
        part = "csv20" if "tar100" not in self.options.part else "tar100"
        more = self.inputs.more(part)
        whole, added = [], []
        with self.client():
            for _ in range(self.options.repeat):
                seconds, store = self.ingest(part)
                whole.append(seconds)
                os.sync()
                start = time.perf_counter()
                nd.ingest(more, store.path, append=True, **COLUMNS)
                added.append(time.perf_counter() - start)
        note = f"{part}, {min(added):.2f} s and {min(whole):.2f} s"
        self.report.add("append of 1 % / whole", min(added) / min(whole), "", 0.5, 0.5, note)

    def parse(self) -> None:
        """Time the parsing kernels alone."""
        made = parse_speed.texts()
        rows = parse_speed.N_MOVIES * parse_speed.N_RATINGS
        date = parse_speed.values.DATE
        for name, text, call in (
            ("movie headers", made["blocks"], parse_speed.blocks(made["blocks"], swar=True)),
            (
                "CSV with dates",
                made["date"],
                parse_speed.delimited(made["date"], ",", date, swar=True),
            ),
        ):
            speed = parse_speed.best(name, len(text), rows, call) / 1e6
            self.report.add(f"parse kernel, {name}", speed, "MB/s", 800, 1_500, more=True)

    def memory(self) -> None:
        """Poll the whole tree while the largest part that was asked for is ingested."""
        part = "csv20" if "tar100" not in self.options.part else "tar100"
        source, columns = self.source(part)
        for limit, must, aim in ((None, 6.0, 4.0), ("2GB", 2.5, 2.5)):
            out = self.work / "store"
            at_rest(out)
            options = {**columns, **({} if limit is None else {"memory_limit": limit})}
            script = self.work / "child.py"
            script.write_text(CHILD)
            start = time.perf_counter()
            child = subprocess.Popen(
                [sys.executable, str(script), str(source), str(out), json.dumps(options)],
                stderr=subprocess.DEVNULL,
            )
            peak = peak_of(child)
            took = time.perf_counter() - start
            if child.returncode:
                raise SystemExit(f"ingest with memory_limit={limit} ended with {child.returncode}")
            note = f"{part}; PSS of the tree; {took:.1f} s with the start of the client"
            name = f"peak memory, {'default' if limit is None else f'memory_limit={limit}'}"
            self.report.add(name, peak / 1e9, "GB", must, aim, note)

    def threads(self) -> None:
        """Time one worker thread and two, in turns."""
        parts = [part for part in ("csv20", "tar100") if part in self.options.part]
        for part in parts or ["csv20"]:
            took: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(self.options.repeat):
                for threads in took:
                    with self.client(threads):
                        took[threads] += [self.ingest(part)[0] for _ in range(2)]
            one, two = min(took[1]), min(took[2])
            note = f"{one:.2f} s and {two:.2f} s"
            self.report.add(
                f"{part}: 1 worker thread to 2", one / two, "x", 1.7, 1.9, note, more=True
            )

    def blocks(self) -> None:
        """Time a store's way into RatingBlocks in memory."""
        part = "csv20" if "tar100" not in self.options.part else "tar100"
        with self.client():
            _, store = self.ingest(part)
        for day in (False, True):
            took = []
            for _ in range(max(3, self.options.repeat)):
                with ThreadPoolExecutor(self.options.threads) as pool:
                    start = time.perf_counter()
                    held = list(pool.map(lambda load: load(), store.loaders("user", day=day)))
                    took.append(time.perf_counter() - start)
                assert sum(block.n_ratings for block in held) == store.n_ratings
                del held
            speed = store.n_ratings / min(took) / 1e6
            name = f"store to RatingBlocks{', with days' if day else ''}"
            note = f"{part}, {self.options.threads} threads"
            self.report.add(name, speed, "M/s", *((40, 100) if not day else (None, None)), note,
                            more=True)  # fmt: skip

    def synth(self) -> None:
        """Time the generator."""
        out = self.work / "synth"
        with nd.open_client("laptop", quiet=True, threads=self.options.threads):
            small = Inputs(self.work / "inputs", 0.001)
            nd.synth(out, layout="store", overwrite=True, **small.sizes("csv20"))
            at_rest(out)
            start = time.perf_counter()
            sizes = self.inputs.sizes("tar100")
            nd.synth(out, layout="store", **sizes)
            took = time.perf_counter() - start
        shutil.rmtree(out)
        name = f"synth to store, {sizes['n_ratings']:,} ratings"
        self.report.add(name, took, "s", 120, 45)

    def steps(self) -> None:
        """Say where the time goes, part by part."""
        for part in SIZES:
            if part in self.options.part:
                source, columns = self.source(part)
                at_rest(self.work / "store")
                title = f"{part}: where the time goes, {self.options.threads} threads"
                table = ingest_steps.table(
                    lambda source=source, columns=columns: nd.ingest(
                        source, self.work / "store", overwrite=True, **columns
                    ),
                    self.options.threads,
                )
                sys.stdout.write(f"\n{title}\n{table}")

    def run(self) -> None:
        """Run the parts that were asked for, then print the table."""
        calls: dict[str, Callable[[], None]] = {
            "csv20": lambda: self.against_duckdb("csv20"),
            "tar100": lambda: self.against_duckdb("tar100"),
            "append": self.append,
            "parse": self.parse,
            "memory": self.memory,
            "threads": self.threads,
            "blocks": self.blocks,
            "synth": self.synth,
            "steps": self.steps,
        }
        for part, call in calls.items():
            if part in self.options.part:
                call()
        self.report.table()
        for name in ("store", "child.py"):
            found = self.work / name
            shutil.rmtree(found) if found.is_dir() else found.unlink(missing_ok=True)
        if self.options.json:
            machine = {"cores": os.cpu_count(), "options": str(self.options)}
            record = {"machine": machine, "figures": self.report.rows, "seconds": self.seconds}
            self.options.json.write_text(json.dumps(record, indent=1) + "\n")


def at_rest(out: Path) -> None:
    """Empty the place and let the disk finish what was written before."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()


def peak_of(child: subprocess.Popen[bytes]) -> int:
    """Poll a process and those below it until it ends; return the highest sum of their PSS."""
    peak = 0
    process = psutil.Process(child.pid)
    while child.poll() is None:
        total = 0
        try:
            family = [process, *process.children(recursive=True)]
        except psutil.Error:
            break
        for one in family:
            try:
                rollup = Path(f"/proc/{one.pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += sum(
                int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")
            )
        peak = max(peak, total)
        time.sleep(POLL_SECONDS)
    child.wait()
    return 1024 * peak


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the ratings")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each, in turns")
    parser.add_argument("--threads", type=int, default=2, help="of ours and of DuckDB")
    parser.add_argument("--workdir", type=Path, help="inputs stay there for the next run")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python with duckdb")
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    options = parser.parse_args()
    options.part = options.part or list(PARTS)
    if options.workdir is None:
        with tempfile.TemporaryDirectory(prefix="netflixdask-bench-") as folder:
            options.workdir = Path(folder)
            Bench(options).run()
    else:
        Bench(options).run()


if __name__ == "__main__":
    main()
