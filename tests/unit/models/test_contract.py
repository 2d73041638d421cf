"""The contract of all models, for each of them."""

from __future__ import annotations

from typing import Any, ClassVar

import netflixdask.models as nd
from netflixdask.models.factor_model import FactorModel
from netflixdask.testing import EstimatorContract, FactorContract


class TestGlobalMean(EstimatorContract):
    model_class = nd.GlobalMean
    expected_rmse = (0.99, 1.0)


class TestItemMean(EstimatorContract):
    model_class = nd.ItemMean
    expected_rmse = (0.87, 0.89)


class TestUserMean(EstimatorContract):
    model_class = nd.UserMean
    expected_rmse = (0.91, 0.92)


class TestDoubleMean(EstimatorContract):
    model_class = nd.DoubleMean
    expected_rmse = (0.84, 0.86)


class TestBiasBaseline(EstimatorContract):
    model_class = nd.BiasBaseline
    expected_rmse = (0.82, 0.84)


class TestItemKNN(EstimatorContract):
    model_class = nd.ItemKNN
    expected_rmse = (0.5, 0.6)
    options: ClassVar[dict[str, Any]] = {"n_neighbors": 10, "shrinkage": 10}
    history_is_of_predictions = False


class TestItemKNNByMse(EstimatorContract):
    model_class = nd.ItemKNN
    expected_rmse = (0.4, 0.7)
    options: ClassVar[dict[str, Any]] = {
        "weights": "mse", "n_neighbors": 10, "shrinkage": 3, "power": 4, "damping": 0.1,
    }  # fmt: skip
    history_is_of_predictions = False


class TestItemKNNBySupport(EstimatorContract):
    model_class = nd.ItemKNN
    # Who rated what is drawn without regard to taste here, so nothing is learned beyond the biases.
    expected_rmse = (0.8, 0.95)
    options: ClassVar[dict[str, Any]] = {"weights": "support", "n_neighbors": 10, "power": 2}
    history_is_of_predictions = False


class TestItemKNNByJointWeights(EstimatorContract):
    model_class = nd.ItemKNN
    expected_rmse = (0.5, 0.7)
    options: ClassVar[dict[str, Any]] = {
        "weights": "joint", "n_neighbors": 10, "shrinkage": 10, "beta": 20, "ridge": 0.1,
    }  # fmt: skip
    history_is_of_predictions = False


class TestALS(FactorContract):
    model_class = nd.ALS
    expected_rmse = (0.3, 0.4)
    options: ClassVar[dict[str, Any]] = {
        "n_factors": 3,
        "reg": 0.05,
        "epochs": 7,
        "checkpoint_every": 2,
    }


class TestALSWithFrozenBaseline(FactorContract):
    model_class = nd.ALS
    expected_rmse = (0.3, 0.45)
    options: ClassVar[dict[str, Any]] = {**TestALS.options, "biases": "baseline"}


class TestALSWithoutBiases(FactorContract):
    model_class = nd.ALS
    expected_rmse = (0.3, 0.6)
    options: ClassVar[dict[str, Any]] = {**TestALS.options, "biases": "none"}


class TestNonNegativeALS(FactorContract):
    model_class = nd.ALS
    expected_rmse = (0.3, 0.8)
    options: ClassVar[dict[str, Any]] = {**TestALS.options, "non_negative": True}


class TestNonNegativeALSWithFrozenBaseline(FactorContract):
    model_class = nd.ALS
    expected_rmse = (0.3, 0.8)
    options: ClassVar[dict[str, Any]] = {**TestNonNegativeALS.options, "biases": "baseline"}


class TestNonNegativeALSWithoutBiases(FactorContract):
    model_class = nd.ALS
    expected_rmse = (0.3, 0.9)
    options: ClassVar[dict[str, Any]] = {**TestNonNegativeALS.options, "biases": "none"}


class TestALSWithImplicitFeatures(FactorContract):
    model_class = nd.ALS
    expected_rmse = (0.3, 0.5)
    options: ClassVar[dict[str, Any]] = {**TestALS.options, "implicit_weight": 0.5}
    keeps_half_step = False


class TestNonNegativeALSWithImplicitFeatures(FactorContract):
    model_class = nd.ALS
    expected_rmse = (0.3, 0.9)
    options: ClassVar[dict[str, Any]] = {**TestNonNegativeALS.options, "implicit_weight": 0.5}
    keeps_half_step = False


class TestALSWithImplicitFeaturesOnFrozenBaseline(FactorContract):
    model_class = nd.ALS
    expected_rmse = (0.3, 0.7)
    options: ClassVar[dict[str, Any]] = {
        **TestALSWithFrozenBaseline.options, "implicit_weight": 0.5,
    }  # fmt: skip
    keeps_half_step = False


class TestALSWithValidation(FactorContract):
    model_class = nd.ALS
    expected_rmse = (0.3, 0.6)
    options: ClassVar[dict[str, Any]] = {**TestALS.options, "validation": 0.1}
    history_is_of_predictions = False
    learns_from_all = False


class TestRoutedALS(FactorContract):
    model_class = nd.ALS
    expected_rmse = (0.3, 0.4)
    options: ClassVar[dict[str, Any]] = {**TestALS.options, "exchange": "routed"}


class TestRangedALS(FactorContract):
    model_class = nd.ALS
    expected_rmse = (0.3, 0.4)
    options: ClassVar[dict[str, Any]] = {**TestALS.options, "exchange": "ranged"}


class TestImplicitALS(FactorContract):
    model_class = nd.ImplicitALS
    expected_rmse = (2.0, 4.0)
    options: ClassVar[dict[str, Any]] = {"n_factors": 3, "epochs": 7, "checkpoint_every": 2}
    history_is_of_predictions = False


class TestNonNegativeImplicitALS(FactorContract):
    model_class = nd.ImplicitALS
    expected_rmse = (2.0, 4.0)
    options: ClassVar[dict[str, Any]] = {**TestImplicitALS.options, "non_negative": True}
    history_is_of_predictions = False


CONTRACTS = [c for c in list(globals().values()) if isinstance(c, type) and c.__name__[0] == "T"]


def test_every_model_has_its_contract() -> None:
    assert {contract.model_class for contract in CONTRACTS} == set(nd.MODELS.values())
    for model_class in (c for c in nd.MODELS.values() if issubclass(c, FactorModel)):
        mine = [c for c in CONTRACTS if c.model_class is model_class]
        assert all(issubclass(contract, FactorContract) for contract in mine)
        used = [model_class(**contract.options).config.model_dump() for contract in mine]
        fields = model_class.config_class.model_fields
        for name, values in (
            ("biases", {"factors", "baseline", "none"}),
            ("non_negative", {False, True}),
            ("implicit_weight", {0.0, 0.5}),
            ("validation", {0.0, 0.1}),
        ):
            if name in fields:
                assert {config[name] for config in used} == values
