from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.kernels import parse_delimited as pd_
from netflixdask.kernels import parse_delimited_runs as dr
from netflixdask.kernels import parse_values as pv
from netflixdask.kernels.parse_blocks import DONE
from netflixdask.kernels.parse_swar import PAD, SWAR

ANY = (-3.4e38, 3.4e38, 0.0)
Found = tuple[list[tuple], list[tuple[int, int]]]


def form_of(
    delimiter: str = ",",
    quote: int = 34,
    fields: int = 4,
    columns: tuple[int, int, int, int] = (0, 1, 2, 3),
    kinds: tuple[int, int, int] = (pv.CANONICAL_INT, pv.INT, pv.EPOCH),
) -> np.ndarray:
    return np.array([ord(delimiter[0]), len(delimiter), quote, fields, *columns, *kinds], np.int64)


def run(
    raw: bytes,
    form: np.ndarray,
    limits: tuple[float, float, float] = ANY,
    swar: bool = SWAR,
    room: int | None = None,
) -> Found:
    """Parse a text: rows of user, item, rating, time; and (line, code) of the bad lines."""
    buf = np.frombuffer(bytearray(raw) + b"7" * PAD, np.uint8)
    n = raw.count(b"\n") + 1 if room is None else room
    stars = np.arange(dr.N_TENTHS) / 10
    good = (stars >= limits[0]) & (stars <= limits[1])
    if limits[2]:
        good &= stars * limits[2] == np.floor(stars * limits[2])
    tenths = np.where(good, np.where(stars == np.floor(stars), 1, 2), 0).astype(np.uint8)
    kind: Any = np.int32
    user, item, time = (np.full(n, -9, kind) for _ in range(3))
    if form[7] < 0:
        time = np.empty(0, kind)
    star, rating = np.full(n, 99, np.uint8), np.empty(0, np.float32)
    scratch, burst = np.empty((9, dr.BURST), np.int64), np.empty(dr.BURST, np.float32)
    state = np.array([0, 1, 0], np.int64)
    rows: list[tuple] = []
    bad = []
    while True:
        code = dr.parse_delimited_runs(
            buf, len(raw), form, np.array(limits), tenths, swar, int(np.iinfo(kind).max), state,
            user, item, star, rating, time, scratch, burst,
        )  # fmt: skip
        done = int(state[pd_.ROWS])
        if code in (DONE, dr.FULL):
            times = time[:done].astype(np.int64)
            times[time[:done] == np.iinfo(kind).min] = pv.NULL
            columns = [user[:done], item[:done], (rating if rating.size else star)[:done]]
            columns += [times] if time.size else []
            rows += zip(*(column.tolist() for column in columns), strict=True)
            if code == DONE:
                assert state[pd_.POS] == len(raw)
                return rows, bad
            state[pd_.ROWS] = 0
        elif code == dr.WIDE:
            assert kind == np.int32
            nulls = time[:done] == np.iinfo(kind).min
            kind = np.int64
            user, item, time = (column.astype(kind) for column in (user, item, time))
            time[:done][nulls[:done]] = pv.NULL
        elif code == dr.FLOAT:
            assert rating.size == 0
            rating = star.astype(np.float32)
        else:
            bad.append((int(state[pd_.LINE]), code))
            end = raw.find(b"\n", int(state[pd_.POS]))
            state[pd_.POS] = len(raw) if end < 0 else end + 1
            state[pd_.LINE] += 1


def plain(raw: bytes, form: np.ndarray, limits: tuple[float, float, float] = ANY) -> Found:
    """The same by ``parse_delimited``."""
    buf = np.frombuffer(bytearray(raw), np.uint8)
    n = raw.count(b"\n") + 1
    user, item, line = (np.empty(n, np.int64) for _ in range(3))
    time = np.empty(n if form[7] >= 0 else 0, np.int64)
    none, rating = np.empty(0, np.int64), np.empty(n, np.float32)
    state = np.array([0, 1, 0], np.int64)
    bad = []
    while code := pd_.parse_delimited(
        buf, form, np.array(limits), state, user, none, item, none, rating, time, line
    ):
        bad.append((int(state[pd_.LINE]), code))
        end = raw.find(b"\n", int(state[pd_.POS]))
        state[pd_.POS] = len(raw) if end < 0 else end + 1
        state[pd_.LINE] += 1
    done = int(state[pd_.ROWS])
    columns = [user, item, rating, *([time] if time.size else [])]
    return list(zip(*(c[:done].tolist() for c in columns), strict=True)), bad


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("delimiter", [",", "\t", "|", "::"])
def test_usual_lines(delimiter: str, newline: bytes) -> None:
    rows = [(1, 2, 3, 4), (1488844, 17770, 5, 881250949), (99999999, 100000000, 0, 2147483647)]
    raw = newline.join(delimiter.join(map(str, row)).encode() for row in rows) + newline
    assert run(raw, form_of(delimiter)) == (rows, [])
    assert run(raw, form_of(delimiter), room=2) == (rows, [])
    dated = raw.replace(b"2147483647", b"2005-09-06").replace(b"881250949", b"1999-12-31")
    dated = dated.replace(delimiter.encode() + b"4" + newline, delimiter.encode() + newline)
    kinds = (pv.INT, pv.INT, pv.DATE)
    expected = [(1, 2, 3, pv.NULL), (*rows[1][:3], 10956), (*rows[2][:3], 13032)]
    assert run(dated, form_of(delimiter, kinds=kinds)) == (expected, [])


def test_columns_in_any_order_and_between_others() -> None:
    form = form_of(fields=6, columns=(5, 1, 3, 0), kinds=(pv.INT, pv.INT, pv.DATE))
    raw = b'2005-09-06,7,x y,4,,12\n2005-09-06,7,"x,y",4.5,,12\n2005-09-06,7,x,y,4,12\n'
    assert run(raw, form) == ([(12, 7, 4.0, 13032), (12, 7, 4.5, 13032)], plain(raw, form)[1])


def test_no_time() -> None:
    assert run(b"1,2,3\n4,5,3.5\n", form_of(fields=3, columns=(0, 1, 2, -1))) == (
        [(1, 2, 3.0), (4, 5, 3.5)],
        [],
    )


def test_columns_widen_when_a_row_needs_it() -> None:
    raw = b"1,2,3,\n1,2,3,7\n-5,2,3,2147483648\n9223372036854775807,-9223372036854775808,3,-1\n"
    expected = plain(raw, form_of())
    assert expected[0][0][3] == pv.NULL
    for swar in {False, SWAR}:
        assert run(raw, form_of(), swar=swar) == expected


@pytest.mark.parametrize("number", ["2147483647", "2147483648", "-2147483648", "-2147483649"])
@pytest.mark.parametrize("line", ["{},1,1,1", "1,{},1,1", "1,1,1,{}"])
def test_the_edges_of_int32(line: str, number: str) -> None:
    raw = line.format(number).encode()
    assert run(raw, form_of()) == plain(raw, form_of())


@given(st.integers(1, 20), st.data())
def test_ids_of_every_length_are_exact(length: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(10 ** (length - 1), 10**length - 1))
    raw = f"{number},1,3,5\n2,{number},4,6\n".encode()
    found = run(raw, form_of())
    assert found == plain(raw, form_of())
    assert found[0] == ([(number, 1, 3, 5), (2, number, 4, 6)] if number < 2**63 else [])


@pytest.mark.parametrize(
    "rating", ["0", "5", "10", "99", "100", "255", "256", "-1", "-0", "0.5", "9.9", "10.5", "1e1"]
)
@pytest.mark.parametrize("limits", [ANY, (0.5, 5.0, 2.0), (1.0, 10.0, 1.0)])
def test_ratings(rating: str, limits: tuple[float, float, float]) -> None:
    raw = f"1,2,3,4\n1,2,{rating},4\n".encode()
    assert run(raw, form_of(), limits) == plain(raw, form_of(), limits)


def test_runs_of_three_colons_are_no_separators() -> None:
    form = form_of("::", -1, 5, (0, 3, 4, -1))
    for raw in (b"1::a:b:::c::2::3\n", b"1:::a:::2::3\n", b"1::a::b:::2::3", b"1::::::2::3::4"):
        assert run(raw, form) == plain(raw, form)


@pytest.mark.parametrize("size", range(56, 70))
def test_long_lines(size: int) -> None:
    line = b"1,2,3,4,"
    raw = (line + b"x" * (size - len(line)) + b"\n") * 3
    assert run(raw, form_of(fields=5)) == ([(1, 2, 3, 4)] * 3, [])


@given(st.dates(dt.date(1890, 1, 1), dt.date(2059, 9, 18)))
def test_dates(day: dt.date) -> None:
    form = form_of(kinds=(pv.INT, pv.INT, pv.DATE))
    assert run(f"1,2,3,{day}\n".encode(), form)[0][0][3] == (day - dt.date(1970, 1, 1)).days


@pytest.mark.skipif(not SWAR, reason="the words are little-endian")
@given(st.integers(0, 25), st.integers(0, 255), st.booleans())
def test_any_byte_of_a_usual_line_is_checked(place: int, byte: int, dated: bool) -> None:
    text = bytearray(b"2649429,17770,3,2004-02-29\n" if dated else b"26494291,1770,3.5,88125094\n")
    text[place] = byte
    raw = bytes(text) + bytes(text[::-1])
    form = form_of(kinds=(pv.CANONICAL_INT, pv.INT, pv.DATE if dated else pv.EPOCH))
    assert run(raw, form) == plain(raw, form)


_FIELD = st.one_of(
    st.integers(-5, 10**6).map(str),
    st.integers(0, 10**20).map(str),
    st.decimals(0, 12, places=1).map(str),
    st.dates(dt.date(1880, 1, 1), dt.date(2061, 1, 1)).map(str),
    st.text('0123456789.-, "x\r\t:|', max_size=6),
)
_FORM = st.tuples(
    st.sampled_from([",", "\t", "::", "|"]),
    st.sampled_from([34, -1]),
    st.permutations(range(5)),
    st.sampled_from([3, 4, 5]),
    st.sampled_from([pv.INT, pv.CANONICAL_INT]),
    st.sampled_from([pv.DATE, pv.EPOCH, pv.ISO]),
    st.sampled_from([ANY, (0.5, 5.0, 2.0)]),
)


@given(st.lists(st.lists(_FIELD, min_size=2, max_size=6), max_size=8), _FORM, st.data())
def test_every_line_as_the_plain_kernel_says(table, form, data: st.DataObject) -> None:
    delimiter, quote, order, fields, ids, time, limits = form
    places = [place for place in order if place < fields]
    timed = places[3] if fields > 3 and data.draw(st.booleans()) else -1
    columns = (places[0], places[1], places[2], timed)
    newline = data.draw(st.sampled_from(["\n", "\r\n"]))
    raw = newline.join(delimiter.join(row[:fields]) for row in table).encode()
    packed = form_of(delimiter, quote, fields, columns, (ids, ids, time))
    expected = plain(raw, packed, limits)
    assert run(raw, packed, limits) == expected
    assert run(raw, packed, limits, swar=False) == expected
    assert run(raw, packed, limits, room=2) == expected


@given(st.binary(max_size=200), st.sampled_from([",", "\t", "::"]), st.sampled_from([34, -1]))
def test_random_bytes(raw: bytes, delimiter: str, quote: int) -> None:
    form = form_of(delimiter, quote)
    assert run(raw, form) == plain(raw, form)
