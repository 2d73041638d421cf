"""A map: small points, circles over them, and labels of which none lies on another."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netflixdask.drawing.lines import N_COLOURS

EDGE = 38  # as wide as the largest circle
SMALL = 15  # radius of circles whose label stands below them
LETTER, LINE = 7.0, 15.0  # width and height of a label's letter, in units of the drawing


@dataclass(frozen=True)
class Circle:
    """A place on the map."""

    x: float
    y: float
    radius: float
    """In units of the drawing."""
    colour: int = 0
    label: str = ""
    """Stands on it, where there is room."""
    said: str = ""
    """What is shown when the pointer rests on it."""
    filled: bool = True


def stretched(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return coordinates with room where most places are: asinh of the distance to the median.

    Linear within the half of the places that is closest to it, along each axis; logarithmic beyond.

    Args:
        places: float64[n, 2].
    """
    middle = np.median(places, axis=0)
    spread = np.quantile(np.abs(places - middle), 0.5, axis=0)
    largest = np.abs(places - middle).max(axis=0)
    unit = np.where(spread > 0, spread, np.where(largest > 0, largest, 1.0))
    found: NDArray[np.float64] = np.arcsinh((places - middle) / unit)
    return found


def cloud(
    circles: Sequence[Circle],
    points: Sequence[tuple[float, float, int]] = (),
    *,
    width: int,
    height: int,
    labels: int,
) -> str:
    """Return a map as one SVG; nothing without circles.

    Args:
        circles: the most important first: labels are given in this order.
        points: x, y and colour of small points below them.
        width: of the drawing, in units of about a pixel.
        height: likewise.
        labels: most labels to write.
    """
    if not circles:
        return ""
    places = np.array([(c.x, c.y) for c in circles] + [(x, y) for x, y, _ in points])
    places = stretched(places)
    low, high = places.min(axis=0), places.max(axis=0)
    inside = np.where(high > low, (places - low) / np.where(high > low, high - low, 1.0), 0.5)
    xs = EDGE + inside[:, 0] * (width - 2 * EDGE)
    ys = height - EDGE - inside[:, 1] * (height - 2 * EDGE)
    out = [f'<svg class="map" viewBox="0 0 {width} {height}" role="img">']
    n = len(circles)
    for x, y, (_, _, colour) in zip(xs[n:], ys[n:], points, strict=True):
        out.append(f'<circle class="spot c{colour % N_COLOURS}" cx="{x:.0f}" cy="{y:.0f}" r="2"/>')
    # The small ones last, so that a large one hides none.
    for at in sorted(range(n), key=lambda at: (-circles[at].radius, at)):
        one = circles[at]
        kind = "ring" if one.filled else "dot"
        out.append(
            f'<circle class="{kind} c{one.colour % N_COLOURS}" cx="{xs[at]:.1f}" '
            f'cy="{ys[at]:.1f}" r="{one.radius:.1f}"><title>{html.escape(one.said)}</title>'
            "</circle>"
        )
    taken: list[tuple[float, float, float]] = []
    for at, one in enumerate(circles):
        if len(taken) == labels:
            break
        half = LETTER * len(one.label) / 2
        if not one.label:
            continue
        x = float(np.clip(xs[at], half + 2, max(half + 2, width - half - 2)))
        y = float(ys[at]) + (4 if one.filled and one.radius > SMALL else one.radius + 11)
        if all(abs(x - a) > half + b + 6 or abs(y - c) > LINE for a, b, c in taken):
            taken.append((x, half, y))
            out.append(
                f'<text class="label" x="{x:.1f}" y="{y:.1f}">{html.escape(one.label)}</text>'
            )
    return "".join([*out, "</svg>"])
