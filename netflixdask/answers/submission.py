"""Predictions in the Netflix Prize's format: written for a store's qualifying pairs.

::

    qualifying.txt          submission
    1:                      1:
    1046323,2005-12-19      3.742
    1080030,2005-12-23      3.501
    10:                     10:
    1952305,2005-11-16      2.987

The movies' headers and the predictions stand in the order of ``qualifying.txt``, one prediction
for each of its lines (README of the Netflix Prize data set; ``%.3f`` as in PyFlix).
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from netflixdask.answers.predict import holdout_pairs
from netflixdask.answers.scoring import opened_model, pair_frame, predict_all, store_of_model
from netflixdask.errors import InputError, StoreError
from netflixdask.mapreduce import use_engine
from netflixdask.models import Estimator
from netflixdask.store import RatingsStore
from netflixdask.urls import as_path, write_whole

_LEVEL = 4  # of gzip: 0.4 s of the prize's 17 MB and 8 % larger than level 9, which takes 14 s


@dataclass(frozen=True)
class Submission:
    """A written submission."""

    path: Path
    n_pairs: int
    n_headers: int
    md5: str
    """Of the file as it is on disk, which the prize asked for beside it."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {
            "submission": str(self.path),
            "n_pairs": self.n_pairs,
            "n_headers": self.n_headers,
            "md5": self.md5,
        }


def write_submission(
    model: Estimator | str | Path,
    path: str | Path,
    *,
    store: RatingsStore | str | Path | None = None,
    holdout: str = "qualifying",
    overwrite: bool = False,
) -> Submission:
    """Predict the qualifying pairs and write them in the prize's format.

    Args:
        model: a fitted model, or the folder of a saved one.
        path: the file; gzipped if its name ends in ``.gz`` (the same bytes every time).
        store: the store that has the pairs; by default the one that the model was fitted on.
        holdout: its name.
        overwrite: replace a file that is there.

    Raises:
        InputError: if there is no such holdout, a pair of it was set aside when it was read, or
            the model makes no prediction for one.
        StoreError: if ``path`` exists.
    """
    opened = opened_model(model)
    source = store_of_model(opened, store)
    path = as_path(path).expanduser().absolute()
    if path.is_dir() or (path.exists() and not overwrite):
        raise StoreError(
            f"{path}: exists already; choose another path or replace it with overwrite=True"
        )
    asked = holdout_pairs(source, holdout)
    gaps = np.flatnonzero(asked.row != np.arange(len(asked.row)))
    if len(gaps):
        raise InputError(
            f"{source.path}: pair {int(gaps[0]) + 1} of the holdout {holdout!r} was set aside when "
            "it was read, and a submission needs every pair; ingest again with on_error='fail'"
        )
    with use_engine() as engine, engine.stage("submission", rows=len(asked.row)):
        frame = pair_frame(asked.user_id, asked.item_id, asked.time)
        stars = predict_all(opened, frame, engine)
    missing = np.flatnonzero(np.isnan(stars))
    if len(missing):
        at = int(missing[0])
        raise InputError(
            f"{opened!r} makes no prediction for {len(missing):,} pairs, the first: user "
            f"{asked.user_id[at]}, item {asked.item_id[at]}; a submission needs every pair; fit "
            "with cold_start='baseline'"
        )
    if not len(stars):
        raise InputError(
            f"{source.path}: the holdout {holdout!r} is empty; expected pairs to predict"
        )
    text, n_headers = submission_text(asked.item_id, stars)
    data = gzip.compress(text, _LEVEL, mtime=0) if path.suffix == ".gz" else text
    try:
        write_whole(path, data, synced=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Submission(path, len(stars), n_headers, digest)


def submission_text(item_id: pd.Series[int], stars: NDArray[np.float32]) -> tuple[bytes, int]:
    """Return the text of a submission and its number of headers.

    Args:
        item_id: raw item id of every pair, in the qualifying file's order; not empty.
        stars: float32[n_pairs], predictions in the same order.
    """
    ids = item_id.to_numpy()
    starts = np.concatenate([[0], np.flatnonzero(ids[1:] != ids[:-1]) + 1, [len(ids)]])
    lines = [f"{star:.3f}\n" for star in stars.tolist()]
    parts: list[str] = []
    for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        parts.append(f"{ids[a]}:\n")
        parts += lines[a:b]
    return "".join(parts).encode(), len(starts) - 1
