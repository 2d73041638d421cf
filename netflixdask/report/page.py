"""The page: its sections in order, one file without scripts that asks no network for anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from netflixdask import __version__
from netflixdask.drawing import style
from netflixdask.report import about, data, figures, map, samples
from netflixdask.report.gathered import Gathered, gather
from netflixdask.report.html import Section, text
from netflixdask.urls import write_whole

REPORT = "report.html"
SECTIONS: tuple[Callable[[Gathered], Section | None], ...] = (
    about.picture,
    figures.errors,
    figures.support,
    figures.learning,
    map.map_of,
    samples.neighbors,
    samples.recommendations,
    data.ratings,
    about.results,
    about.steps,
)
# Nothing is loaded and nothing runs, whatever a title holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Report:
    """What was written."""

    path: Path
    sections: tuple[str, ...]
    """Ids of the sections that the page has."""
    left_out: tuple[str, ...]
    """What could not be drawn, and why: a sentence each."""


def make_report(record: dict[str, Any], workdir: Path) -> Report:
    """Write ``WORKDIR/report.html`` for a run.

    A section whose data the run does not have is not there; one that cannot be drawn is named in
    the result and on the page.

    Args:
        record: what ``run.json`` says of the run.
        workdir: where its steps have left their output; may be behind a URL.

    Raises:
        OSError: if the file cannot be written.
    """
    found = gather(record, workdir)
    sections, left_out = [], list(found.lost)
    for make in SECTIONS:
        try:
            section = make(found)
        except Exception as error:
            left_out.append(f"{make.__name__}: {type(error).__name__}: {error}"[:300])
            continue
        if section is not None:
            sections.append(section)
    path = workdir / REPORT
    write_whole(path, page(found, sections, left_out).encode("utf-8", "replace"))
    return Report(path, tuple(one.id for one in sections), tuple(left_out))


def page(found: Gathered, sections: list[Section], left_out: list[str]) -> str:
    """Return the HTML."""
    links = "".join(f'<a href="#{one.id}">{text(one.title)}</a>' for one in sections)
    parts = "".join(
        f'<section id="{one.id}"><h2>{text(one.title)}</h2>'
        f'<p class="said">{text(one.said, 600)}</p>{one.body}</section>'
        for one in sections
    )
    wrong = "".join(f'<p class="error">Left out: {text(one, 300)}</p>' for one in left_out)
    own = resources.files("netflixdask.report").joinpath("report.css").read_text(encoding="utf-8")
    flow = text(found.record["flow"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{flow} {text(found.record['id'])}</title><style>{style()}{own}</style></head>"
        f"<body>{about.head(found)}<nav>{links}</nav>{wrong}{parts}"
        f"<footer>netflixdask {text(__version__)}</footer></body></html>\n"
    )
