"""The loop: validation, early stop, checkpoints and resuming."""

from __future__ import annotations

import numpy as np
import pytest

import netflixdask.models as nd
from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError, StoreError
from netflixdask.mapreduce import SequentialEngine
from netflixdask.models import blocks
from netflixdask.models.blocks import rating_blocks
from netflixdask.models.validation import hold_out
from netflixdask.progress import quiet
from netflixdask.testing import assert_same_bits, tiny_ratings, tiny_store

OPTIONS = {"n_factors": 3, "epochs": 9, "checkpoint_every": 2, "reg": 0.05}


@pytest.fixture(autouse=True)
def sequential():
    with quiet(), open_client("sequential") as none:
        yield none


@pytest.fixture
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.getbasetemp())


class Killed(Exception):
    """The process ends here."""


def fit_until(monkeypatch, store, epoch, path, **options):
    """Fit, and fail in the middle of an epoch."""
    from netflixdask.models import alternate

    former = alternate._Run._submit_epoch

    def watched(self, number, *sides):
        if number == epoch:
            raise Killed
        return former(self, number, *sides)

    with monkeypatch.context() as patch:
        patch.setattr(alternate._Run, "_submit_epoch", watched)
        with pytest.raises(Killed):
            nd.ALS(**{**OPTIONS, **options}).fit(store, rng=3, checkpoint=path)


@pytest.mark.parametrize("epoch", [2, 3, 7, 9])
@pytest.mark.parametrize("validation", [0.0, 0.1])
def test_a_resumed_fit_is_the_whole_one(store, tmp_path, monkeypatch, epoch, validation):
    more = {"validation": validation, "patience": 20}
    expected = nd.ALS(**OPTIONS, **more).fit(store, rng=3)
    path = tmp_path / "checkpoint"
    fit_until(monkeypatch, store, epoch, path, **more)
    assert path.exists() == (epoch > 2)
    found = nd.ALS(**OPTIONS, **more).fit(store, rng=3, checkpoint=path, resume=True)
    assert_same_bits(found, expected)
    assert not path.exists()


def test_resuming_may_go_further_or_on_another_way(store, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    fit_until(monkeypatch, store, 6, path)
    expected = nd.ALS(**{**OPTIONS, "epochs": 12}).fit(store, rng=3)
    more = {"epochs": 12, "exchange": "routed"}
    assert_same_bits(
        nd.ALS(**{**OPTIONS, **more}).fit(store, rng=3, checkpoint=path, resume=True), expected
    )


def test_another_fits_checkpoint_is_refused(store, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    fit_until(monkeypatch, store, 6, path)
    for options, seed in (({"reg": 0.06}, 3), ({}, 4)):
        with pytest.raises(StoreError, match="other options, another seed"):
            nd.ALS(**{**OPTIONS, **options}).fit(store, rng=seed, checkpoint=path, resume=True)
    with pytest.raises(ConfigError, match="after epoch 4"):
        nd.ALS(**{**OPTIONS, "epochs": 4}).fit(store, rng=3, checkpoint=path, resume=True)
    with pytest.raises(ConfigError, match="checkpoint="):
        nd.ALS(**OPTIONS).fit(store, resume=True)
    with pytest.raises(ConfigError, match="no checkpoints"):
        nd.ItemMean().fit(store, checkpoint=path)


def test_by_itself_a_fit_goes_on_from_its_own_checkpoint_only(store, tmp_path, monkeypatch, capsys):
    path = tmp_path / "checkpoint"
    fit_until(monkeypatch, store, 6, path)
    with quiet(False):
        found = nd.ALS(**OPTIONS).fit(store, rng=3, checkpoint=path)
    assert f"{path}: going on after epoch 4" in capsys.readouterr().err
    assert_same_bits(found, nd.ALS(**OPTIONS).fit(store, rng=3))
    for options, resume in (({"reg": 0.06}, None), ({"epochs": 4}, None), ({}, False)):
        fit_until(monkeypatch, store, 6, path)
        chosen = {**OPTIONS, **options}
        with quiet(False):
            found = nd.ALS(**chosen).fit(store, rng=3, checkpoint=path, resume=resume)
        assert "going on" not in capsys.readouterr().err
        assert_same_bits(found, nd.ALS(**chosen).fit(store, rng=3))
    fit_until(monkeypatch, store, 6, path)
    (path / "users.parquet").write_bytes(b"PAR1")
    assert_same_bits(nd.ALS(**OPTIONS).fit(store, rng=3, checkpoint=path), found)


def test_resuming_from_nothing_begins(store, tmp_path):
    expected = nd.ALS(**OPTIONS).fit(store)
    path = tmp_path / "none"
    assert_same_bits(nd.ALS(**OPTIONS).fit(store, checkpoint=path, resume=True), expected)


def test_validation_pairs_are_the_same_by_user_and_by_item_and_in_any_cut(store, monkeypatch):
    found = []
    for n_threads in (1, 5):
        monkeypatch.setattr(SequentialEngine, "n_threads", n_threads)
        monkeypatch.setattr(blocks, "least_block", lambda _: 1)
        engine = SequentialEngine()
        parts = hold_out(store, *rating_blocks(store, engine), 0.2, 7, engine)
        pairs = []
        for side, swap in ((parts.by_user, False), (parts.by_item, True), (parts.held, False)):
            some = set()
            for block in side:
                (piece,) = block.pieces
                dst = np.repeat(np.arange(piece.first, piece.stop), np.diff(piece.indptr))
                both = (piece.src, dst) if swap else (dst, piece.src)
                some |= set(zip(*(a.tolist() for a in both), piece.stars().tolist(), strict=True))
            pairs.append(some)
        assert pairs[0] == pairs[1]
        assert not pairs[0] & pairs[2]
        assert len(pairs[0] | pairs[2]) == store.n_ratings
        assert parts.n_train == len(pairs[0])
        assert parts.n_held == len(pairs[2])
        assert 0.15 < parts.n_held / store.n_ratings < 0.25
        found.append(pairs)
    assert found[0] == found[1]


@pytest.mark.parametrize("way", ["broadcast", "routed", "ranged"])
def test_validation_rmse_is_of_the_held_out_pairs(store, way, monkeypatch):
    monkeypatch.setattr(SequentialEngine, "n_threads", 3)
    monkeypatch.setattr(blocks, "least_block", lambda _: 1)
    options = {**OPTIONS, "epochs": 4, "validation": 0.1, "patience": 9, "exchange": way}
    model = nd.ALS(**options).fit(store, rng=5)
    engine = SequentialEngine()
    parts = hold_out(store, *rating_blocks(store, engine), 0.1, 5, engine)
    errors = []
    for block in parts.held:
        (piece,) = block.pieces
        dst = np.repeat(np.arange(piece.first, piece.stop), np.diff(piece.indptr))
        found = model.scorer_().pairs(dst.astype(np.int32), piece.src)
        errors.append(piece.stars() - found)
    rmse = np.sqrt(np.mean(np.concatenate(errors).astype(np.float64) ** 2))
    assert model.history_["validation_rmse"].min() == pytest.approx(rmse, abs=1e-5)


def test_early_stop_returns_the_best_epoch(store):
    options = {**OPTIONS, "n_factors": 6, "reg": 0.01, "epochs": 40, "validation": 0.2}
    model = nd.ALS(**options, patience=3).fit(store)
    errors = model.history_["validation_rmse"]
    best = int(errors.argmin())
    assert len(errors) == best + 1 + 3 < 40
    shorter = nd.ALS(**{**options, "epochs": best + 1}, patience=100).fit(store)
    assert_same_bits_of_factors(model, shorter)


def assert_same_bits_of_factors(one, other):
    for name in ("user_factors_", "item_factors_", "user_bias_", "item_bias_"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


def test_validation_helps_to_choose(store):
    """It sees what the training error cannot: that weak regularisation overfits."""
    found = {
        reg: nd.ALS(n_factors=8, reg=reg, epochs=12, validation=0.2).fit(store).history_
        for reg in (0.001, 0.1)
    }
    assert found[0.001]["train_rmse"].min() < found[0.1]["train_rmse"].min()
    assert found[0.001]["validation_rmse"].min() > found[0.1]["validation_rmse"].min()
    assert len(tiny_ratings()) == store.n_ratings
