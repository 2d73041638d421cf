"""Contract tests to be inherited, and the small data that they run on. Needs pytest."""

from __future__ import annotations

import pytest

# A failed assert then shows its values, as in a test file.
pytest.register_assert_rewrite("netflixdask.testing.estimators", "netflixdask.testing.factors")

from netflixdask.testing.data import UNKNOWN_ITEM, UNKNOWN_USER, tiny_ratings, tiny_store  # noqa: E402
from netflixdask.testing.estimators import EstimatorContract, assert_same_bits  # noqa: E402
from netflixdask.testing.factors import FactorContract  # noqa: E402

__all__ = [
    "UNKNOWN_ITEM",
    "UNKNOWN_USER",
    "EstimatorContract",
    "FactorContract",
    "assert_same_bits",
    "tiny_ratings",
    "tiny_store",
]
