"""Bars, maps and ladders: what is drawn is what was given."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from netflixdask.drawing import cloud as cloud_module
from netflixdask.drawing import style
from netflixdask.drawing.bars import BOTTOM, TOP, Bar, bars
from netflixdask.drawing.cloud import Circle, cloud, stretched
from netflixdask.drawing.ladder import Rung, ladder
from netflixdask.drawing.lines import Line, lines

EVIL = "<script>alert('x')</script> & \"quotes\""


def test_bars_are_as_tall_as_their_values() -> None:
    values = [3.0, 0.0, 12.0, 6.0]
    drawn = bars(
        [Bar(f"{at}", value, f"{value:g} there") for at, value in enumerate(values)],
        width=300, height=200, x_name=EVIL,
    )  # fmt: skip
    root = ElementTree.fromstring(drawn)
    tall = np.array([float(rect.attrib["height"]) for rect in root.iter("rect")])
    np.testing.assert_allclose(tall, np.array(values) / 12 * (200 - BOTTOM - TOP), atol=0.06)
    assert [title.text for title in root.iter("title")] == [f"{v:g} there" for v in values]
    assert "<script" not in drawn


def test_labels_of_bars_do_not_touch() -> None:
    drawn = bars(
        [Bar("a long label" if at % 2 else "", 1.0) for at in range(60)],
        width=400, height=100, x_name="",
    )  # fmt: skip
    texts = [t for t in ElementTree.fromstring(drawn).iter("text") if t.text == "a long label"]
    xs = [float(t.attrib["x"]) for t in texts]
    assert 2 <= len(xs) <= 5
    assert min(np.diff(xs)) > 12 * 6
    assert max(xs) <= 400 - 6 * 6


@pytest.mark.parametrize("values", [[], [0.0], [0.0, 0.0], [7.0]])
def test_few_and_empty_bars_are_drawn(values: list[float]) -> None:
    drawn = bars([Bar("x", v) for v in values], width=100, height=100, x_name="x")
    assert bool(drawn) == bool(values)
    assert "nan" not in drawn


def test_a_map_keeps_the_order_of_places_and_parts_its_labels() -> None:
    rng = np.random.default_rng(5)
    places = rng.standard_cauchy((40, 2))
    circles = [
        Circle(float(x), float(y), 4 + at % 9, at, f"place {at}", f"{at} {EVIL}")
        for at, (x, y) in enumerate(places)
    ]
    points = [(float(x), float(y), 1) for x, y in rng.standard_normal((30, 2))]
    drawn = cloud(circles, points, width=800, height=400, labels=12)
    root = ElementTree.fromstring(drawn)
    assert "<script" not in drawn
    found = {
        int(circle[0].text.split()[0]): (float(circle.attrib["cx"]), float(circle.attrib["cy"]))
        for circle in root.iter("circle")
        if len(circle) and circle[0].text
    }
    xs, ys = np.array([found[at] for at in range(40)]).T
    assert np.all(np.diff(xs[np.argsort(places[:, 0])]) >= 0)
    assert np.all(np.diff(ys[np.argsort(places[:, 1])]) <= 0)
    assert xs.min() >= 0
    assert xs.max() <= 800
    assert 0 <= ys.min() <= ys.max() <= 400
    labels = [
        (float(t.attrib["x"]), float(t.attrib["y"]), len(t.text or "")) for t in root.iter("text")
    ]
    assert 5 <= len(labels) <= 12
    for at, (x, y, n) in enumerate(labels):
        for a, b, m in labels[:at]:
            assert abs(x - a) > cloud_module.LETTER * (n + m) / 2 or abs(y - b) > cloud_module.LINE


def test_one_place_and_none_are_a_map_too() -> None:
    assert cloud([], width=10, height=10, labels=3) == ""
    drawn = cloud([Circle(2.0, 2.0, 3)], width=100, height=80, labels=3)
    assert 'cx="50.0"' in drawn
    np.testing.assert_array_equal(stretched(np.full((3, 2), 7.0)), np.zeros((3, 2)))


def test_a_ladder_has_values_in_place_and_references_through_all() -> None:
    rungs = [Rung("a", 0.9), Rung(EVIL, 1.1, 1), Rung("item average", 1.0, 0, True)]
    drawn = ladder(rungs, width=600, x_name="RMSE")
    root = ElementTree.fromstring(drawn)
    first, second = (float(dot.attrib["cx"]) for dot in root.iter("circle"))
    (bound,) = (x for x in root.iter("line") if x.attrib["class"] == "bound")
    assert float(bound.attrib["x1"]) == pytest.approx((first + second) / 2, abs=0.1)
    assert "<script" not in drawn
    assert "0.9000" in drawn
    assert ladder([], width=9, x_name="") == ""
    assert "nan" not in ladder([Rung("one", 0.5)], width=300, x_name="")


def test_lines_over_names_have_a_dot_and_a_word_a_point() -> None:
    curve = Line("als", [(0.0, 0.9), (2.0, 0.8)], marked=True)
    drawn = lines(
        [curve], width=300, height=200, x_name="", x_range=(-0.4, 2.4), x_labels=["0", "1-9", "<9"]
    )
    root = ElementTree.fromstring(drawn)
    said = [title.text for title in root.iter("title")]
    assert said == ["als: 0.9000 at 0", "als: 0.8000 at <9"]
    assert [t.text for t in root.iter("text")][-4:-1] == ["0", "1-9", "<9"]


def test_the_style_has_both_grounds_and_asks_nobody() -> None:
    assert "prefers-color-scheme: dark" in style()
    assert "url(" not in style()
    assert "@import" not in style()
