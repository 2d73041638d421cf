"""Small charts as SVG, coloured by the page's variables, so that they follow light and dark."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 38
N_COLOURS = 6


@dataclass(frozen=True)
class Line:
    """A curve: points in order, and how it is drawn."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dashed: bool = False
    filled: bool = False
    marked: bool = False
    """A dot at every point, not at the last alone."""


def lines(
    curves: Sequence[Line],
    *,
    width: int,
    height: int,
    x_name: str,
    y_texts: tuple[str, float] = ("", 1.0),
    zero: bool = False,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    x_labels: Sequence[str] = (),
) -> str:
    """Return curves as one SVG.

    Args:
        curves: what to draw; those without points are left out.
        width: of the drawing, in units of about a pixel.
        height: likewise.
        x_name: stands below the axis.
        y_texts: what stands behind the values of the y axis, and what they are divided by.
        zero: let the y axis begin at zero.
        x_range: of the x axis; by default what the points need.
        y_range: likewise; what is beyond is drawn at the border.
        x_labels: what stands at 0, 1, 2 ... of the x axis instead of numbers.
    """
    points = [point for curve in curves for point in curve.points]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x0, x1 = x_range or (min(0.0, *xs) if zero else min(xs), max(xs))
    y0, y1 = y_range or ((0.0 if zero else min(ys)), max(ys))
    x1 = x1 if x1 > x0 else x0 + 1.0
    if y1 <= y0:
        y0, y1 = (0.0, 1.0) if zero else (y0 - 0.5 * abs(y0 or 1), y1 + 0.5 * abs(y1 or 1))
    pad = 0.06 * (y1 - y0)
    y0, y1 = (y0 if zero else y0 - pad), y1 + pad
    right, bottom = width - RIGHT, height - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x0) / (x1 - x0) * (right - LEFT),
            bottom - (y - y0) / (y1 - y0) * (bottom - TOP),
        )

    unit, scale = y_texts
    out = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img">']
    for value in ticks(y0 / scale, y1 / scale, 4):
        _, y = at(x0, value * scale)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        text = f"{tick_text(value)}{unit}"
        out.append(f'<text class="tick end" x="{LEFT - 6}" y="{y + 4:.1f}">{text}</text>')
    names = [(value, tick_text(value)) for value in ticks(x0, x1, 5)]
    for value, name in [(float(i), html.escape(n)) for i, n in enumerate(x_labels)] or names:
        x, _ = at(value, y0)
        out.append(f'<text class="tick mid" x="{x:.1f}" y="{bottom + 15}">{name}</text>')
    middle = (LEFT + right) / 2
    said = f'<text class="tick mid" x="{middle:.1f}" y="{height - 5}">{html.escape(x_name)}</text>'
    out.append(said)
    for curve in curves:
        if not curve.points:
            continue
        where = [at(x, min(max(y, y0), y1)) for x, y in curve.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        kind = f"c{curve.colour % N_COLOURS}"
        if curve.filled:
            (first, _), (last, _) = where[0], where[-1]
            area = f"{first:.1f},{bottom} {path} {last:.1f},{bottom}"
            out.append(f'<polygon class="area {kind}" points="{area}"/>')
        dash = ' stroke-dasharray="5 4"' if curve.dashed else ""
        out.append(f'<polyline class="curve {kind}" points="{path}"{dash}/>')
        ends = [] if curve.filled else zip(curve.points, where, strict=True)
        for (x, y), (cx, cy) in ends if curve.marked else list(ends)[-1:]:
            there = x_labels[round(x)] if x_labels else f"{x:.4g}"
            label = html.escape(f"{curve.name}: {y:.4f} at {there}")
            dot = f'<circle class="dot {kind}" cx="{cx:.1f}" cy="{cy:.1f}" r="3.5">'
            out.append(f"{dot}<title>{label}</title></circle>")
    return "".join([*out, "</svg>"])


def ticks(low: float, high: float, n: int) -> list[float]:
    """Return about ``n`` round values between two.

    >>> ticks(0, 10, 5)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_text(value: float) -> str:
    """Return a tick's value without noise."""
    return f"{value:.6g}"
