"""Bars side by side: histograms."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from netflixdask.drawing.lines import N_COLOURS, tick_text, ticks
from netflixdask.runs import count_text

LEFT, RIGHT, TOP, BOTTOM = 46, 8, 16, 38
LETTER = 6.2  # width of a letter of a tick, in units of the drawing


@dataclass(frozen=True)
class Bar:
    """One bar."""

    label: str
    """What stands below it, where there is room; may be empty."""
    value: float
    """Its height, at least 0."""
    said: str = ""
    """What is shown when the pointer rests on it."""
    top: str = ""
    """What stands above it."""


def bars(
    shown: Sequence[Bar], *, width: int, height: int, x_name: str, colour: int = 0, gap: float = 0.1
) -> str:
    """Return bars as one SVG; nothing without bars.

    Args:
        shown: the bars, from left to right.
        width: of the drawing, in units of about a pixel.
        height: likewise.
        x_name: stands below the axis.
        colour: of all bars.
        gap: share of a bar's place that is left free.
    """
    if not shown:
        return ""
    right, bottom = width - RIGHT, height - BOTTOM
    highest = max(bar.value for bar in shown) or 1.0
    place = (right - LEFT) / len(shown)
    out = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img">']
    for value in ticks(0.0, highest, 4):
        y = bottom - value / highest * (bottom - TOP)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        text = count_text(value).strip() if highest >= 1000 and value else tick_text(value)
        text = text.replace(".00 ", " ").replace(".0 ", " ")
        out.append(f'<text class="tick end" x="{LEFT - 5}" y="{y + 4:.1f}">{text}</text>')
    free = 0.0  # where the last label ends
    for at, bar in enumerate(shown):
        x = LEFT + at * place
        tall = max(0.0, bar.value) / highest * (bottom - TOP)
        said = html.escape(bar.said or f"{bar.label}: {bar.value:g}")
        out.append(
            f'<rect class="column c{colour % N_COLOURS}" x="{x + gap / 2 * place:.1f}" '
            f'y="{bottom - tall:.1f}" width="{place * (1 - gap):.1f}" height="{tall:.1f}">'
            f"<title>{said}</title></rect>"
        )
        middle = x + place / 2
        if bar.top:
            out.append(
                f'<text class="tick mid" x="{middle:.1f}" y="{bottom - tall - 4:.1f}">'
                f"{html.escape(bar.top)}</text>"
            )
        half = LETTER * len(bar.label) / 2
        where = min(middle, width - half)
        if bar.label and where - half >= free:
            free = where + half + 6
            out.append(
                f'<text class="tick mid" x="{where:.1f}" y="{bottom + 15}">'
                f"{html.escape(bar.label)}</text>"
            )
    middle = (LEFT + right) / 2
    out.append(
        f'<text class="tick mid" x="{middle:.1f}" y="{height - 5}">{html.escape(x_name)}</text>'
    )
    return "".join([*out, "</svg>"])
