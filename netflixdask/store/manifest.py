"""What a store's ``manifest.json`` says. It is written last: without it there is no store."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pydantic
import xxhash

from netflixdask.errors import StoreError
from netflixdask.store.parquet import FileEntry
from netflixdask.urls import UrlPath, as_path, check_folder_url, write_whole

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"

TimeKind = Literal["date", "timestamp", "none"]
IdKind = Literal["int", "string"]
Side = Literal["user", "item"]
SIDES: tuple[Side, Side] = ("user", "item")

Model = TypeVar("Model", bound=pydantic.BaseModel)


class DamagedManifest(StoreError):
    """There is a manifest, and it cannot be read; what it named may still be there."""


class BlockEntry(FileEntry):
    """One block file: all ratings of the rows ``first .. last`` of its side."""

    first: int
    last: int


class SourceEntry(pydantic.BaseModel, extra="forbid", frozen=True):
    """One file that was read."""

    file: str
    role: str
    """ratings, titles, or the holdout that it gave."""
    size: int
    md5: str | None
    rows: int | None


class RatingScale(pydantic.BaseModel, extra="forbid", frozen=True):
    """The values that ratings take, in training and holdouts, or the layout's own."""

    low: float
    high: float
    scale: int | None
    """Smallest of 1, 2, 4, 5, 10, 100 that makes ``(rating - low) * scale`` whole, if one does."""
    whole: bool
    """All ratings are whole numbers, kept as int8."""


class Accounting(pydantic.BaseModel, extra="forbid", frozen=True):
    """Rows read from rating files = ratings + scrubbed + duplicates + rejects."""

    rows_read: int
    ratings: int
    scrubbed: int
    """Rows of held-out pairs: moved to the probe, or left out where the holdout has its own."""
    duplicates: int
    """Rows that a later one of their pair replaced."""
    rejects: int
    undated: int = 0
    """Of ``duplicates``: rows without a time in a store that has times. They are older than every
    dated one, so they never replace it."""
    held_out: int = 0
    """Of ``duplicates``: rows of held-out pairs, such as earlier ratings of the probe's."""


class StoreManifest(pydantic.BaseModel, extra="forbid", frozen=True):
    """Everything about a store that is not a rating."""

    format: Literal["netflixdask-store"] = "netflixdask-store"
    schema_version: int = SCHEMA_VERSION
    package_version: str
    created: str
    generation: int
    n_users: int
    n_items: int
    n_ratings: int
    rating: RatingScale
    time_kind: TimeKind
    stars: dict[str, int]
    """Ratings of each value, such as ``{"1": 4617990, ...}``."""
    user_id_kind: IdKind
    item_id_kind: IdKind
    id_generations: dict[str, list[int]]
    """Numbers below ``[0]`` came with generation 1, below ``[1]`` with generation 2, ..."""
    layout: str
    sources: list[SourceEntry]
    accounting: Accounting
    by_user: list[BlockEntry]
    by_item: list[BlockEntry]
    users: FileEntry
    items: FileEntry
    holdout: dict[str, FileEntry]
    duplicates: FileEntry | None
    rejects: FileEntry | None
    config: dict[str, Any]
    digest: str = ""
    """See :func:`sealed`."""

    @property
    def apart(self) -> list[str]:
        """Names of the holdouts no pair of which is in training: all but a probe that stays."""
        stays = self.config.get("scrub_probe") is False
        return [name for name in self.holdout if not (stays and name == "probe")]

    @property
    def fingerprint(self) -> str:
        """Digest of all file contents: equal ratings in equal blocks have equal fingerprints."""
        files = [*self.by_user, *self.by_item, self.users, self.items, *self.holdout.values()]
        return digest([self.schema_version, *[entry.checksum for entry in files]])


def folder_of(path: str | Path) -> Path:
    """Return the absolute path of an output or of what is opened, which may be a URL.

    Raises:
        StoreError: if it is no path, or an empty one.
        ConfigError: if the driver of its URL is not installed.
        InputError: if its URL carries a password, or is a pattern.
    """
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise StoreError(f"found {path!r} for a folder; expected its path")
    folder = as_path(path).expanduser().absolute()
    check_folder_url(folder)
    return folder


def stars_text(value: float) -> str:
    """Return a rating as the key of ``stars``: the shortest text that reads the same float32."""
    return str(np.float32(value)).removesuffix(".0")


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits that depend on a JSON-like value only."""
    text = json.dumps(value, sort_keys=True, default=str)
    return xxhash.xxh64(text.encode()).hexdigest()


def sealed(manifest: Model) -> Model:
    """Return a manifest with the digest of all the rest of it as ``digest``.

    A bit that flips in it is found then like one in a file that it names.
    """
    return manifest.model_copy(update={"digest": _seal(manifest.model_dump(mode="json"))})


def _seal(raw: dict[str, Any]) -> str:
    rest = {key: value for key, value in raw.items() if key != "digest"}
    return digest(json.loads(json.dumps(rest, default=str)))  # as it is read


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by the JSON of ``value`` in one step, on disk before it returns."""
    text = json.dumps(value, indent=1, sort_keys=False, default=str) + "\n"
    write_whole(path, text.encode(), synced=True)


def read_manifest(path: Path, model: type[Model], what: str) -> Model:
    """Read ``path/manifest.json`` as ``model``.

    Raises:
        DamagedManifest: if it is no JSON, or lacks something.
        StoreError: if there is none, it is not one of ``what``, it is newer than this package, or
            this user may not read it.
        UnreachableError: if it is behind a URL that cannot be reached.
    """
    file = path / MANIFEST
    try:
        if not isinstance(path, UrlPath):  # where there are no folders the file tells alone
            path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{path}: there is no such folder; expected {what}") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened ({error.strerror}); expected {what}") from None
    again = "damaged; make it again with overwrite=True, or put a copy of the manifest there"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(
            f"{path}: this is not {what}: it has no {MANIFEST} (it is written last, so an "
            "interrupted run leaves none; run that command again)"
        ) from None
    except OSError as error:
        raise StoreError(
            f"{file}: cannot be read ({error.strerror}); expected a file that this user may read"
        ) from None
    except ValueError as error:
        raise DamagedManifest(f"{file}: cannot be read as JSON ({error}): {again}") from None
    if not isinstance(raw, dict):
        got = type(raw).__name__
        raise DamagedManifest(f"{file}: expected a JSON object, got {got}: {again}")
    version = raw.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise StoreError(
            f"{file}: schema version {version} is newer than this package knows "
            f"({SCHEMA_VERSION}); upgrade netflixdask"
        )
    try:
        manifest = model.model_validate(raw)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        found = f" = {first['input']!r}" if isinstance(first["input"], str | int) else ""
        said = f"{file}: this is not {what}: {where}{found}: {first['msg'].lower()}"
        if raw.get("format") == model.model_fields["format"].default:
            raise DamagedManifest(f"{said}: {again}") from None
        raise StoreError(said) from None
    seal = raw.get("digest")
    if seal and seal != _seal(raw):
        raise DamagedManifest(
            f"{file}: was changed since it was written (digest {_seal(raw)}, it says {seal}): "
            f"{again}"
        )
    return manifest
