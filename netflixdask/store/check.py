"""Checking a store or an artifact from end to end, a row group at a time.

A store is sound if its files are those that the manifest names, byte for byte, and if what they say
agrees: every block is sorted and holds the rows of its range, both orders hold the same ratings,
the id tables number what is there and count it right, no pair of a holdout is in training, and the
manifest's own figures add up.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from netflixdask.errors import StoreError
from netflixdask.mapreduce import Engine, split_evenly, use_engine
from netflixdask.store.artifacts import Artifact, open_artifact
from netflixdask.store.check_parts import (
    BlockFound,
    IdsFound,
    check_block,
    check_holdout,
    check_ids,
    check_some,
    held_pairs,
)
from netflixdask.store.locking import STAGING
from netflixdask.store.manifest import (
    MANIFEST,
    SIDES,
    BlockEntry,
    DamagedManifest,
    Side,
    StoreManifest,
    folder_of,
    stars_text,
)
from netflixdask.store.parquet import FileEntry
from netflixdask.store.ratings import RatingsStore, open_store
from netflixdask.store.staging import GENERATION
from netflixdask.urls import UrlPath

_TASKS_A_THREAD = 4


@dataclass(frozen=True)
class CheckReport:
    """What a check looked at and found."""

    path: str
    kind: str
    """store, or the kind of an artifact; ? where the manifest does not say."""
    generation: int | None
    """Of a store."""
    n_files: int
    """That are there, of those that the manifest names; rows and bytes are theirs."""
    n_rows: int
    """Ratings of a store; rows of all tables of an artifact."""
    n_bytes: int
    problems: tuple[str, ...]
    """One sentence each, naming the file; none for what is sound."""
    overlaps: dict[str, int] = field(default_factory=dict)
    """Pairs of each holdout that are in training although they may not be; only of those that
    have some. Figures on such a holdout would say nothing."""

    @property
    def sound(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {**self.__dict__, "problems": list(self.problems), "sound": self.sound}


def open_any(path: str | Path) -> RatingsStore | Artifact:
    """Open the store or artifact at ``path``.

    Raises:
        StoreError: if there is neither.
    """
    path = folder_of(path)
    try:
        return open_store(path)
    except StoreError as error:
        try:
            return open_artifact(path)
        except DamagedManifest:
            raise
        except StoreError:
            raise error from None


def check(path: str | Path) -> CheckReport:
    """Check the store or the artifact at ``path``; one whose manifest is damaged has no figures.

    Raises:
        StoreError: if there is neither.
    """
    try:
        found = open_any(path)
    except DamagedManifest as error:
        path = folder_of(path)
        kind = "store" if any(GENERATION.fullmatch(one.name) for one in path.iterdir()) else "?"
        return CheckReport(str(path), kind, None, 0, 0, 0, (str(error),))
    return check_store(found) if isinstance(found, RatingsStore) else check_artifact(found)


def check_artifact(artifact: Artifact | str | Path) -> CheckReport:
    """Check the files of an artifact: those that it names, no others, sizes, checksums and rows.

    Raises:
        StoreError: if there is no artifact.
    """
    artifact = artifact if isinstance(artifact, Artifact) else open_artifact(artifact)
    files = artifact.manifest.files
    with use_engine() as engine, engine.stage("check"):
        problems = _check_files(engine, artifact.path, files)
    problems += [
        f"{path}: is not named by the manifest" for path in strangers(artifact.path, files)
    ]
    there = [entry for entry in files if (artifact.path / entry.file).exists()]
    return CheckReport(
        path=str(artifact.path),
        kind=artifact.kind,
        generation=None,
        n_files=len(there),
        n_rows=sum(entry.rows for entry in there),
        n_bytes=sum(entry.bytes for entry in there),
        problems=tuple(problems),
    )


def check_store(store: RatingsStore | str | Path) -> CheckReport:
    """Check every file of a store's generation and that all of them agree.

    Memory: one row group of each order's block a thread, and the counts of all users and items.

    Raises:
        StoreError: if there is no store.
    """
    store = store if isinstance(store, RatingsStore) else open_store(store)
    manifest, base = store.manifest, str(store.path)
    files = files_of(manifest)
    plain = [entry for entry in files if not isinstance(entry, BlockEntry)]
    problems = [f"{store.path / MANIFEST}: {problem}" for problem in _figures(manifest)]
    with use_engine() as engine, engine.stage("check"):
        pairs = engine.submit(held_pairs, base, manifest, name="check-pairs")
        blocks = {
            by: [
                engine.submit(
                    check_block, base, by, entry, manifest, pairs, name=f"check-{by}", index=at
                )
                for at, entry in enumerate(store.entries(by))
            ]
            for by in SIDES
        }
        tables = {
            by: engine.submit(check_ids, base, by, manifest, name="check-ids", index=at)
            for at, by in enumerate(SIDES)
        }
        held = [
            engine.submit(check_holdout, base, entry, manifest, name="check-holdout", index=at)
            for at, entry in enumerate(manifest.holdout.values())
        ]
        damaged = _check_files(engine, store.path, plain)
        found = {by: engine.gather(blocks[by]) for by in SIDES}
        counts = dict(zip(SIDES, engine.gather([tables[by] for by in SIDES]), strict=True))
        if not damaged:
            damaged = [problem for some in engine.gather(held) for problem in some]
            damaged += [problem for by in SIDES for problem in counts[by].problems]
    problems += damaged
    for by in SIDES:
        problems += [problem for block in found[by] for problem in block.problems]
    problems += _compare(store, found, counts)
    overlaps = _overlaps(found["user"])
    problems += [
        f"{store.path / manifest.holdout[name].file}: {n:,} of its {manifest.holdout[name].rows:,} "
        "pairs are in training as well"
        for name, n in overlaps.items()
    ]
    problems += [
        f"{path}: is not named by the manifest"
        for path in strangers(store.folder, files_of(manifest), base=store.path)
    ]
    there = [entry for entry in files if (store.path / entry.file).exists()]
    return CheckReport(
        path=base,
        kind="store",
        generation=manifest.generation,
        n_files=len(there),
        n_rows=sum(entry.rows for entry in there if entry in manifest.by_user),
        n_bytes=sum(entry.bytes for entry in there),
        problems=tuple(problems),
        overlaps=overlaps,
    )


def _overlaps(blocks: Sequence[BlockFound]) -> dict[str, int]:
    """Sum the held-out pairs that blocks hold; of each holdout that has some."""
    total: collections.Counter[str] = collections.Counter()
    for block in blocks:
        total.update(block.overlaps)
    return {name: n for name, n in total.items() if n}


def files_of(manifest: StoreManifest) -> list[FileEntry]:
    """Return the entries of all files of a store."""
    files = [*manifest.by_user, *manifest.by_item, manifest.users, manifest.items]
    files += manifest.holdout.values()
    return [*files, *[entry for entry in (manifest.duplicates, manifest.rejects) if entry]]


def _figures(manifest: StoreManifest) -> list[str]:
    """Compare the manifest's figures with each other."""
    problems = []
    sizes = {"user": manifest.n_users, "item": manifest.n_items}
    for by, entries in (("user", manifest.by_user), ("item", manifest.by_item)):
        stop = 0
        for entry in entries:
            if entry.first != stop or entry.last < entry.first:
                problems.append(
                    f"{entry.file} is said to hold {by}s {entry.first:,} to {entry.last:,}, "
                    f"expected from {stop:,} on"
                )
            stop = entry.last + 1
        if stop != sizes[by]:
            problems.append(f"the blocks of by_{by} end at {stop:,} of {sizes[by]:,} {by}s")
        rows = sum(entry.rows for entry in entries)
        if rows != manifest.n_ratings:
            problems.append(
                f"the blocks of by_{by} have {rows:,} rows, n_ratings is {manifest.n_ratings:,}"
            )
    stars = sum(manifest.stars.values())
    if stars != manifest.n_ratings:
        problems.append(f"stars count {stars:,} ratings, n_ratings is {manifest.n_ratings:,}")
    account = manifest.accounting
    total = account.ratings + account.scrubbed + account.duplicates + account.rejects
    if total != account.rows_read:
        problems.append(f"{account.rows_read:,} rows were read, {total:,} are accounted for")
    return problems


def _compare(
    store: RatingsStore, blocks: dict[Side, list[BlockFound]], tables: dict[Side, IdsFound]
) -> list[str]:
    """Compare the orders with each other, the id tables and the manifest, where they are sound."""
    problems = []
    sound = [by for by in SIDES if not any(block.problems for block in blocks[by])]
    for by in sound:
        counts = np.concatenate([block.counts for block in blocks[by]])
        expected = tables[by].counts
        if expected is not None and not np.array_equal(counts, expected):
            problems.append(
                f"{store.folder / f'by_{by}'}: ratings of a {by} differ from n_ratings in "
                f"{by}s.parquet"
            )
    if "user" in sound:
        stars: collections.Counter[str] = collections.Counter()
        for block in blocks["user"]:
            for value, n in block.stars.items():
                stars[stars_text(value)] += n
        said = {value: n for value, n in store.manifest.stars.items() if n}
        if said != stars:
            problems.append(
                f"{store.path / MANIFEST}: stars are {said}, those of by_user are {dict(stars)}"
            )
    if len(sound) == 2:
        user, item = (sum(block.digest for block in blocks[by]) % 2**64 for by in SIDES)
        if user != item:
            problems.append(f"{store.folder}: by_user and by_item do not hold the same ratings")
    return problems


def _check_files(engine: Engine, base: Path, files: Sequence[FileEntry]) -> list[str]:
    parts = split_evenly(files, _TASKS_A_THREAD * engine.n_threads) if files else []
    found = engine.gather(
        [
            engine.submit(check_some, str(base), list(part), name="check-files", index=at)
            for at, part in enumerate(parts)
        ]
    )
    return [problem for some in found for problem in some]


def strangers(folder: Path, files: Iterable[FileEntry], *, base: Path | None = None) -> list[Path]:
    """Return the files below ``folder`` that are not the manifest's; plain readers would read them.

    Args:
        folder: where nothing else may be.
        files: entries of the manifest in ``base``, by default ``folder``.
        base: the manifest's folder.
    """
    base = base or folder
    named = {base / entry.file for entry in files} | {base / MANIFEST}
    return [
        path
        for path in sorted(folder.rglob("*"))
        if (isinstance(path, UrlPath) or path.is_file())
        and path not in named
        and not path.relative_to(folder).parts[0].startswith(STAGING)
    ]
