from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from netflixdask.cluster import open_client
from netflixdask.mapreduce import use_engine
from netflixdask.stages.split import SplitConfig, split
from netflixdask.stages.stats import stats
from netflixdask.stages.synth import SynthConfig, synth, text
from netflixdask.store.ratings import RatingsStore

SIZE = SynthConfig(n_ratings=20_000, n_users=600, n_items=200, seed=11)


def everything(base: Path) -> dict[str, Any]:
    """Fingerprints of a made store, its statistics, its split and the text of the same ratings."""
    with use_engine() as engine:
        store = synth(base / "store", SIZE, engine=engine)
        assert isinstance(store, RatingsStore)
        counted = stats(store, base / "stats", engine=engine)
        halves = split(store, base / "split", SplitConfig(how="last", n=3), engine=engine)
        assert isinstance(halves, RatingsStore)
        synth(base / "text", SIZE.model_copy(update={"layout": "tar"}), engine=engine)
    return {
        "store": store.fingerprint,
        "stats": counted.fingerprint,
        "split": halves.fingerprint,
        "text": (base / "text" / "training_set.tar").read_bytes(),
    }


@pytest.mark.distributed
def test_dask_gives_the_files_of_the_sequential_engine(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_client("sequential"):
        oracle = everything(tmp_path / "sequential")
    monkeypatch.setattr(text, "TASK_RATINGS", 2_000)  # and the text by ten tasks each way
    assert everything(tmp_path / "dask") == oracle
