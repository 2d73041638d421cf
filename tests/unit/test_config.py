from __future__ import annotations

import pytest
from pydantic import PositiveInt

from netflixdask.config import Config
from netflixdask.errors import ConfigError


class Options(Config):
    """Options of a test."""

    size: PositiveInt = 3
    """How many."""
    name: str = "x"
    """What."""


def test_constructor_strings_and_object_build_the_same() -> None:
    assert Options.build(size=4) == Options.from_strings({"size": "4"})
    ready = Options(size=4)
    assert Options.build(ready) is ready


def test_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown option 'sizes'; known are: size, name"):
        Options.build(sizes=4)


def test_value_out_of_range_is_shown() -> None:
    with pytest.raises(ConfigError, match=r"size = 0: input should be greater than 0"):
        Options.build(size=0)


def test_object_and_options_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="give one or the other"):
        Options.build(Options(), size=3)


def test_options_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Options().size = 5  # type: ignore[misc]


class Listed(Config):
    """Options of a test."""

    models: tuple[str, ...] = ("als",)
    """Names."""
    sizes: tuple[int, ...] = ()
    """Numbers."""


def test_a_list_is_given_as_text_with_commas() -> None:
    found = Listed.from_strings({"models": "bias, knn", "sizes": "3"})
    assert (found.models, found.sizes) == (("bias", "knn"), (3,))
    assert Listed.build(models=["a"]).models == ("a",)
    with pytest.raises(ConfigError, match=r"sizes\.0 = 'x'"):
        Listed.from_strings({"sizes": "x"})
