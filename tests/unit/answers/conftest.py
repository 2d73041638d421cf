"""A small made-up prize: native text with probe, qualifying and titles, ingested as a store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from netflixdask.cluster import open_client
from netflixdask.progress import quiet
from netflixdask.stages.ingest import ingest
from netflixdask.store import RatingsStore

TITLES = ["Golden Kite", "The Matrix", "The Matrix: Again", "Amélie", "Hamlet", "Hamlet"]


@dataclass(frozen=True)
class Prize:
    """The text files and what they hold."""

    folder: Path
    train: pd.DataFrame
    probe: pd.DataFrame
    qualifying: pd.DataFrame


@pytest.fixture(autouse=True, scope="module")
def sequential() -> Iterator[None]:
    """Run without a scheduler."""
    with quiet(), open_client("sequential"):
        yield


@pytest.fixture(scope="session")
def prize(tmp_path_factory: pytest.TempPathFactory) -> Prize:
    """80 customers, 30 movies; three ratings a customer in the probe, two in qualifying."""
    rng = np.random.default_rng(7)
    n_users, n_items = 80, 30
    users, items = np.nonzero(rng.random((n_users, n_items)) < np.linspace(0.9, 0.2, n_items))
    left, right = rng.normal(0, 0.8, (n_users, 2)), rng.normal(0, 0.8, (n_items, 2))
    stars = 3.4 + rng.normal(0, 0.6, n_items)[items] + (left[users] * right[items]).sum(axis=1)
    frame = pd.DataFrame(
        {
            "user_id": 6 + 11 * users,
            "item_id": 1 + items,
            "rating": np.clip(np.rint(stars), 1, 5).astype(int),
            "time": np.datetime64("2004-01-01") + rng.integers(0, 700, len(users)),
        }
    )
    place = frame.sample(frac=1, random_state=3).groupby("user_id").cumcount().reindex(frame.index)
    qualifying = frame[place < 2].sort_values(["item_id", "user_id"], ignore_index=True)
    probe = frame[(place >= 2) & (place < 5)].sort_values(["item_id", "user_id"], ignore_index=True)
    train = frame[place >= 5].reset_index(drop=True)
    folder = tmp_path_factory.mktemp("prize")
    (folder / "training_set").mkdir()
    for movie, rows in pd.concat([train, probe]).groupby("item_id"):
        lines = [f"{u},{r},{t:%Y-%m-%d}" for u, _, r, t in rows.itertuples(index=False)]
        text = "\n".join([f"{movie}:", *lines]) + "\n"
        (folder / "training_set" / f"mv_{movie:07d}.txt").write_text(text)
    _write_pairs(folder / "probe.txt", probe, dated=False)
    _write_pairs(folder / "qualifying.txt", qualifying, dated=True)
    titles = [*TITLES, *(f"Film Number {n}" for n in range(7, n_items + 1))]
    text = "".join(f"{n},{1960 + n},{title}\n" for n, title in enumerate(titles, start=1))
    (folder / "movie_titles.txt").write_text(text, encoding="latin-1")
    return Prize(folder, train, probe, qualifying)


@pytest.fixture(scope="session")
def store(prize: Prize, tmp_path_factory: pytest.TempPathFactory) -> RatingsStore:
    """The prize as a store, the probe moved out of training."""
    with quiet(), open_client("sequential"):
        return ingest(prize.folder, tmp_path_factory.mktemp("stores") / "prize")


def _write_pairs(path: Path, rows: pd.DataFrame, *, dated: bool) -> None:
    lines = []
    for movie, part in rows.groupby("item_id"):
        lines.append(f"{movie}:")
        for user, time in zip(part["user_id"], part["time"], strict=True):
            lines.append(f"{user},{time:%Y-%m-%d}" if dated else f"{user}")
    path.write_text("\n".join(lines) + "\n")
