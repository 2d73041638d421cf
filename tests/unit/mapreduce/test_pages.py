"""Small pages while a stage runs, and what was chosen before afterwards."""

from __future__ import annotations

import numpy as np
import pytest

from netflixdask.mapreduce import SequentialEngine
from netflixdask.mapreduce.pages import small_pages
from netflixdask.progress import quiet

choose = getattr(np._core.multiarray, "_set_madvise_hugepage", None)
pytestmark = pytest.mark.skipif(choose is None, reason="this numpy cannot be told")


@pytest.fixture(params=[False, True])
def before(request):
    own = choose(request.param)
    yield request.param
    choose(own)


def chosen():
    now = choose(False)
    choose(now)
    return now


def test_a_choice_is_given_back(before):
    with small_pages():
        assert not chosen()
        with small_pages():
            assert not chosen()
        assert not chosen()
    assert chosen() is before


def test_a_stage_that_fails_gives_it_back(before):
    def fail():
        with quiet(), SequentialEngine().stage("one"):
            assert not chosen()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert chosen() is before
