from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from netflixdask.errors import InputError
from netflixdask.models.catalogue import Catalogue

ITEMS = {"title": pa.nulls(4, pa.string()), "year": pa.nulls(4, pa.int16())}


def catalogue(user_ids, item_ids):
    users = {"user_num": np.arange(3), "user_id": user_ids, "n_ratings": [2, 0, 5]}
    items = {"item_num": np.arange(4), "item_id": item_ids, "n_ratings": [1, 1, 0, 3]}
    return Catalogue(pa.table(users), pa.table({**items, **ITEMS}), 1.0, 5.0)


@pytest.fixture
def whole():
    # Not sorted: an append numbers its new ids after the old ones.
    return catalogue(pa.array([30, 10, 20]), pa.array([5, 6, 7, 8]))


@pytest.fixture
def text():
    return catalogue(pa.array(["c", "a", "b"]), pa.array(["5", "6", "7", "8"]))


@pytest.mark.parametrize(
    "ids",
    [
        [30, 20, 10, 99],
        (30, 20, 10, 99),
        np.array([30, 20, 10, 99], np.int32),
        np.array([30, 20, 10, 99], np.uint64),
        pd.Series([30, 20, 10, 99], index=[9, 9, 1, 0]),
        pd.Series([30.0, 20.0, 10.0, 99.0]),
        pd.Series([30, 20, 10, 99], dtype="Int64"),
        pd.Series([30, 20, 10, 99]).astype("category"),
        pa.array([30, 20, 10, 99]),
        pd.Index([30, 20, 10, 99]),
    ],
)
def test_whole_ids_of_any_container(whole, ids):
    found = whole.user_nums(ids)
    assert found.dtype == np.int32
    # 10 is there but has no training rating: nothing is known of it.
    assert found.tolist() == [0, 2, -1, -1]


def test_missing_and_broken_numbers_are_unknown(whole):
    assert whole.user_nums(pd.Series([30, np.nan, 20.5, 1e300])).tolist() == [0, -1, -1, -1]
    assert whole.user_nums([None, None]).tolist() == [-1, -1]
    assert whole.item_nums([]).tolist() == []


@pytest.mark.parametrize("dtype", [object, "str", "category", "string[pyarrow]"])
def test_text_ids(text, dtype):
    ids = pd.Series(["b", "zz", "a", "c"], dtype=dtype)
    assert text.user_nums(ids).tolist() == [2, -1, -1, 0]


def test_ids_of_the_wrong_type_are_refused(whole, text):
    with pytest.raises(InputError, match=r"user_id: found 'x'.*whole numbers"):
        whole.user_nums(["x", "y"])
    with pytest.raises(InputError, match=r"item_id: found 5 .*text"):
        text.item_nums([5])
