"""The page ``/netflixdask`` of the scheduler's dashboard: what runs, how far, whether it converges.

Bokeh carries the parts to the browser and keeps them up to date; they are HTML and SVG of their
own, so that they follow light and dark by the variables of ``drawing/style.css``.
"""

from __future__ import annotations

import functools
import html
import itertools
import time
from importlib import resources
from typing import Any

from bokeh.models import Div, InlineStyleSheet
from distributed.dashboard.components.scheduler import env

from netflixdask.drawing import style
from netflixdask.drawing.flow import draw_flow
from netflixdask.drawing.lines import Line, lines
from netflixdask.runs import Run, bytes_text, seconds_text
from netflixdask.watch.live import Watcher, Worker
from netflixdask.words import counted

ROUTE = "/netflixdask"
TICK = 500  # milliseconds between two looks, while a browser looks
WINDOW = 120.0  # seconds of bytes moved that are drawn
LINES = 60
_TEMPLATE = """{% extends "simple.html" %}
{% block extra_resources %}<style>
  body { padding: 3.6rem 14px 14px; height: auto; }
  @media (prefers-color-scheme: dark) {
    html, body { background: #15191d; }
    .navbar ul, .dropdown-content ul { background-color: #262d34; }
    .navbar li a { color: #dfe4e8; }
  }
</style>{% endblock %}"""


def page(watcher: Watcher, extra: dict[str, Any], doc: Any) -> None:
    """Fill a document, and keep it up to date while a browser has it open.

    Args:
        watcher: of the scheduler.
        extra: what Dask's template needs.
        doc: the document; ``?run=ID`` in its address asks for one of the last runs.
    """
    asked = doc.session_context.request.arguments.get("run", [b""])[0].decode(errors="replace")
    sheet = InlineStyleSheet(css=_css())
    names = ("head", "flow", "numbers", "events")
    parts = {
        name: Div(name=name, stylesheets=[sheet], sizing_mode="stretch_width", disable_math=True)
        for name in names
    }

    def tick() -> None:
        for name, text in content(watcher, time.time(), asked).items():
            if parts[name].text != text:
                parts[name].text = text

    tick()
    for part in parts.values():
        doc.add_root(part)
    doc.add_periodic_callback(tick, TICK)
    doc.title = "netflixdask"
    doc.template = env.from_string(_TEMPLATE)
    doc.template_variables.update(extra)


def content(watcher: Watcher, now: float, asked: str = "") -> dict[str, str]:
    """Return the HTML of the page's parts.

    Args:
        watcher: of the scheduler.
        now: Unix time.
        asked: id of the run to show; by default the latest.
    """
    run = watcher.runs.runs.get(asked) or watcher.runs.latest()
    workers = watcher.workers()
    flow = '<p class="none">No run yet: start one with this scheduler and it shows here.</p>'
    if run is not None:
        flow = draw_flow(run, watcher.tasks, now)
    return {
        "head": _head(watcher, run, workers, now),
        "flow": f'<div class="panel">{flow}</div>',
        "numbers": _grid("", _learning(run), _moved(watcher, now), _memory(workers)),
        "events": _grid(" two", _lines(watcher), _runs(watcher, run, now)),
    }


def _grid(kind: str, *panels: str) -> str:
    return f'<div class="grid{kind}">{"".join(panels)}</div>'


def _panel(title: str, said: str, body: str) -> str:
    return f'<div class="panel"><h2>{title} <small>{said}</small></h2>{body}</div>'


@functools.cache
def _css() -> str:
    own = resources.files("netflixdask.watch").joinpath("page.css").read_text(encoding="utf-8")
    return style() + own


def _head(watcher: Watcher, run: Run | None, workers: list[Worker], now: float) -> str:
    given, waiting = watcher.queue()
    facts = {
        "workers": f"{len(workers)}",
        "threads": f"{sum(worker.threads for worker in workers)}",
        "cores busy": f"{sum(worker.cpu for worker in workers) / 100:.1f}",
        "tasks at work": f"{given}",
        "waiting": f"{waiting}",
    }
    said = "".join(f'<span><b id="{k}">{v}</b> {k}</span>' for k, v in facts.items())
    if run is None:
        return f'<div class="head"><h1>netflixdask</h1><span class="facts">{said}</span></div>'
    step = run.running()
    where = f"now <b>{html.escape(step.name)}</b>" if step is not None else ""
    title = html.escape(run.flow or "stages of one process")
    took = seconds_text(run.seconds(now))
    own = run.own_steps()
    n_done = sum(step.status in ("done", "skipped") for step in own.values())
    known = len({*own, *run.plan})
    error = f'<p class="error">{html.escape(run.error)}</p>' if run.error else ""
    return (
        f'<div class="head"><span><h1>{title}</h1><span class="pill {run.status}">{run.status}'
        f'</span></span><span><b>{took}</b></span><span><b id="steps">{n_done}</b> of '
        f"{counted(known, 'step')}</span><span>{where}</span>"
        f'<span class="soft">{html.escape(run.workdir)}</span>'
        f'<span class="facts">{said}</span></div>{error}'
    )


def _learning(run: Run | None) -> str:
    by_seconds: list[Line] = []
    by_epoch: list[Line] = []
    keys = []
    fits = [] if run is None else [step for step in run.steps.values() if step.learning()]
    for colour, step in enumerate(fits):
        told = step.learning()
        start = step.stages[0].start
        last = told[-1][1]
        values = []
        for name, field, dashed in (
            ("train", "train_rmse", False), ("held out", "validation_rmse", True),
        ):  # fmt: skip
            points = [(when, event) for when, event in told if event[field] is not None]
            if not points:
                continue
            label = f"{step.name}, {name}"
            seconds = [(when - start, event[field]) for when, event in points]
            epochs = [(float(event["epoch"]), event[field]) for _, event in points]
            by_seconds.append(Line(label, seconds, colour, dashed))
            by_epoch.append(Line(label, epochs, colour, dashed))
            values.append(f"{name} <b>{points[-1][1][field]:.4f}</b>")
        keys.append(
            f'<span><i class="c{colour % 6}"></i>{html.escape(step.name)} epoch '
            f'<b class="epoch">{last["epoch"]}</b>: {", ".join(values)}</span>'
        )
    if not by_seconds:
        body = '<p class="none">No model has told an epoch yet.</p>'
    else:
        size = {"width": 310, "height": 215, "y_range": _of_interest(by_epoch)}
        body = (
            f'<div class="key">{"".join(keys)}</div><div class="pair">'
            f"{lines(by_seconds, x_name='seconds', **size)}"  # type: ignore[arg-type]
            f"{lines(by_epoch, x_name='epoch', **size)}</div>"  # type: ignore[arg-type]
        )
    return _panel("RMSE", "solid: training, dashed: held out", body)


def _of_interest(curves: list[Line]) -> tuple[float, float] | None:
    """Return the range of RMSE without the first epochs, which are far above all others."""
    later = [y for curve in curves for x, y in curve.points if x > 1]
    return (min(later), max(later)) if later and max(later) - min(later) > 2e-3 else None


def _moved(watcher: Watcher, now: float) -> str:
    samples = [sample for sample in watcher.samples if sample.when > now - WINDOW]
    rates = []
    for before, after in itertools.pairwise(samples):
        seconds = max(1e-3, after.when - before.when)
        rates.append((after.when - now, max(0.0, after.moved - before.moved) / seconds))
    total = watcher.samples[-1].moved if watcher.samples else 0.0
    top = max((rate for _, rate in rates), default=0.0)
    power = next(p for p in (1e9, 1e6, 1e3, 1.0) if top >= p or p == 1.0)
    unit = {1e9: " GB", 1e6: " MB", 1e3: " kB", 1.0: " B"}[power]
    drawn = lines(
        [Line("moved", rates, 5, filled=True)], width=330, height=218, x_name="seconds ago",
        y_texts=(unit, power), zero=True, x_range=(-WINDOW, 0.0),
    )  # fmt: skip
    body = drawn or '<p class="none">Nothing yet.</p>'
    said = f'<div class="key"><span>in all <b id="moved">{bytes_text(total)}</b></span>'
    said += f"<span>at most {bytes_text(top)}/s</span></div>"
    return _panel("Bytes moved", "sent by workers, a second", said + body)


def _memory(workers: list[Worker]) -> str:
    out = []
    for worker in workers:
        share = min(1.0, worker.memory / worker.limit) if worker.limit else 0.0
        kind = "over" if share > 0.8 else "much" if share > 0.6 else ""
        limit = f" of {bytes_text(worker.limit)}" if worker.limit else ""
        more = f", {bytes_text(worker.spilled)} on disk" if worker.spilled else ""
        more += f", {worker.status}" if worker.status != "running" else ""
        out.append(
            f'<div class="worker" title="{html.escape(worker.address)}"><div>'
            f"<span>worker {html.escape(worker.name)} <span class=soft>{worker.cpu:.0f} % cpu, "
            f"{counted(worker.running, 'task')}</span></span>"
            f"<span><b>{bytes_text(worker.memory)}</b>{limit}{more}</span></div>"
            f'<span class="full"><i class="{kind}" style="width:{100 * share:.1f}%"></i>'
            "</span></div>"
        )
    body = "".join(out) or '<p class="none">No worker.</p>'
    return _panel("Memory by worker", "", f'<div class="scroll">{body}</div>')


def _lines(watcher: Watcher) -> str:
    rows = []
    for when, warning, text in list(watcher.runs.lines)[: -LINES - 1 : -1]:
        clock = time.strftime("%H:%M:%S", time.localtime(when))
        kind = ' class="warning"' if warning else ""
        rows.append(f"<tr{kind}><td>{clock}</td><td>{html.escape(text)}</td></tr>")
    body = f"<table>{''.join(rows)}</table>" if rows else '<p class="none">Nothing yet.</p>'
    return _panel("Events", "the last first; warnings in red", f'<div class="scroll">{body}</div>')


def _runs(watcher: Watcher, shown: Run | None, now: float) -> str:
    rows = []
    for run in sorted(watcher.runs.runs.values(), key=lambda run: -run.start):
        best = run.rmse()
        rmse = "" if best is None else f"{best[1]:.4f} {html.escape(best[0])}, {best[2]}"
        clock = time.strftime("%H:%M:%S", time.localtime(run.start))
        kind = ' class="shown"' if run is shown else ""
        rows.append(
            f"<tr{kind}><td>{clock}</td><td>"
            f'<a href="?run={html.escape(run.id)}">{html.escape(run.flow or "stages")}</a></td>'
            f'<td><span class="pill {run.status}">{run.status}</span></td>'
            f'<td class="number">{seconds_text(run.seconds(now))}</td>'
            f'<td class="number">{len(run.own_steps())}</td><td>{rmse}</td></tr>'
        )
    for record in watcher.earlier:
        if record["id"] in watcher.runs.runs:
            continue
        rmse = "" if record["rmse"] is None else f"{record['rmse']:.4f}"
        rows.append(
            f"<tr><td>{html.escape(record['started'][:16].replace('T', ' '))}</td>"
            f"<td>{html.escape(record['flow'])}</td>"
            f'<td><span class="pill {html.escape(record["status"])}">'
            f"{html.escape(record['status'])}</span></td>"
            f'<td class="number">{seconds_text(record["seconds"])}</td>'
            f'<td class="number">{record["steps"]}</td><td>{rmse}</td></tr>'
        )
    header = (
        "<tr><th>started</th><th>flow</th><th></th><th class=number>took</th>"
        "<th class=number>steps</th><th>best RMSE</th></tr>"
    )
    body = f"<table>{header}{''.join(rows)}</table>" if rows else '<p class="none">None yet.</p>'
    said = "of this scheduler, and earlier ones of this working directory"
    return _panel("Last runs", said, f'<div class="scroll">{body}</div>')
