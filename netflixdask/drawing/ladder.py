"""Values on one axis, a line each: figures of models beside references."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from netflixdask.drawing.lines import N_COLOURS, tick_text, ticks

LETTER, ROW, TOP, BOTTOM, RIGHT = 6.6, 24, 8, 26, 64  # in units of the drawing


@dataclass(frozen=True)
class Rung:
    """A value and what it is of."""

    name: str
    value: float
    colour: int = 0
    reference: bool = False
    """Drawn as a line through all of them."""


def ladder(rungs: Sequence[Rung], *, width: int, x_name: str) -> str:
    """Return values as one SVG, in the order given; nothing without values.

    Args:
        rungs: what to draw.
        width: of the drawing, in units of about a pixel; its height is what the values need.
        x_name: stands below the axis.
    """
    if not rungs:
        return ""
    left = min(width / 3, 20 + LETTER * max(len(rung.name) for rung in rungs))
    right, bottom = width - RIGHT, TOP + ROW * len(rungs)
    low, high = (pick(rung.value for rung in rungs) for pick in (min, max))
    pad = 0.08 * (high - low) or 0.5
    low, high = low - pad, high + pad

    def at(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    out = [f'<svg class="chart" viewBox="0 0 {width} {bottom + BOTTOM}" role="img">']
    for value in ticks(low, high, 5):
        x = at(value)
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        out.append(
            f'<text class="tick mid" x="{x:.1f}" y="{bottom + 14}">{tick_text(value)}</text>'
        )
    out.append(
        f'<text class="tick end" x="{width - 4}" y="{bottom + 14}">{html.escape(x_name)}</text>'
    )
    room = max(1, int((left - 19) / LETTER))
    for row, rung in enumerate(rungs):
        x, y = at(rung.value), TOP + ROW * (row + 0.5)
        name = rung.name if len(rung.name) <= room else f"{rung.name[: room - 1]}…"
        kind = f"c{rung.colour % N_COLOURS}"
        out.append(
            f'<text class="below end" x="{left - 10:.1f}" y="{y + 4:.1f}">'
            f"{html.escape(name)}</text>"
        )
        said = html.escape(f"{rung.name}: {rung.value!r}")
        if rung.reference:
            out.append(
                f'<line class="bound" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}">'
                f"<title>{said}</title></line>"
            )
        else:
            out.append(
                f'<line class="grid" x1="{left:.1f}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            out.append(
                f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{said}</title>'
                "</circle>"
            )
        out.append(f'<text class="value" x="{x + 9:.1f}" y="{y + 4:.1f}">{rung.value:.4f}</text>')
    return "".join([*out, "</svg>"])
