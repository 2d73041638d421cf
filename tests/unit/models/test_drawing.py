"""The drawing in the docstring of ``netflixdask.models`` is what the code makes of its ratings."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

import netflixdask.models as nd
from netflixdask.cluster import open_client
from netflixdask.kernels.factor_rows import Layout
from netflixdask.mapreduce import SequentialEngine
from netflixdask.models import blocks
from netflixdask.models.blocks import rating_blocks
from netflixdask.models.exchange import pick
from netflixdask.models.side import Factors, Side, localize
from netflixdask.progress import quiet
from netflixdask.store import RatingsStore

DRAWING = nd.__doc__ or ""
LAYOUT = Layout(2, biased=True, offset=True)
SIDES = (("U", "user"), ("I", "item"))


def drawn_ratings():
    """Return the ratings of the drawn matrix."""
    rows = re.findall(r"user (\d)  \[ +([\d.| ]+)\]", DRAWING)
    found = [
        (int(user), item, int(star))
        for user, stars in rows
        for item, star in enumerate(stars.replace("|", " ").split())
        if star != "."
    ]
    return pd.DataFrame(found, columns=["user_id", "item_id", "rating"])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with quiet(), open_client("sequential"):
        frame = drawn_ratings()
        assert len(frame) == 8
        yield RatingsStore.from_frame(frame, tmp_path_factory.mktemp("drawn") / "store")


@pytest.fixture(autouse=True)
def two_blocks(monkeypatch):
    monkeypatch.setattr(SequentialEngine, "n_threads", 1)
    monkeypatch.setattr(blocks, "BLOCKS_PER_THREAD", 2)
    monkeypatch.setattr(blocks, "least_block", lambda _: 1)


@pytest.fixture
def sides(store):
    found = rating_blocks(store, SequentialEngine(), split=True)
    return {by: [block.pieces[0] for block in side] for by, side in zip("UI", found, strict=True)}


def words(line):
    return " ".join(line.split())


def test_blocks_are_as_drawn(sides):
    lines = {words(line) for line in DRAWING.splitlines()}
    for letter, by in SIDES:
        for number, block in enumerate(sides[letter]):
            arrays = (f"{n} {getattr(block, n).tolist()}" for n in ("indptr", "src", "code"))
            assert " ".join([f"{letter}{number} first {block.first}", *arrays]) in lines
            assert f"{letter}{number} = {by}s {block.first}..{block.stop - 1}" in words(DRAWING)
            assert (block.low, block.scale, block.rating) == (1.0, 1, None)
            kinds = (block.indptr.dtype, block.src.dtype, block.code.dtype)
            assert kinds == (np.int64, np.int32, np.uint8)


def test_rows_are_as_drawn():
    columns = words(DRAWING[DRAWING.index("in memory    [") :].split("]")[0]).split("[ ")[1]
    assert columns == "p_0 p_1 1.0 b 0 .. 0"
    packed = Factors.of(np.array([[0.5, 0.25, 7.0]], np.float32), LAYOUT).packed
    assert packed.tolist() == [[0.5, 0.25, 1.0, 7.0, *[0.0] * 12]]
    assert packed.nbytes == int(re.search(r"0 \.\. 0 \] +(\d+) bytes", DRAWING)[1])
    assert 4 * LAYOUT.n_sent == int(re.search(r"b +\] +(\d+) bytes, 4 \(k \+ 1\)", DRAWING)[1])


def test_routes_are_as_drawn(sides):
    users = np.arange(4, dtype=np.float32)
    runs = []
    for block in sides["U"]:
        rows = np.repeat(users[block.first : block.stop, None], LAYOUT.n_sent, axis=1)
        runs.append(Side(block.first, Factors.of(rows, LAYOUT), 0, 0))
    for d, block in enumerate(sides["I"]):
        local = localize(block)
        assert f"I{d}  src {local.block.src.tolist()}" in DRAWING
        for s, run in enumerate(runs):
            sent = pick(run, local.needs).values.rows()[:, 0].astype(int)
            text = " ".join(map(str, sent.tolist()))
            drawn = re.search(rf"P{s} ── users? ([\d ]+) ─+▶ I{d}", DRAWING)
            assert drawn is not None
            assert drawn[1] == text


@pytest.mark.parametrize(("column", "way"), [(0, "broadcast"), (1, "routed"), (2, "ranged")])
def test_bytes_are_as_drawn(store, column, way):
    figures = re.findall(r"from 2 runs of (users|items) +(\d+) +(\d+) +(\d+)", DRAWING)
    assert [by for by, *_ in figures] == ["users", "items"]
    history = nd.ALS(n_factors=2, epochs=2, exchange=way).fit(store).history_
    # In the second epoch both sides come in two runs.
    assert history["bytes_moved"].iloc[1] == sum(int(row[column]) for _, *row in figures)


def test_pieces_are_cut_as_drawn():
    edges = [int(n) for pair in re.findall(r"(\d+) \.\. (\d{4,})", DRAWING) for n in pair]
    run = blocks.SEGMENT
    assert edges == [0, run - 1, run, 2 * run - 1, 2 * run, 9_499]
