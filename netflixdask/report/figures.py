"""How good the models are: errors beside references and by support, and how they were learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from netflixdask.answers.metrics import SUPPORT_NAMES
from netflixdask.drawing.ladder import Rung, ladder
from netflixdask.drawing.lines import Line, lines
from netflixdask.report.gathered import Gathered
from netflixdask.report.html import Cell, Section, key, number, panel, table, text
from netflixdask.runs import bytes_text, seconds_text
from netflixdask.store import Artifact
from netflixdask.words import counted

MOST_CURVES = 20
"""Models that a chart has curves of."""
LEAST_PAIRS = 30
"""Fewer pairs say nothing on a chart; the table has them."""
LISTS = "hit_rate"
WIDTH = 1240


@dataclass(frozen=True)
class Judged:
    """A model's evaluation on one holdout."""

    step: str
    stats: dict[str, Any]
    """What :meth:`netflixdask.answers.evaluation.Evaluation.to_dict` gave."""

    @property
    def split(self) -> tuple[str, str]:
        """The holdout's name and its store."""
        return self.stats["split"]["name"], self.stats["split"]["fingerprint"]


def judged(found: Gathered) -> list[Judged]:
    """Return the evaluations of a run, in order."""
    return [
        Judged(step, artifact.manifest.stats)
        for step, artifact in found.of_kind("metrics").items()
        if "errors" in artifact.manifest.stats
    ]


def names_of(some: Sequence[Judged]) -> list[str]:
    """Return a short name for each evaluation: what tells their steps apart.

    ``metrics-als-u1`` and ``metrics-als-u2`` of one model on two splits are both ``als``.
    """
    steps = [one.step.removeprefix("metrics-") for one in some]
    several = len({one.split for one in some}) > 1
    names = []
    for one, step in zip(some, steps, strict=True):
        alike = [
            s for o, s in zip(some, steps, strict=True) if o.stats["model"] == one.stats["model"]
        ]
        if several and len(alike) > 1:
            short = min(alike, key=len)
            end = next((i for i in range(len(short)) if len({s[: i + 1] for s in alike}) > 1), None)
            head = short[:end].rpartition("-")[0] if end is not None else short
            names.append(head or step)
        else:
            names.append(step)
    return names


def errors(found: Gathered) -> Section | None:
    """Compare the models on the held-out ratings."""
    some = judged(found)
    if not some:
        return None
    splits = list(dict.fromkeys(one.split for one in some))
    names = names_of(some)
    body = (
        _one_split(found, some, names) if len(splits) == 1 else _splits(found, some, names, splits)
    )
    notes = dict.fromkeys(note for one in some for note in one.stats.get("notes", []))
    body += "".join(f'<p class="soft">{text(note, 400)}</p>' for note in notes)
    first = some[0].stats["split"]
    where = f"{first['name']}: {counted(first['n_pairs'], 'rating')}, {first['how']}"
    if len(splits) > 1:
        where = f"{len(splits)} splits, {splits[0][0]} of each; the first: {where}"
    low, high = some[0].stats["clipped_to"]
    said = (
        f"Held out: {where}; no model has learned from any of them (checked). Errors in stars, "
        f"predictions clipped to {low:g}..{high:g}."
    )
    return Section("errors", "Errors beside references", said, body)


def _one_split(found: Gathered, some: list[Judged], names: list[str]) -> str:
    references = [(one.stats["reference"] or {}) for one in some]
    published = next((one for one in references if one), None)
    ranked = next((r for one in some if (r := one.stats.get("ranking"))), None)
    header = ["", "RMSE", "MAE", "below item average, %"]
    if published:
        header.append(f"below {published['name']}, %")
    header.append("pairs that are no cold start")
    if ranked:
        header.append(f"users with a hit in {ranked['n']}")
    rows: list[list[Any]] = []
    order = sorted(range(len(some)), key=lambda at: some[at].stats["errors"]["rmse"] or math.inf)
    for at in order:
        stats = some[at].stats
        row = [
            names[at], number(stats["errors"]["rmse"]), number(stats["errors"]["mae"]),
            number(stats["improvement_percent"], 2),
        ]  # fmt: skip
        if published:
            row.append(number(stats["improvement_over_reference_percent"], 2))
        row.append(_percent(stats["coverage"]))
        if ranked:
            mine = stats.get("ranking")
            row.append(_percent(mine["model"][LISTS]) if mine else "")
        rows.append(row)
    average = some[0].stats["item_average"]
    blank = [""] * (len(header) - 3)
    rows.append(["item average", number(average["rmse"]), number(average["mae"]), *blank])
    if published:
        rows.append([f"{published['name']} (published)", number(published["rmse"]), "", *blank])
    if ranked:
        popular = _percent(ranked["most_popular"][LISTS])
        rows.append(["most popular items", "", "", *blank[:-1], popular])
    drawn = _marked(table(header, rows, id="rmse", kind="wide"), len(some))
    colours = palette(found)
    rungs = [
        (names[at], some[at].stats["errors"]["rmse"], colours[names[at]])
        for at in order[:MOST_CURVES]
    ]
    against = [("item average", average["rmse"])]
    if published:
        against.append((f"{published['name']} (published)", published["rmse"]))
    return panel("RMSE and MAE", drawn + _drawn(rungs, against))


def _drawn(models: list[tuple[str, Any, int]], references: list[tuple[str, Any]]) -> str:
    """Draw the models' RMSE, each in its colour of the other charts, and references."""
    rungs = [Rung(name, value, colour) for name, value, colour in models if value is not None]
    rungs += [Rung(name, value, 0, True) for name, value in references if value is not None]
    return ladder(rungs, width=WIDTH, x_name="RMSE")


def _marked(drawn: str, n: int) -> str:
    """Part the references from the models, and show which model is the best."""
    rows = drawn.split("<tr>")
    if n > 1:
        rows[2] = rows[2].replace("<td>", '<td class="best">', 1)
    # 0 is what stands before the header, 1 the header.
    return "<tr>".join(rows[: n + 2]) + "".join(f'<tr class="reference">{r}' for r in rows[n + 2 :])


def _percent(share: float | None) -> Cell:
    if share is None:
        return Cell("", kind="number")
    return Cell(f"{share:.1%}", repr(share), "number")


def _splits(
    found: Gathered, some: list[Judged], names: list[str], splits: list[tuple[str, str]]
) -> str:
    """Draw models of several splits: a row a model, a column a split."""
    stores = {store.fingerprint: name for name, store in found.stores.items()}
    header = ["", "mean RMSE"]
    header += [stores.get(print_, name).removeprefix("store-") for name, print_ in splits]
    average: dict[tuple[str, str], float] = {}
    rows: list[tuple[str, list[float | None]]] = []
    for name in dict.fromkeys(names):
        mine = {o.split: o.stats for n, o in zip(names, some, strict=True) if n == name}
        average |= {split: stats["item_average"]["rmse"] for split, stats in mine.items()}
        rows.append((name, [mine[s]["errors"]["rmse"] if s in mine else None for s in splits]))
    rows.sort(key=lambda row: mean_of(row[1]) or math.inf)
    reference = ("item average", [average.get(split) for split in splits])
    cells = [
        [name, number(mean_of(values)), *map(number, values)] for name, values in (*rows, reference)
    ]
    colours = palette(found)
    rungs = [(name, mean_of(values), colours[name]) for name, values in rows[:MOST_CURVES]]
    drawn = _marked(table(header, cells, id="rmse", kind="wide"), len(rows))
    return panel("RMSE", drawn + _drawn(rungs, [(reference[0], mean_of(reference[1]))]))


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of some figures, None where one is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _means(some: Sequence[Judged]) -> dict[str, float]:
    """Return the RMSE of each model that was judged on every split, the mean of the splits."""
    n = len({one.split for one in some})
    values: dict[str, list[float | None]] = {}
    for name, one in zip(names_of(some), some, strict=True):
        values.setdefault(name, []).append(one.stats["errors"]["rmse"])
    means = {name: mean_of(each) for name, each in values.items() if len(each) == n}
    return {name: mean for name, mean in means.items() if mean is not None}


def shown_errors(found: Gathered) -> set[float]:
    """Return all RMSE and MAE of the models, and the means over splits."""
    some = judged(found)
    each = {one.stats["errors"][name] for one in some for name in ("rmse", "mae")}
    return (each | set(_means(some).values())) - {None}


def best_of(found: Gathered) -> tuple[str, float, str] | None:
    """Return the model of the lowest RMSE, that, and what it is of; of several splits the mean."""
    some = judged(found)
    splits = dict.fromkeys(one.split for one in some)
    known = _means(some)
    if not known:
        return None
    name = min(known, key=lambda name: known[name])
    split, n = some[0].split[0], len(splits)
    return name, known[name], f"on {split}" if n == 1 else f"of {n} splits, mean"


def palette(found: Gathered) -> dict[str, int]:
    """Return the colour of each model by its short name, the same in all charts."""
    names = list(dict.fromkeys(names_of(judged(found))))
    colours = {name: at for at, name in enumerate(names)}
    for step in found.of_kind("model"):
        name = step.removeprefix("model-")
        if name not in colours:
            colours[name] = colours[group] if (group := group_of(name, names)) else len(colours)
    return colours


def group_of(name: str, names: Sequence[str]) -> str | None:
    """Return the short name of the model that a fit on one of several splits is of.

    >>> group_of("als-u1", ["als", "als-big"])
    'als'
    """
    return max((one for one in names if name.startswith(f"{one}-")), key=len, default=None)


def support(found: Gathered) -> Section | None:
    """Draw the errors by how many training ratings a pair's user and item have."""
    some = judged(found)
    if not some:
        return None
    shown = [one for one in some if one.split == some[0].split]
    names = names_of(some)[: len(some)]
    labels = [n for n, one in zip(names, some, strict=True) if one.split == some[0].split]
    colours = palette(found)
    panels = []
    for side in ("user", "item"):
        rows = {row["bucket"]: row["n"] for row in shown[0].stats[f"by_{side}"]}
        buckets = [name for name in SUPPORT_NAMES if rows.get(name)]
        curves: list[Line] = []
        cells: list[list[Any]] = []
        for label, one in zip(labels, shown, strict=True):
            values = {row["bucket"]: row["rmse"] for row in one.stats[f"by_{side}"]}
            points = [
                (float(i), values[b])
                for i, b in enumerate(buckets)
                if values.get(b) is not None and rows[b] >= LEAST_PAIRS
            ]
            curves.append(Line(label, points, colours[label], marked=True))
            cells.append([label, *[number(values.get(b)) for b in buckets]])
        cells.append(["ratings judged", *[number(rows[b]) for b in buckets]])
        chart = lines(
            curves[:MOST_CURVES], width=600, height=240, x_name=f"training ratings of the {side}",
            x_range=(-0.4, len(buckets) - 0.6), x_labels=buckets,
        )  # fmt: skip
        body = chart + table(["RMSE", *buckets], cells, id=f"by-{side}")
        panels.append(panel(f"By the {side}'s support", body))
    legend = key((colours[label], label, "") for label in labels[:MOST_CURVES])
    said = (
        "RMSE of the same pairs by how much was known of each pair's user and item; "
        f"points of {LEAST_PAIRS} pairs and more."
    )
    if len(shown) < len(some):
        said += " Of the first split."
    return Section(
        "support", "Error by support", said, f'{legend}<div class="two">{"".join(panels)}</div>'
    )


def learning(found: Gathered) -> Section | None:
    """Draw what every epoch of the fits told."""
    fits = {step: told for step, one in found.of_kind("model").items() if (told := _history(one))}
    if not fits:
        return None
    colours = palette(found)
    curves: list[Line] = []
    by_seconds: list[Line] = []
    rows: list[list[Any]] = []
    for step, told in fits.items():
        name = step.removeprefix("model-")
        colour = colours[name]
        at, clock = 0.0, []
        for row in told:
            at += row["seconds"] or 0.0
            clock.append(at)
        for field, said, dashed in (
            ("train_rmse", "training", False), ("validation_rmse", "validation", True),
        ):  # fmt: skip
            known = [i for i, row in enumerate(told) if row[field] is not None]
            if known and len(rows) < MOST_CURVES:
                label = f"{name}, {said}"
                points = [(float(told[i]["epoch"]), told[i][field]) for i in known]
                curves.append(Line(label, points, colour, dashed, marked=True))
                by_seconds.append(
                    Line(label, [(clock[i], told[i][field]) for i in known], colour, dashed)
                )
        last = told[-1]
        rows.append(
            [name, number(len(told)), number(last["train_rmse"]), number(last["validation_rmse"]),
             _brief(at / len(told)),
             Cell(bytes_text(sum(row["bytes_moved"] or 0 for row in told)), kind="number")]
        )  # fmt: skip
    if not curves:
        return None
    size: dict[str, Any] = {"width": 600, "height": 260, "y_range": _of_interest(curves)}
    charts = panel("By epoch", lines(curves, x_name="epoch", **size)) + panel(
        "By seconds", lines(by_seconds, x_name="seconds of the epochs", **size)
    )
    known_names = names_of(judged(found))
    shown = dict.fromkeys(group_of(row[0], known_names) or row[0] for row in rows[:MOST_CURVES])
    header = ["", "epochs", "training RMSE", "validation RMSE", "an epoch", "bytes moved"]
    body = (
        key((colours[name], name, "") for name in shown)
        + f'<div class="two">{charts}</div>'
        + panel("Fits", table(header, rows, id="fits", kind="wide"))
    )
    said = (
        "RMSE after every epoch, of what was learned from; dashed: of what a fit held out itself."
    )
    return Section("learning", "Learning curves", said, body)


def _brief(seconds: float) -> Cell:
    shown = seconds_text(seconds) if seconds >= 0.1 else f"{1000 * seconds:.0f} ms"
    return Cell(shown, repr(seconds), "number")


def _of_interest(curves: Sequence[Line]) -> tuple[float, float] | None:
    """Return the range without first epochs that are far above all others."""
    every = [y for curve in curves for _, y in curve.points]
    later = [y for curve in curves for x, y in curve.points if x > 1]
    if not later or max(every) - min(every) < 2 * (max(later) - min(later)) or len(later) < 3:
        return None
    return (min(later), max(later)) if max(later) - min(later) > 2e-3 else None


def _history(artifact: Artifact) -> list[dict[str, Any]]:
    names = {entry.file for entry in artifact.manifest.files}
    if "history.parquet" not in names:
        return []
    wanted = {"epoch", "train_rmse", "validation_rmse", "seconds", "bytes_moved"}
    found = artifact.table("history")
    if not wanted <= set(found.column_names):
        return []
    rows: list[dict[str, Any]] = found.select(sorted(wanted)).to_pylist()
    return [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        for row in rows
    ]
