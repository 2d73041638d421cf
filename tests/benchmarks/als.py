"""Seconds, effective GFLOP/s, bytes and accuracy of ALS, beside its peers'.

    make bench-als                                       10 million ratings, our figures alone
    make bench-als ARGS="--prize"                        and the prize's shape
    make bench-als ARGS="--peers-python /path/to/python" and cmfrec, Spark and implicit, as far as
                                                         that environment has them
    make bench-als ARGS="--plot FILE.html"               and a page of RMSE against seconds

The ratings are synthetic (``nd.synth``) unless ``--store`` or ``--prize-store`` name a store with a
holdout ``probe``. Kernels are compiled before anything is timed. Seconds an epoch are the mean of
all but the first, in which the ratings are still being read; whole fits include the reading.
Effective GFLOP/s = ratings x k (k + 1) x 2 / seconds an epoch: what a solver that wastes nothing
would do. A fit beside Spark's at the prize's shape is the median of three on the same workers: in
the first of them memory is touched that they never had.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from als_plot import Curve, Point, write_plot
from run import PeakMemory

import netflixdask as nd
from netflixdask.flow import versions
from netflixdask.progress import quiet
from netflixdask.store import RatingsStore, open_store

TEN_MILLION = {"n_ratings": 10_000_000, "n_users": 69_878, "n_items": 10_677}
PRIZE = {"n_ratings": 100_480_507, "n_users": 480_189, "n_items": 17_770}
REG = 0.05
SHORT_START = 0.03
"""``start_length`` that is best after 5 epochs on a validation part of the training ratings of the
ten-million shape: RMSE 0.8969; 0.8995 with 1, 0.8982 with 0.1, 0.8986 with 0.01."""

Row = tuple[str, float | None, float | None, float | None, str, str]


@dataclass
class Bench:
    """Options, and the figures so far."""

    work: Path
    threads: int
    epochs: int
    peers_python: str | None
    rows: list[Row] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)

    def fit(
        self, store: RatingsStore, model: Any, *, processes: int = 1, threads: int | None = None
    ) -> dict[str, Any]:
        """Fit a model on warm kernels and judge it on the probe."""
        threads = self.threads if threads is None else threads
        laptop = nd.open_client("laptop", workers=processes, threads=threads, quiet=True)
        with quiet(), laptop as client:
            type(model)(**{**model.config.model_dump(), "epochs": 2}).fit(self.tiny())
            client.run(watch_kernels)
            start = time.perf_counter()
            model.fit(store)
            seconds = time.perf_counter() - start
            in_kernels = sum(client.run(kernel_seconds).values())
        history = model.history_
        later = history["seconds"].iloc[1:] if len(history) > 1 else history["seconds"]
        k = model.config.n_factors
        found = {
            "model": repr(model),
            "processes": processes,
            "threads": threads,
            "fit_seconds": seconds,
            "epoch_seconds": float(later.mean()),
            "gflops": 2e-9 * store.n_ratings * k * (k + 1) / float(later.mean()),
            "loss": float(history["loss"].iloc[-1]),
            "outside_kernels": 1 - in_kernels / (seconds * processes * threads),
            "bytes_moved": int(history["bytes_moved"].iloc[-1]),
        }
        if model.predicts == "stars":
            found["rmse"] = probe_rmse(model, store)
        self.note(found)
        return found

    def fits(self, store: RatingsStore, model: Any, times: int = 3) -> list[float]:
        """Return the seconds of whole fits, one after the other, on the same workers."""
        laptop = nd.open_client("laptop", threads=self.threads, quiet=True)
        found = []
        with quiet(), laptop:
            model.fit(self.tiny())
            for _ in range(times):
                start = time.perf_counter()
                model.fit(store)
                found.append(time.perf_counter() - start)
        self.note({"model": repr(model), "fits": found})
        return found

    def peer(self, name: str, store: RatingsStore, **options: Any) -> dict[str, Any] | None:
        """Run a peer on the same ratings; None if there is none."""
        if self.peers_python is None:
            return None
        data = self.export(store)
        command = [
            self.peers_python,
            str(Path(__file__).with_name("als_peers.py")),
            name,
            str(data),
        ]
        for key, value in {"threads": self.threads, **options}.items():
            command += [f"--{key}"] if value is True else [f"--{key}", str(value)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["?"]
            sys.stdout.write(f"{name}: not measured ({last[0][:200]})\n")
            return None
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        self.note({"peer": name, **options, **found})
        return found

    def tiny(self) -> RatingsStore:
        """Return ratings on which every kernel is compiled."""
        path = self.work / "tiny"
        if not path.exists():
            sizes = {"n_ratings": 20_000, "n_users": 400, "n_items": 200}
            with quiet(), nd.open_client("sequential"):
                nd.synth(path, layout="store", **sizes)
        return open_store(path)

    def export(self, store: RatingsStore) -> Path:
        """Write the ratings as peers read them."""
        path = self.work / f"{store.fingerprint}.npz"
        if not path.exists():
            blocks = [loader() for loader in store.loaders("user")]
            users = [
                np.repeat(np.arange(b.first, b.stop, dtype=np.int32), np.diff(b.indptr))
                for b in blocks
            ]
            held = probe(store)
            np.savez(
                path,
                u=np.concatenate(users),
                i=np.concatenate([b.src for b in blocks]),
                r=np.concatenate([b.stars() for b in blocks]).astype(np.int8),
                tu=held[0],
                ti=held[1],
                tr=held[2],
            )
        return path

    def note(self, found: dict[str, Any]) -> None:
        """Keep and show what was measured."""
        self.details.append(found)
        shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}
        sys.stdout.write(f"{json.dumps(shown)}\n")
        sys.stdout.flush()

    def row(
        self, what: str, ours: float | None, theirs: float | None, must: str, aim: str,
        figure: float | None = None,
    ) -> None:  # fmt: skip
        """Add a line of the table; the figure is theirs over ours unless it is given."""
        if figure is None and ours and theirs:
            figure = theirs / ours
        self.rows.append((what, ours, theirs, figure, must, aim))


KERNELS = ("half_step", "segment_sums", "solve_segments")


def watch_kernels() -> None:
    """Keep, in a worker, the seconds of every call of a half-step's kernels from now on."""
    from netflixdask.models import factor_solver

    def timed(kernel: Any) -> Any:
        def run(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return kernel(*args, **options)
            finally:
                seconds.append(time.perf_counter() - start)

        return run

    seconds: list[float] = []
    factor_solver.bench_seconds = seconds  # type: ignore[attr-defined]
    for name in KERNELS:
        setattr(factor_solver, name, timed(getattr(factor_solver, name)))


def kernel_seconds() -> float:
    """Return, in a worker, the sum of what :func:`watch_kernels` kept."""
    from netflixdask.models import factor_solver

    return float(sum(factor_solver.bench_seconds))  # type: ignore[attr-defined]


def peak_of_a_fit(bench: Bench, store: RatingsStore, model: Any) -> float:
    """Return the GB that all processes hold at most; to look at them slows a fit down."""
    with quiet(), nd.open_client("laptop", threads=bench.threads, quiet=True):
        model.fit(bench.tiny())
        with PeakMemory() as memory:
            model.fit(store)
    return memory.peak / 1e9


def top_ten(bench: Bench, store: RatingsStore, model: Any) -> None:
    """Time the ten best unseen items of every user, written to Parquet."""
    with quiet(), nd.open_client("laptop", threads=bench.threads, quiet=True):
        some = store.users.column("user_id").to_numpy(zero_copy_only=False)[:50]
        nd.recommend(model, some, 10, out=bench.work / "warm", overwrite=True)
        start = time.perf_counter()
        with PeakMemory() as memory:
            nd.recommend(model, None, 10, out=bench.work / "top-10", overwrite=True)
        seconds = time.perf_counter() - start
    bench.note({"top_10": repr(model), "seconds": seconds, "peak_gb": memory.peak / 1e9})
    bench.row(
        f"seconds of the top 10 of all {store.n_users:,} users, k = {model.config.n_factors}",
        seconds, None, "<= 30", "<= 10", seconds,
    )  # fmt: skip


def probe(store: RatingsStore) -> tuple[Any, Any, Any]:
    """Return users, items and stars of the held-out pairs that are judged."""
    table = store.holdout("probe")
    known = table.filter(table.column("rating").is_valid())
    user, item, star = (known.column(n).to_numpy() for n in ("user_num", "item_num", "rating"))
    return user, item, star.astype(np.float32)


def probe_rmse(model: Any, store: RatingsStore) -> float:
    """Return the RMSE on the probe of clipped predictions."""
    users, items, stars = probe(store)
    found = model.scorer_().pairs(users.astype(np.int32), items.astype(np.int32))
    error = np.clip(found, store.rating_low, store.rating_high).astype(np.float64) - stars
    return float(np.sqrt(np.mean(error**2)))


def sgemm(threads: int) -> float:
    """Return GFLOP/s of a product of two float32 matrices of 3,000 rows."""
    from threadpoolctl import threadpool_limits

    a = np.random.default_rng(0).random((3_000, 3_000), np.float32)
    best = float("inf")
    with threadpool_limits(threads):
        for _ in range(6):
            start = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - start)
    return 2e-9 * 3_000**3 / best


def als(k: int, epochs: int, **options: Any) -> nd.ALS:
    """Return the model whose like the peers fit."""
    return nd.ALS(n_factors=k, reg=REG, epochs=epochs, **options)


def ten_million(bench: Bench, store: RatingsStore, factors: list[int]) -> None:
    """Measure the smaller shape."""
    bounds = {16: (6, 12), 50: (12, 22), 128: (12, 22)}
    for k in factors:
        ours, theirs = (
            bench.fit(store, als(k, 3)),
            bench.peer("cmfrec", store, k=k, epochs=3, reg=REG),
        )
        must, aim = bounds.get(k, (12, 22))
        name = f"cmfrec over ours, seconds an epoch, {store.n_ratings:,} ratings, k = {k}"
        bench.row(
            name, ours["epoch_seconds"], theirs and theirs["seconds"] / 3, f">= {must}", f">= {aim}"
        )
    accuracy(bench, store)
    spark = bench.peer("spark", store, k=50, epochs=10, reg=REG)
    if spark:
        for epochs in range(1, 11):
            ours = bench.fit(store, als(50, epochs))
            if ours["rmse"] <= spark["rmse"]:
                break
        bench.row(
            "Spark over ours, seconds to Spark's RMSE after 10 epochs", ours["fit_seconds"],
            spark["seconds"], ">= 20", ">= 40",
        )  # fmt: skip
    implicit = {"k": 50, "epochs": 5, "reg": 0.1, "alpha": 1.0}
    theirs = bench.peer("implicit", store, **implicit, cg=True)
    for epochs in (1, 2, 3, 4, 6, 8):
        mine = nd.ImplicitALS(n_factors=50, reg=0.1, alpha=1.0, epochs=epochs)
        ours = bench.fit(store, mine)
        if theirs is None or ours["loss"] <= theirs["loss"]:
            break
    bench.row(
        "ours over implicit's, seconds to equal loss", ours["fit_seconds"],
        theirs and theirs["seconds"], "<= 1.0", "<= 0.5",
        figure=theirs and ours["fit_seconds"] / theirs["seconds"],
    )  # fmt: skip
    scaling(bench, store)


def accuracy(bench: Bench, store: RatingsStore) -> None:
    """Compare the RMSE on the same held-out pairs after 5 epochs."""
    ours, theirs = (
        bench.fit(store, als(50, 5, start_length=SHORT_START)),
        bench.peer("cmfrec", store, k=50, epochs=5, reg=REG),
    )
    bench.row(
        "RMSE after 5 epochs, ours minus cmfrec's", ours["rmse"], theirs and theirs["rmse"],
        "<= 0.001", "< 0", figure=theirs and ours["rmse"] - theirs["rmse"],
    )  # fmt: skip


def scaling(bench: Bench, store: RatingsStore) -> None:
    """Compare one thread with two, and one process of one thread with two."""
    one = bench.fit(store, als(50, 4), threads=1)["epoch_seconds"]
    two = bench.fit(store, als(50, 4), threads=2)["epoch_seconds"]
    both = bench.fit(store, als(50, 4), processes=2, threads=1)["epoch_seconds"]
    shape = f"seconds an epoch, {store.n_ratings:,} ratings"
    bench.row(f"one thread over two, {shape}", two, one, ">= 1.8", ">= 1.95")
    bench.row(f"one process over two, {shape}", both, one, ">= 1.6", ">= 1.85")


def plot(bench: Bench, store: RatingsStore, k: int, epochs: list[int], path: Path) -> None:
    """Fit for fewer and more epochs, each program anew, and draw RMSE against seconds.

    A point is a whole fit, reading and block set-up included, and its RMSE on the probe.
    """
    ours = [bench.fit(store, als(k, n)) for n in epochs]
    points = zip(epochs, ours, strict=True)
    curves = [Curve("netflixdask", [Point(n, f["fit_seconds"], f["rmse"]) for n, f in points])]
    for program in ("cmfrec", "spark"):
        found = {n: bench.peer(program, store, k=k, epochs=n, reg=REG) for n in epochs}
        curves.append(
            Curve(program, [Point(n, f["seconds"], f["rmse"]) for n, f in found.items() if f])
        )
    said = ", ".join(f"{name} {version}" for name, version in versions().items())
    write_plot(
        curves,
        path,
        facts=f"ALS, with biases but in Spark, {k} factors, reg = {REG:g} a rating, "
        f"{store.n_ratings:,} ratings of {store.n_users:,} users and {store.n_items:,} items; "
        f"a point is a whole fit, in seconds (threads: {bench.threads}), and its RMSE on "
        f"{len(probe(store)[0]):,} held-out ratings, clipped. {said}",
    )


def prize(bench: Bench, store: RatingsStore, factors: list[int]) -> None:
    """Measure the prize's shape."""
    for k in factors:
        peak = sgemm(bench.threads)
        model = als(k, bench.epochs)
        ours = bench.fit(store, model)
        must, aim = ("<= 3", "<= 1.8") if k <= 64 else ("<= 2.5", "<= 1.5")
        name = f"sgemm over effective GFLOP/s, prize's shape, k = {k}"
        bench.row(name, ours["gflops"], peak, must, aim)
        if k != 50:
            continue
        peak_gb = peak_of_a_fit(bench, store, als(k, 2))
        bench.row("peak GB of all processes", peak_gb, None, "<= 6", "<= 3", peak_gb)
        bench.row(
            f"share of a fit of {bench.epochs} epochs outside the kernels", None, None, "<= 0.15",
            "-", ours["outside_kernels"],
        )  # fmt: skip
        top_ten(bench, store, model)
        scaling(bench, store)
        theirs = bench.peer("cmfrec", store, k=50, epochs=2, reg=REG)
        bench.row(
            "cmfrec over ours, seconds an epoch, prize's shape, k = 50", ours["epoch_seconds"],
            theirs and theirs["seconds"] / 2, ">= 12", ">= 20",
        )  # fmt: skip
        three = statistics.median(bench.fits(store, als(50, 3)))
        spark = bench.peer("spark", store, k=50, epochs=3, reg=REG)
        bench.row(
            "Spark over ours, seconds of 3 epochs, prize's shape, k = 50", three,
            spark and spark["seconds"], ">= 30", ">= 50",
        )  # fmt: skip


def show(rows: list[Row]) -> None:
    """Print the table."""

    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:,.3f}"

    lines = [("what", "ours", "theirs", "figure", "must", "aim")]
    lines += [(w, text(o), text(t), text(f), m, a) for w, o, t, f, m, a in rows]
    widths = [max(len(line[c]) for line in lines) for c in range(6)]
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(c.rjust(n) for c, n in zip(line[1:], widths[1:], strict=True)),
        ]
        sys.stdout.write("  ".join(cells) + "\n")


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--store", type=Path, help="a store of about 10 million ratings")
    parser.add_argument("--prize", action="store_true", help="measure the prize's shape too")
    parser.add_argument("--prize-store", type=Path, help="a store of the prize's shape")
    parser.add_argument("--skip-ten-million", action="store_true")
    parser.add_argument("--plot", type=Path, help="a page of RMSE against seconds, ten million")
    parser.add_argument("--plot-factors", type=int, default=50)
    parser.add_argument("--plot-epochs", type=int, nargs="+", default=[1, 2, 3, 5, 7, 10])
    parser.add_argument("--factors", type=int, nargs="+", default=[16, 50, 128])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--epochs", type=int, default=10, help="of the timed fits of the prize's shape"
    )
    parser.add_argument("--peers-python", help="an environment with cmfrec, pyspark, implicit")
    parser.add_argument("--workdir", type=Path, help="kept; else a temporary folder")
    args = parser.parse_args()
    if args.plot and not args.plot.resolve().parent.is_dir():
        parser.error(f"--plot {args.plot}: there is no folder {args.plot.parent}; make it first")
    with tempfile.TemporaryDirectory(prefix="netflixdask-bench-") as temporary:
        work = args.workdir or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        bench = Bench(work, args.threads, args.epochs, args.peers_python)

        def store(given: Path | None, name: str, sizes: dict[str, int]) -> RatingsStore:
            path = given or work / name
            if not path.exists():
                with quiet(), nd.open_client(quiet=True):
                    nd.synth(path, layout="store", **sizes)
            return open_store(path)

        if args.plot or not args.skip_ten_million:
            smaller = store(args.store, "ten-million", TEN_MILLION)
            if not args.skip_ten_million:
                ten_million(bench, smaller, args.factors)
            if args.plot:
                plot(bench, smaller, args.plot_factors, args.plot_epochs, args.plot)
        if args.prize or args.prize_store:
            wanted = [k for k in args.factors if k >= 50]
            prize(bench, store(args.prize_store, "prize", PRIZE), wanted)
        show(bench.rows)
        sys.stdout.write(json.dumps({"rows": bench.rows, "details": bench.details}) + "\n")


if __name__ == "__main__":
    main()
