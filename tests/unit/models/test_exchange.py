"""Three ways of moving src rows: equal bits, and the bytes that the formulas say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import netflixdask.models as nd
from netflixdask.cluster import open_client
from netflixdask.mapreduce import SequentialEngine
from netflixdask.models import blocks, exchange
from netflixdask.models.blocks import rating_blocks
from netflixdask.models.exchange import total_moved
from netflixdask.models.plan import fit_steps
from netflixdask.models.side import Factors, Moved
from netflixdask.plan import Machines
from netflixdask.progress import quiet
from netflixdask.store import BlockLoader, RatingsStore
from netflixdask.store.shape import Shape
from netflixdask.testing import assert_same_bits, tiny_store

OPTIONS = {"n_factors": 3, "epochs": 3, "checkpoint_every": 2}
WAYS = ("broadcast", "routed", "ranged")


@pytest.fixture
def chosen(monkeypatch):
    """How the half-steps of all fits got their rows."""
    found = []
    former = exchange.Exchange.half_step

    def watched(self, *args):
        found.append((self.name, self.way))
        return former(self, *args)

    monkeypatch.setattr(exchange.Exchange, "half_step", watched)
    return found


@pytest.fixture(autouse=True)
def sequential():
    with quiet(), open_client("sequential") as none:
        yield none


@pytest.fixture
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def heavy_store(tmp_path_factory):
    """One item that 9,500 users rated, and some that few did."""
    rng = np.random.default_rng(0)
    users = np.concatenate([np.arange(9_500), rng.integers(0, 9_500, 3_000)])
    items = np.concatenate([np.full(9_500, 4), rng.integers(5, 30, 3_000)])
    frame = pd.DataFrame({"user_id": users, "item_id": items}).drop_duplicates()
    frame["rating"] = rng.integers(1, 6, len(frame))
    return RatingsStore.from_frame(frame, tmp_path_factory.mktemp("heavy") / "store")


def cut(monkeypatch, n_blocks, per_thread=1):
    monkeypatch.setattr(SequentialEngine, "n_threads", n_blocks)
    monkeypatch.setattr(blocks, "BLOCKS_PER_THREAD", per_thread)
    monkeypatch.setattr(blocks, "least_block", lambda _: 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n_blocks", [1, 2, 3, 5, 8, 1_000_000])
def test_every_way_gives_the_same_bits(store, way, n_blocks, monkeypatch):
    expected = nd.ALS(**OPTIONS).fit(store)
    cut(monkeypatch, n_blocks)
    assert_same_bits(nd.ALS(**OPTIONS, exchange=way).fit(store), expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_heavy_row_is_split_at_whole_segments(heavy_store, way, monkeypatch):
    expected = nd.ALS(**OPTIONS).fit(heavy_store)
    cut(monkeypatch, 7)
    with SequentialEngine().stage("test"):
        _, by_item = rating_blocks(heavy_store, SequentialEngine(), split=True)
    split = [block for block in by_item if len(block.pieces) > 1]
    assert [(block.first, block.stop) for block in split] == [(0, 1)]
    assert [piece.n_ratings for piece in split[0].pieces] == [4096, 4096, 9_500 - 8192]
    numbers = [n for block in by_item for n in range(block.first, block.stop)]
    assert numbers == list(range(heavy_store.n_items))
    assert sum(block.n_ratings for block in by_item) == heavy_store.n_ratings
    assert_same_bits(nd.ALS(**OPTIONS, exchange=way).fit(heavy_store), expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", [{}, {"validation": 0.2}])
def test_blocks_that_are_read_again_and_again_give_the_same_bits(
    heavy_store, way, options, monkeypatch
):
    expected = nd.ALS(**OPTIONS, **options).fit(heavy_store)
    means = nd.DoubleMean().fit(heavy_store)
    monkeypatch.setattr(Machines, "room", property(lambda self: 50 * 1_500))
    by_user, by_item = rating_blocks(heavy_store, SequentialEngine(), split=True)
    pieces = [piece for block in (*by_user, *by_item) for piece in block.pieces]
    assert all(isinstance(piece, BlockLoader) for piece in pieces)
    assert len(by_user) > 6
    assert_same_bits(nd.ALS(**OPTIONS, **options, exchange=way).fit(heavy_store), expected)
    assert_same_bits(nd.DoubleMean().fit(heavy_store), means)


def test_auto_chooses_by_size(heavy_store, chosen, monkeypatch):
    cut(monkeypatch, 4)
    options = {**OPTIONS, "epochs": 1}
    row = 64  # bytes of a row in memory
    # All users fit; only what a task needs fits; not even that, nor all 26 items.
    for rows, item_way, user_way in (
        (9_500, "broadcast", "broadcast"),
        (9_499, "routed", "broadcast"),
        (20, "ranged", "ranged"),
    ):
        monkeypatch.setattr(exchange, "SRC_BYTES", row * rows)
        nd.ALS(**options).fit(heavy_store)
        assert dict(chosen) == {"als-item": item_way, "als-user": user_way}


def test_workers_with_more_memory_hold_more_of_a_side(heavy_store, chosen, monkeypatch):
    monkeypatch.setattr(exchange, "SRC_BYTES", 20 * 64)
    large = Machines("large", 1, 1, 2_000_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(Machines, "of", lambda engine: large)
        nd.ALS(**{**OPTIONS, "epochs": 1}).fit(heavy_store)
    assert dict(chosen) == {"als-item": "broadcast", "als-user": "broadcast"}
    steps = {}
    for memory in (0, 8 * 64 * 9_499, 8 * 64 * 9_500):
        on = Machines("some", 1, 4, memory)
        (steps[memory],) = fit_steps(nd.ALS(**OPTIONS), Shape.of(heavy_store), on)
    few, nearly, all_users = steps.values()
    assert few.tasks > nearly.tasks > all_users.tasks
    assert exchange.src_room(0) == 20 * 64
    assert exchange.src_room(8 * 64 * 9_500) == 64 * 9_500


@pytest.mark.parametrize("way", WAYS)
def test_bytes_that_tasks_count_are_those_of_the_formula(store, way, monkeypatch):
    cut(monkeypatch, 3)
    engine = SequentialEngine()
    by_user, by_item = rating_blocks(store, engine, split=True)
    row = 4 * (OPTIONS["n_factors"] + 1)
    model = nd.ALS(**OPTIONS, exchange=way).fit(store)

    def expected(dst, n_src, src_parts):
        if way == "broadcast":
            return row * n_src * (2 if src_parts > 1 else 1)
        if way == "ranged":
            return row * n_src * len(dst)
        return row * sum(len(np.unique(piece.src)) for block in dst for piece in block.pieces)

    found = model.history_["bytes_moved"].tolist()
    # What one side's runs were put together of counts in the epoch that solved them.
    items = expected(by_item, store.n_users, len(by_user))
    users = expected(by_user, store.n_items, len(by_item))
    assert found == [items + users] * OPTIONS["epochs"]


def test_bytes_of_a_shared_matrix_count_once_a_place():
    moved = [Moved("a", 100, 0), Moved("a", 100, 7), Moved("b", 100, 0)]
    assert total_moved(moved) == 207
    assert total_moved([]) == 0


def test_factors_travel_without_what_can_be_made_again():
    import pickle

    from netflixdask.kernels.factor_rows import Layout

    rows = np.random.default_rng(0).normal(size=(1_000, 21)).astype(np.float32)
    factors = Factors.of(rows, Layout(20, True, True))
    sent = pickle.dumps(factors, protocol=5)
    assert len(sent) < 1_000 * 21 * 4 + 1_000
    again = pickle.loads(sent)
    assert again.packed.tobytes() == factors.packed.tobytes()
    assert again.packed.ctypes.data % 64 == 0
