"""Formats at rest: raw readers, the ratings store, rating blocks, artifacts."""

from __future__ import annotations

from netflixdask.store.artifacts import (
    Artifact,
    ArtifactWriter,
    new_artifact,
    open_artifact,
)
from netflixdask.store.blocks import BlockLoader, RatingBlock
from netflixdask.store.parquet import FileEntry, write_parquet
from netflixdask.store.ratings import RatingsStore, open_store

__all__ = [
    "Artifact",
    "ArtifactWriter",
    "BlockLoader",
    "FileEntry",
    "RatingBlock",
    "RatingsStore",
    "new_artifact",
    "open_artifact",
    "open_store",
    "write_parquet",
]
