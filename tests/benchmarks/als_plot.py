"""RMSE against seconds as one HTML page that needs nothing else to be opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
MARKERS = ("circle", "square", "triangle", "diamond")


class Point(NamedTuple):
    """One whole fit."""

    epochs: int
    seconds: float
    rmse: float


@dataclass(frozen=True)
class Curve:
    """A program's fits, from few epochs to many."""

    name: str
    points: list[Point]


def write_plot(curves: list[Curve], path: Path, *, facts: str) -> None:
    """Write the page.

    Args:
        curves: ours first; those without a point are left out.
        path: the page; replaced if it is there.
        facts: what was fitted, where and how, for the line below the title.
    """
    from bokeh.core.templates import get_env
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    drawn = [curve for curve in curves if curve.points]
    if not drawn:
        raise ValueError("nothing was fitted; expected at least one point")
    html = file_html(
        _figure(drawn),
        resources=INLINE,
        title="RMSE against seconds",
        template=get_env().from_string(PAGE),
        template_variables={"facts": facts, "rows": rows(drawn)},
        suppress_callback_warning=True,
    )
    half = path.with_name(f".{path.name}.half-written")
    try:
        half.write_text(html, encoding="utf-8")
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def rows(curves: list[Curve]) -> list[tuple[str, str, str, str, str]]:
    """Return the table: program, epochs, seconds, RMSE, how often our time to that RMSE or less.

    The last cell is empty for our own rows, and where no fit of ours came so far.
    """
    ours, found = curves[0], []
    for curve in curves:
        for point in curve.points:
            reached = [p.seconds for p in ours.points if p.rmse <= point.rmse]
            ratio = ""
            if curve is not ours and reached:
                ratio = f"{point.seconds / min(reached):.1f}"
            found.append(
                (curve.name, str(point.epochs), f"{point.seconds:.2f}", f"{point.rmse:.4f}", ratio)
            )
    return found


def _figure(curves: list[Curve]) -> Any:
    from bokeh.models import ColumnDataSource, HoverTool
    from bokeh.plotting import figure

    plot = figure(
        name="curves",
        height=520,
        sizing_mode="stretch_width",
        x_axis_type="log",
        x_axis_label="seconds of the whole fit",
        y_axis_label="RMSE on held-out ratings",
        tools="pan,box_zoom,wheel_zoom,reset",
    )
    for number, curve in enumerate(curves):
        color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
        points = sorted(curve.points)
        source = ColumnDataSource(
            {
                "seconds": [point.seconds for point in points],
                "rmse": [point.rmse for point in points],
                "epochs": [point.epochs for point in points],
            },
            name=f"points-{number}",
        )
        plot.line("seconds", "rmse", source=source, color=color, legend_label=curve.name)
        dots = plot.scatter(
            "seconds", "rmse", source=source, color=color, marker=marker, size=8,
            legend_label=curve.name, name="dots",
        )  # fmt: skip
        text = f"{curve.name}: @epochs epochs, @seconds{{0.00}} s, RMSE @rmse{{0.0000}}"
        plot.add_tools(HoverTool(renderers=[dots], tooltips=text))
    plot.toolbar.logo = None
    plot.legend.click_policy = "hide"
    plot.outline_line_color = None
    plot.grid.grid_line_color = "#eeeeee"
    return plot


PAGE = """{% from macros import embed %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title | e }}</title>
<style>
  body { margin: 0 auto; padding: 18px 24px 32px; max-width: 1100px; color: #222; background: #fff;
         font: 14px/1.45 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
  h1 { font-size: 20px; margin: 0 0 2px; }
  p { margin: 0 0 14px; color: #555; }
  table { border-collapse: collapse; margin-top: 18px; font-variant-numeric: tabular-nums; }
  th, td { padding: 3px 14px 3px 0; text-align: right; border-bottom: 1px solid #eee; }
  th:first-child, td:first-child { text-align: left; }
</style>
{{ bokeh_js }}
</head>
<body>
<h1>{{ title | e }}</h1>
<p>{{ facts | e }}</p>
{{ embed(roots.curves) }}
<table>
<tr><th>program</th><th>epochs</th><th>seconds</th><th>RMSE</th>
<th>times our seconds to this RMSE or a lower one</th></tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell | e }}</td>{% endfor %}</tr>
{% endfor %}</table>
{{ plot_script }}
<script>
(function () {
  "use strict";
  const timer = setInterval(() => {
    const doc = window.Bokeh && Bokeh.documents[0];
    const plot = doc && doc.get_model_by_name("curves");
    if (!plot || !Bokeh.index.get_by_id(plot.id)) return;
    clearInterval(timer);
    const dots = plot.renderers.filter((glyph) => glyph.name === "dots");
    document.body.dataset.programs = String(dots.length);
    document.body.dataset.points = String(
      dots.reduce((sum, glyph) => sum + glyph.data_source.get_length(), 0));
  }, 20);
})();
</script>
</body>
</html>
"""
