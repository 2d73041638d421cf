"""The generated ratings as the prize's own text.

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
import functools
import shutil
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from netflixdask.errors import ConfigError
from netflixdask.kernels import synth_text as kernel
from netflixdask.mapreduce import Engine
from netflixdask.stages.synth import spill
from netflixdask.stages.synth.config import SynthConfig
from netflixdask.stages.synth.plan import plan_of
from netflixdask.stages.synth.source import synth_source
from netflixdask.store.artifacts import ArtifactWriter, new_artifact
from netflixdask.store.manifest import folder_of
from netflixdask.store.parquet import FileEntry, below
from netflixdask.urls import UrlPath

TASK_RATINGS = 1_000_000
_HELD = {
    "probe.txt": kernel.PROBE,
    "qualifying.txt": kernel.QUALIFYING,
    "judging.txt": kernel.JUDGING,
}
_FOLDER = "training_set"
_TAR = "training_set.tar"
_TAR_BLOCK = 512
_TAR_END = 2 * _TAR_BLOCK
_COPY_BYTES = 4 << 20
DISK_BYTES = 29  # a rating: 21 of text, and 8 in which it is drawn


class MovieText(NamedTuple):
    """The text of a run of movies."""

    first: int
    """Id of the first movie."""
    text: NDArray[np.uint8]
    byte_ptr: NDArray[np.int64]
    """int64[n_movies + 1], where each movie's text starts."""
    row_ptr: NDArray[np.int64]
    """int64[n_movies + 1], its lines."""

    def files(self) -> Iterable[tuple[str, NDArray[np.uint8], int]]:
        """Yield name, text and lines of every movie that has ratings."""
        for m in np.flatnonzero(np.diff(self.row_ptr)).tolist():
            text = self.text[self.byte_ptr[m] : self.byte_ptr[m + 1]]
            rows = int(self.row_ptr[m + 1] - self.row_ptr[m])
            yield f"{_FOLDER}/mv_{self.first + m:07d}.txt", text, rows


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

    Raises:
        ConfigError: if ``out`` is a URL.

    Memory: about 70 MB a thread, for any number of ratings; on the way the ratings lie in the
    staging folder of ``out``, eight bytes each.
    """
    if isinstance(folder_of(out), UrlPath):
        raise ConfigError(
            f"{out}: text is put together from pieces in a folder of this machine; generate it in "
            "a local folder and copy that there, or make a store there with layout='store'"
        )
    plan = plan_of(config)
    edges, owner = spill.movie_runs(plan, config.layout, TASK_RATINGS)
    with (
        new_artifact(out, "synth", overwrite=overwrite) as writer,
        engine.stage("synth", rows=config.n_ratings),
    ):
        base = writer.dir
        writer.expect(config.n_ratings * DISK_BYTES)
        spilled = [
            engine.submit(
                spill.spill_users, config, edges, base, i, *bounds, name="synth-users", index=i
            )
            for i, bounds in enumerate(plan.ranges(TASK_RATINGS))
        ]
        starts = np.stack(engine.gather(spilled))
        written = [
            engine.submit(
                _write_run,
                config,
                base,
                _target(config.layout, number),
                *edges[j : j + 2].tolist(),
                starts[:, j : j + 2],
                name="synth-text",
                index=j,
            )
            for j, number in enumerate(owner)
        ]
        joined: dict[str, _Joined] = {}
        for handle in written:  # in the order of the movies, while later runs are formatted
            for name, entry in engine.gather([handle])[0]:
                if name is None:
                    writer.add(entry)
                    continue
                if name not in joined:
                    joined[name] = _Joined(writer, name)
                joined[name].append(entry)
        shutil.rmtree(base / spill.FOLDER)
        if config.layout == "tar":
            joined[_TAR].pad(_TAR_END)
        for file in joined.values():
            writer.add(file.close())
        writer.add(_write_titles(base, config))
        rows = {
            "training": config.n_ratings,
            "probe": joined["probe.txt"].rows,
            "qualifying": joined["qualifying.txt"].rows,
            "titles": config.n_items,
        }
        options = config.model_dump(mode="json")
        artifact = writer.commit(config=options, inputs={}, stats=rows)
    return {"path": str(artifact.path), "layout": config.layout, **rows}


def _target(layout: str, number: int) -> str | None:
    """Return the file that the movies of a run go to; None where each has its own."""
    return {"tar": _TAR, "combined": f"combined_data_{number + 1}.txt"}.get(layout)


def _write_run(
    config: SynthConfig,
    base: Path,
    target: str | None,
    first: int,
    stop: int,
    parts: NDArray[np.int64],
) -> list[tuple[str | None, FileEntry]]:
    """Write the movies ``first .. stop - 1``.

    Returns:
        The written files, each with the name of the file that it is a piece of; None = none.
    """
    words = spill.read_run(base, parts)
    found: list[tuple[str | None, FileEntry]] = []
    for name, kind in _HELD.items():
        made = _format(kind, first, stop, words, config)
        piece = f"{name}-{first:07d}"
        found.append((name, _write(base, piece, [made.text], int(made.row_ptr[-1]))))
    made = _format(kernel.MOVIES, first, stop, words, config)
    if target is None:
        whole = [_write(base, name, [text], rows) for name, text, rows in made.files()]
        return [*found, *((None, entry) for entry in whole)]
    pieces = [made.text]
    if target == _TAR:
        pieces = [part for name, text, _ in made.files() for part in _member(name, text)]
    piece = f"{target}-{first:07d}"
    return [*found, (target, _write(base, piece, pieces, int(made.row_ptr[-1])))]


def _format(
    kind: int, first: int, stop: int, words: NDArray[np.uint64], config: SynthConfig
) -> MovieText:
    if kind != kernel.MOVIES:  # few: their text needs less room than that of all words
        held = words & np.uint64((1 << kernel.LABEL_BITS) - 1)
        words = words[held == 1] if kind == kernel.PROBE else words[held > 1]
    size = len(words) * kernel.MAX_LINE + (stop - first) * kernel.MAX_HEADER + kernel.SLACK
    text = np.empty(size, np.uint8)
    byte_ptr, row_ptr = np.empty(stop - first + 1, np.int64), np.empty(stop - first + 1, np.int64)
    users = _user_texts(config)
    kernel.format_movies(
        kind,
        first + 1,
        words,
        spill.day_bits(config),
        users.view(np.uint64),
        users,
        day_texts(config.first_day, config.last_day),
        star_texts(),
        text,
        np.ndarray(size - 7, np.uint64, text, strides=(1,)),
        byte_ptr,
        row_ptr,
    )
    return MovieText(first + 1, text[: byte_ptr[-1]], byte_ptr, row_ptr)


@functools.lru_cache(maxsize=2)
def _user_texts(config: SynthConfig) -> NDArray[np.uint8]:
    """Return uint8[n_users, 16], the digits of all ids."""
    ids = plan_of(config).user_id.astype(np.int64)
    texts = np.zeros((len(ids), 16), np.uint8)
    kernel.number_texts(ids, texts)
    return texts


@functools.lru_cache(maxsize=2)
def day_texts(first: dt.date, last: dt.date) -> NDArray[np.uint64]:
    """Return uint64[n_days, 2], the end of a line that every day has."""
    days = (first + dt.timedelta(days=d) for d in range((last - first).days + 1))
    text = "".join(f",{day.isoformat()}\n    " for day in days).encode()
    return np.frombuffer(bytearray(text), np.uint64).reshape(-1, 2)


@functools.cache
def star_texts() -> NDArray[np.uint64]:
    """Return uint64[2, 6], every number of stars behind a comma, and alone."""
    texts = [f"{comma}{star}".ljust(8) for comma in (",", "") for star in range(6)]
    return np.frombuffer(bytearray("".join(texts).encode()), np.uint64).reshape(2, 6)


def _member(name: str, data: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    header = np.frombuffer(info.tobuf(tarfile.USTAR_FORMAT), np.uint8)
    return [header, data, np.zeros(-len(data) % _TAR_BLOCK, np.uint8)]


def _write(base: Path, name: str, pieces: Sequence[NDArray[np.uint8]], rows: int) -> FileEntry:
    path = base / name
    below(base, path)
    digest = xxhash.xxh64()
    with path.open("wb") as stream:
        for piece in pieces:
            stream.write(piece.data)
            digest.update(piece.data)
    size = sum(len(piece) for piece in pieces)
    return FileEntry(file=name, rows=rows, bytes=size, checksum=f"xxh64:{digest.hexdigest()}")


def _write_titles(base: Path, config: SynthConfig) -> FileEntry:
    table = synth_source(config).titles()
    lines = [
        f"{item},{'NULL' if year is None else year},{title}\n"
        for item, title, year in zip(
            *(table.column(name).to_pylist() for name in ("item_id", "title", "year")), strict=True
        )
    ]
    data = np.frombuffer("".join(lines).encode("latin-1"), np.uint8)
    return _write(base, "movie_titles.txt", [data], len(lines))


class _Joined:
    """A file that grows by the pieces that tasks wrote; each piece goes as it is appended."""

    def __init__(self, writer: ArtifactWriter, name: str) -> None:
        self.rows = 0
        self._dir, self._name = writer.dir, name
        self._size = 0
        self._digest = xxhash.xxh64()
        self._buffer = bytearray(_COPY_BYTES)
        (self._dir / name).touch()

    def append(self, piece: FileEntry) -> None:
        path = self._dir / piece.file
        with path.open("rb") as source, (self._dir / self._name).open("ab") as stream:
            while n := source.readinto(self._buffer):
                self._add(memoryview(self._buffer)[:n], stream)
        self.rows += piece.rows
        path.unlink()

    def pad(self, zeros: int) -> None:
        with (self._dir / self._name).open("ab") as stream:
            self._add(memoryview(bytes(zeros)), stream)

    def _add(self, data: memoryview, stream: Any) -> None:
        stream.write(data)
        self._digest.update(data)
        self._size += len(data)

    def close(self) -> FileEntry:
        checksum = f"xxh64:{self._digest.hexdigest()}"
        return FileEntry(file=self._name, rows=self.rows, bytes=self._size, checksum=checksum)
