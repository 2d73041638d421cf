"""Drawings as SVG, coloured by the variables of ``style.css``, so that they follow light and dark.

The page on the scheduler's dashboard and a run's report are made of them.
"""

from __future__ import annotations

import functools
from importlib import resources


@functools.cache
def style() -> str:
    """Return the CSS of all drawings, for a page or a shadow root."""
    return resources.files("netflixdask.drawing").joinpath("style.css").read_text(encoding="utf-8")
