"""Words for people."""

from __future__ import annotations

import doctest

import pytest

from netflixdask import config, words
from netflixdask.words import counted, shorten


def test_doctests() -> None:
    for module in (words, config):
        found = doctest.testmod(module)
        assert found.attempted
        assert not found.failed


@pytest.mark.parametrize("n", [0, 1, 2, 11, 21, 1_000_001])
def test_only_one_is_no_plural(n: int) -> None:
    assert counted(n, "star").endswith("s") == (n != 1)


@pytest.mark.parametrize("length", [0, 1, 19, 20, 21, 3_000])
def test_what_is_cut_short_ends_in_an_ellipsis(length: int) -> None:
    text = "a" * length
    found = shorten(text, 20)
    assert len(found) == min(20, length)
    assert found.endswith("…") == (length > 20)
