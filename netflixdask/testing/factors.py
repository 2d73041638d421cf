"""What holds for every model of factors besides, as tests to be inherited.

::

    from netflixdask.testing import FactorContract

    class TestMyFactors(FactorContract):
        model_class = MyFactors
        options = {"n_factors": 3, "epochs": 5, "checkpoint_every": 2}
"""

# ruff: noqa: D102 - a test's name says what it checks
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netflixdask.errors import ConfigError, StoreError
from netflixdask.mapreduce import SequentialEngine
from netflixdask.models.checkpoint import Checkpoint, Progress
from netflixdask.models.factor_model import FactorModel
from netflixdask.store import RatingsStore, open_artifact
from netflixdask.testing.data import tiny_ratings
from netflixdask.testing.estimators import EstimatorContract, assert_same_bits


class Interrupted(Exception):
    """A fit ends here."""


class FactorContract(EstimatorContract):
    """The contract of models and what models of factors promise besides.

    ``options`` must leave a checkpoint before the last epoch.
    """

    keeps_half_step: bool = True
    """Whether a fitted model can solve further rows (fold-in, update)."""

    def make_factors(self, **options: Any) -> FactorModel:
        """Make the model under test."""
        model = self.make_model(**options)
        assert isinstance(model, FactorModel)
        return model

    def test_what_is_learned_has_its_shape(self, store: RatingsStore, tmp_path: Path) -> None:
        model = self.make_factors().fit(store)
        k = model.config.n_factors
        for by, n in (("user", store.n_users), ("item", store.n_items)):
            factors, bias = getattr(model, f"{by}_factors_"), getattr(model, f"{by}_bias_")
            assert (factors.shape, factors.dtype) == ((n, k), np.float32)
            assert (bias.shape, bias.dtype) == ((n,), np.float32)
            assert np.isfinite(factors).all()
            assert np.abs(factors).max() > 0.01  # nothing was left at zero
        artifact = model.save(tmp_path / "model")
        table = artifact.table("item_factors")
        assert table.column_names == ["item_num", "bias", "factors"]
        assert table.column("item_num").to_pylist() == list(range(store.n_items))
        saved = np.array(table.column("factors").to_pylist(), np.float32)
        np.testing.assert_array_equal(saved, model.item_factors_)

    def test_another_seed_starts_elsewhere(self, store: RatingsStore) -> None:
        one, other = (self.make_factors().fit(store, rng=seed) for seed in (7, 8))
        assert not np.array_equal(one.item_factors_, other.item_factors_)

    @pytest.mark.parametrize("exchange", ["broadcast", "routed", "ranged"])
    @pytest.mark.parametrize("n_blocks", [1, 3])
    def test_ways_of_moving_rows_change_no_bit(
        self,
        store: RatingsStore,
        exchange: str,
        n_blocks: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        expected = self.make_factors().fit(store)
        monkeypatch.setattr("netflixdask.models.blocks.BLOCKS_PER_THREAD", 1)
        monkeypatch.setattr("netflixdask.models.blocks.least_block", lambda _: 1)
        monkeypatch.setattr(SequentialEngine, "n_threads", n_blocks)
        assert_same_bits(self.make_factors(exchange=exchange).fit(store), expected)

    def test_how_often_a_checkpoint_is_made_changes_no_bit(self, store: RatingsStore) -> None:
        expected = self.make_factors().fit(store)
        assert_same_bits(self.make_factors(checkpoint_every=1).fit(store), expected)
        assert_same_bits(self.make_factors(checkpoint_every=1_000).fit(store), expected)

    def test_an_interrupted_fit_goes_on(
        self, store: RatingsStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = self.make_factors().fit(store, rng=3)
        path = tmp_path / "checkpoint"
        save = Checkpoint.save

        def save_and_end(self: Checkpoint, progress: Progress) -> None:
            save(self, progress)
            raise Interrupted

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", save_and_end)
            with pytest.raises(Interrupted):
                self.make_factors().fit(store, rng=3, checkpoint=path)
        epoch = open_artifact(path, "checkpoint").manifest.stats["epoch"]
        assert 0 < epoch < expected.config.epochs
        with pytest.raises(StoreError, match="another seed"):
            self.make_factors().fit(store, rng=4, checkpoint=path, resume=True)
        found = self.make_factors().fit(store, rng=3, checkpoint=path, resume=True)
        assert_same_bits(found, expected)
        assert not path.exists()

    def test_a_user_folded_in_gets_the_row_of_the_fit(self, store: RatingsStore) -> None:
        model = self.make_factors().fit(store)
        frame = tiny_ratings()
        user = int(frame["user_id"].iloc[0])
        own = frame[frame["user_id"] == user]
        if not self.keeps_half_step:
            with pytest.raises(ConfigError, match="half-step"):
                model.fold_in_users(own)
            return
        folded = model.fold_in_users(own)
        if self.learns_from_all:
            assert_same_bits(folded, model)
        new = model.fold_in_users(own.assign(user_id=10_000))
        rows = store.user_nums(np.array([user]))
        for name in ("user_factors_", "user_bias_"):
            assert getattr(new, name)[-1:].tobytes() == getattr(folded, name)[rows].tobytes()
        assert_same_bits_of_others(new, model, store.n_users)


def assert_same_bits_of_others(folded: FactorModel, model: FactorModel, n_users: int) -> None:
    """Check that a fold-in behind the known users moved none of them and no item."""
    assert len(folded.user_factors_) == n_users + 1
    assert folded.user_factors_[:n_users].tobytes() == model.user_factors_.tobytes()
    assert folded.user_bias_[:n_users].tobytes() == model.user_bias_.tobytes()
    assert folded.item_factors_.tobytes() == model.item_factors_.tobytes()
    assert folded.item_bias_.tobytes() == model.item_bias_.tobytes()
