"""The generated ratings as the prize's own text, by one shuffle from users to movies.

::

    OUT/training_set/mv_0000001.txt …    layout netflix: one file a movie
    OUT/training_set.tar                 layout tar: the same files in one archive
    OUT/combined_data_1.txt … _4.txt     layout combined: the same text in four files
    OUT/movie_titles.txt probe.txt qualifying.txt
    OUT/judging.txt                      the ratings of qualifying.txt, line by line
    OUT/manifest.json                    written last
"""

from __future__ import annotations

import datetime as dt
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from netflixdask.kernels import synth_text as kernel
from netflixdask.kernels.synth import PROBE
from netflixdask.mapreduce import Engine, Key, MapReduce, run
from netflixdask.stages.synth.config import SynthConfig
from netflixdask.stages.synth.plan import Generated, SynthPlan, plan_of
from netflixdask.stages.synth.source import movie_order, synth_source
from netflixdask.store.artifacts import ArtifactWriter, new_artifact
from netflixdask.store.parquet import FileEntry, below

_TASK_RATINGS = 1_000_000
_HELD: Key = ("held",)
_FOLDER = "training_set"
_TAR = "training_set.tar"
_TAR_BLOCK = 512
_TAR_END = 2 * _TAR_BLOCK

# Movies at which Kaggle's four files end, of 17,770.
_COMBINED_ENDS = (4_499, 9_210, 13_367, 17_770)

Rows = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8], NDArray[np.int16], Any]
"""item_num, user_num, rating, day and label of some generated ratings."""


@dataclass(frozen=True)
class GenerateUsers:
    """Generates a run of users when called."""

    config: SynthConfig
    first: int
    stop: int

    def __call__(self) -> Generated:
        """Return their ratings."""
        return plan_of(self.config).generate(self.first, self.stop)


class MovieText(NamedTuple):
    """The text of a run of movies."""

    first: int
    """Id of the first movie."""
    text: NDArray[np.uint8]
    byte_ptr: NDArray[np.int64]
    """int64[n_movies + 1], where each movie's text starts."""
    item_ptr: NDArray[np.int64]
    """int64[n_movies + 1], its rows."""


@dataclass(frozen=True)
class CollectMovies(MapReduce[Generated, dict[int, Rows]]):
    """Bring the ratings of each run of movies together, and those of all holdouts."""

    name: ClassVar[str] = "synth-text"
    split_every: ClassVar[int] = 1 << 30  # rows are collected, not reduced: no tree

    config: SynthConfig
    edges: tuple[int, ...]
    """Item numbers at which the runs start, and the number of items."""

    def keys(self) -> list[Key]:
        """One key a run of movies, one for the holdouts."""
        return [*[(j,) for j in range(len(self.edges) - 1)], _HELD]

    def map_partition(self, blocks: Iterable[Generated]) -> dict[Key, dict[int, Rows]]:
        """Cut the ratings of the users by the run of their movie."""
        out: dict[Key, dict[int, Rows]] = {}
        inner = np.array(self.edges[1:-1], np.int32)
        for made in blocks:
            columns = (made.item_num, made.user_num, made.rating, made.day, made.label)
            held = np.flatnonzero(made.label >= PROBE)
            # Users are in order, so the first of a part names its place among all parts.
            place = int(made.user_num[0])
            out.setdefault(_HELD, {})[place] = _take(columns, held)
            train = np.flatnonzero(made.label <= PROBE)
            group = np.searchsorted(inner, made.item_num[train], side="right").astype(np.uint16)
            order = train[np.argsort(group, kind="stable")]
            ends = np.cumsum(np.bincount(group, minlength=len(inner) + 1)).tolist()
            for j, (a, b) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
                if b > a:
                    out.setdefault((j,), {})[place] = _take(columns, order[a:b])
        return out

    def combine(self, a: dict[int, Rows], b: dict[int, Rows]) -> dict[int, Rows]:
        """Collect the parts under their first user."""
        return a | b

    def copy(self, acc: dict[int, Rows]) -> dict[int, Rows]:
        """Collecting makes a new dictionary and changes no part."""
        return acc

    def finalize(self, key: Key, acc: dict[int, Rows]) -> Any:
        """Write the text of a run of movies, or of the three files of the holdouts."""
        rows: Rows = tuple(  # type: ignore[assignment]
            np.concatenate(column) for column in zip(*(acc[p] for p in sorted(acc)), strict=True)
        )
        rows = _take(rows, movie_order(rows[0], rows[1]))
        plan = plan_of(self.config)
        if key != _HELD:
            j = int(key[0])
            return _format(kernel.MOVIES, self.edges[j], self.edges[j + 1], rows, plan)
        probe = _take(rows, np.flatnonzero(rows[4] == PROBE))
        rest = _take(rows, np.flatnonzero(rows[4] != PROBE))
        n_items = self.config.n_items
        return {
            "probe.txt": _format(kernel.PROBE, 0, n_items, probe, plan),
            "qualifying.txt": _format(kernel.QUALIFYING, 0, n_items, rest, plan),
            "judging.txt": _format(kernel.JUDGING, 0, n_items, rest, plan),
        }


@dataclass(frozen=True)
class WriteText:
    """The sink: files of movies, or pieces of the files that are joined at the end."""

    folder: str
    layout: str

    def __call__(self, key: Key, result: Any) -> list[FileEntry]:
        """Write what one key became."""
        base = Path(self.folder)
        if key == _HELD:
            return [
                _write(base, name, made.text, int(made.item_ptr[-1]))
                for name, made in result.items()
            ]
        if self.layout == "netflix":
            return [
                _write(base, name, data, rows) for name, data, rows in _files(result) if len(data)
            ]
        rows = int(result.item_ptr[-1])
        if self.layout == "combined":
            return [_write(base, f"piece-{int(key[0]):05d}", result.text, rows)]
        members = [(name, data) for name, data, _ in _files(result) if len(data)]
        packed = np.concatenate([part for name, data in members for part in _member(name, data)])
        return [_write(base, f"piece-{int(key[0]):05d}", packed, rows)]


def write_text(
    out: Path, config: SynthConfig, *, engine: Engine, overwrite: bool = False
) -> dict[str, Any]:
    """Generate and write the prize's text files.

    Args:
        out: the folder.
        config: what to generate, and the layout (not ``store``).
        engine: where the tasks run.
        overwrite: replace what an earlier call wrote there.

    Returns:
        ``path``, ``layout`` and the rows of ``training``, ``probe``, ``qualifying`` and ``titles``.

    Memory: the generated ratings (12 bytes each) are held by the workers until they are written.
    """
    plan = plan_of(config)
    edges, owner = movie_runs(plan, config.layout)
    loaders = [GenerateUsers(config, *bounds) for bounds in plan.ranges(_TASK_RATINGS)]
    with new_artifact(out, "synth", overwrite=overwrite) as writer, engine.stage("synth"):
        sink = WriteText(str(writer.dir), config.layout)
        found = run(CollectMovies(config, edges), loaders, engine=engine, sink=sink)
        held = {entry.file: entry for entry in found.pop(_HELD)}
        entries = [*held.values(), _write_titles(writer.dir, config)]
        pieces = [found[key] for key in sorted(found)]
        if config.layout == "netflix":
            entries += [entry for piece in pieces for entry in piece]
        elif config.layout == "tar":
            entries.append(_join(writer, _TAR, [piece[0] for piece in pieces], _TAR_END))
        else:
            for number in range(len(_COMBINED_ENDS)):
                mine = [found[key][0] for key in sorted(found) if owner[int(key[0])] == number]
                if mine:
                    entries.append(_join(writer, f"combined_data_{number + 1}.txt", mine, 0))
        for entry in entries:
            writer.add(entry)
        rows = {
            "training": config.n_ratings,
            "probe": held["probe.txt"].rows,
            "qualifying": held["qualifying.txt"].rows,
            "titles": config.n_items,
        }
        options = config.model_dump(mode="json")
        artifact = writer.commit(config=options, inputs={}, stats=rows)
    return {"path": str(artifact.path), "layout": config.layout, **rows}


def movie_runs(plan: SynthPlan, layout: str) -> tuple[tuple[int, ...], list[int]]:
    """Cut the items into runs of nearly equal ratings.

    Returns:
        Edges of the runs (item numbers), and for each run the combined file that it goes to.
    """
    n_items = plan.config.n_items
    ends = np.cumsum(plan.wanted)
    n = max(1, round(int(ends[-1]) / _TASK_RATINGS))
    cuts = set((np.searchsorted(ends, ends[-1] * np.arange(1, n) // n) + 1).tolist())
    bounds = [round(n_items * end / _COMBINED_ENDS[-1]) for end in _COMBINED_ENDS]
    if layout == "combined":
        cuts |= set(bounds)
    edges = (0, *sorted(cut for cut in cuts if 0 < cut < n_items), n_items)
    owner = np.searchsorted(bounds[:-1], edges[:-1], side="right").tolist()
    return edges, owner


def _take(rows: tuple[Any, ...], at: NDArray[np.int64]) -> Rows:
    return tuple(column[at] for column in rows)


def _format(kind: int, first: int, stop: int, rows: Rows, plan: SynthPlan) -> MovieText:
    item_num, user_num, rating, day, _ = rows
    item_ptr = np.zeros(stop - first + 1, np.int64)
    np.cumsum(np.bincount(item_num - first, minlength=stop - first), out=item_ptr[1:])
    byte_ptr = np.empty_like(item_ptr)
    out = np.empty(len(rating) * kernel.MAX_LINE + 12 * (stop - first), np.uint8)
    config = plan.config
    days = [
        config.first_day + dt.timedelta(days=d)
        for d in range((config.last_day - config.first_day).days + 1)
    ]
    text = "".join(day.isoformat() for day in days).encode()
    kernel.format_movies(
        kind,
        first + 1,
        item_ptr,
        plan.user_id[user_num],
        rating,
        day,
        (config.first_day - dt.date(1970, 1, 1)).days,
        np.frombuffer(bytearray(text), np.uint8).reshape(-1, 10),
        out,
        byte_ptr,
    )
    return MovieText(first + 1, out[: byte_ptr[-1]], byte_ptr, item_ptr)


def _files(made: MovieText) -> list[tuple[str, NDArray[np.uint8], int]]:
    return [
        (
            f"{_FOLDER}/mv_{made.first + m:07d}.txt",
            made.text[made.byte_ptr[m] : made.byte_ptr[m + 1]],
            int(made.item_ptr[m + 1] - made.item_ptr[m]),
        )
        for m in range(len(made.item_ptr) - 1)
    ]


def _member(name: str, data: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    header = np.frombuffer(info.tobuf(tarfile.USTAR_FORMAT), np.uint8)
    return [header, data, np.zeros(-len(data) % _TAR_BLOCK, np.uint8)]


def _write(base: Path, name: str, data: NDArray[np.uint8], rows: int) -> FileEntry:
    path = base / name
    below(base, path)
    path.write_bytes(data.data)
    digest = xxhash.xxh64(data.data).hexdigest()
    return FileEntry(file=name, rows=rows, bytes=len(data), checksum=f"xxh64:{digest}")


def _write_titles(base: Path, config: SynthConfig) -> FileEntry:
    table: pa.Table = synth_source(config).titles()
    lines = [
        f"{item},{'NULL' if year is None else year},{title}\n"
        for item, title, year in zip(
            *(table.column(name).to_pylist() for name in ("item_id", "title", "year")), strict=True
        )
    ]
    data = np.frombuffer("".join(lines).encode("latin-1"), np.uint8)
    return _write(base, "movie_titles.txt", data, len(lines))


def _join(writer: ArtifactWriter, name: str, pieces: list[FileEntry], zeros: int) -> FileEntry:
    """Append the pieces to one file, and some zero bytes; the pieces go."""
    digest = xxhash.xxh64()
    size = zeros
    with (writer.dir / name).open("wb") as stream:
        for piece in pieces:
            path = writer.dir / piece.file
            data = path.read_bytes()
            stream.write(data)
            digest.update(data)
            size += len(data)
            path.unlink()
        stream.write(bytes(zeros))
        digest.update(bytes(zeros))
    rows = sum(piece.rows for piece in pieces)
    return FileEntry(file=name, rows=rows, bytes=size, checksum=f"xxh64:{digest.hexdigest()}")
