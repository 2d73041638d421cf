"""A run's report: one HTML file that needs nothing else to be opened.

::

    gathered   what the run left: its record, stores, artifacts
    figures    errors, learning curves       ─┐
    data       histograms                     │
    samples    neighbours, recommendations    ├─▶  sections  ─▶  page  ─▶  report.html
    map        clusters, or items by factors  │
    about      picture, steps, options       ─┘

It reads what the steps have written, tables of users and items and small parts of others: never
all ratings, and nothing is computed for it that a step has not left.
"""

from __future__ import annotations

from netflixdask.report.page import REPORT, Report, make_report

__all__ = ["REPORT", "Report", "make_report"]
