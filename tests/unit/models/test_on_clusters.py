"""Models on real workers: equal bits, nothing left behind, no lineage that grows."""

from __future__ import annotations

import contextlib
import time

import dask.dataframe as dd
import pandas as pd
import pytest

import netflixdask.models as nd
from netflixdask.cluster import open_client
from netflixdask.mapreduce import DaskEngine
from netflixdask.models import blocks, exchange
from netflixdask.progress import quiet
from netflixdask.testing import assert_same_bits, tiny_ratings, tiny_store

pytestmark = pytest.mark.distributed


@pytest.fixture
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def many_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "LEAST_BLOCK", 200)
    with quiet():
        yield


def n_tasks(client):
    return client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))


MODELS = [nd.DoubleMean, nd.BiasBaseline, nd.ItemKNN, nd.ALS]


@pytest.mark.parametrize(
    ("model_class", "least"),
    [*((model, 1 << 24) for model in MODELS), (nd.ALS, 1), (nd.ImplicitALS, 1)],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_workers_change_no_bit_and_forget_everything(
    client, store, model_class, least, monkeypatch
):
    """A large side is laid out by every worker; of the smallest ones too if ``least`` is 1."""
    monkeypatch.setattr(exchange, "LEAST_ASSEMBLED", least)
    with open_client("sequential"):
        expected = model_class().fit(store)
        frame = tiny_ratings()
        predicted = expected.predict(frame)
    model = model_class().fit(store)
    assert_same_bits(model, expected)
    lazy = model.predict(dd.from_pandas(frame, npartitions=4))
    pd.testing.assert_series_equal(lazy.compute().sort_index(), predicted, check_exact=True)
    del lazy
    deadline = time.monotonic() + 20
    while n_tasks(client) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert n_tasks(client) == 0


def test_scheduler_does_not_remember_old_epochs(client, store):
    """Without checkpoints every epoch's tasks stay known as the ancestry of the last."""
    counts = []

    class Progress:
        name = "als"

        def note(self, text):
            counts.append(n_tasks(client))

    class Watched(DaskEngine):
        @contextlib.contextmanager
        def stage(self, name, **options):
            with super().stage(name, **options):
                yield Progress()

    model = nd.ALS(n_factors=2, epochs=50, checkpoint_every=5)
    model.learn(store, Watched(client), 0)
    assert len(counts) == 50
    # Releasing is asynchronous: tasks of some epochs before may still be known, of 40 never.
    per_epoch = max(counts[1:5]) - min(counts[:5])
    assert max(counts[20:]) <= max(counts[:10]) + 4 * per_epoch
