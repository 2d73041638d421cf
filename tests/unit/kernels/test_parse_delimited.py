from __future__ import annotations

import csv
import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.kernels import parse_delimited as pd_
from netflixdask.kernels import parse_values as pv
from netflixdask.kernels.parse_blocks import DONE

S, INT, CANON = pv.STRING, pv.INT, pv.CANONICAL_INT


def run(
    raw: bytes,
    *,
    delimiter: str = ",",
    quote: int = 34,
    fields: int = 4,
    columns: tuple[int, int, int, int] = (0, 1, 2, 3),
    kinds: tuple[int, int, int] = (INT, INT, pv.EPOCH),
    limits: tuple[float, float, float] = (-3.4e38, 3.4e38, 0.0),
) -> tuple[list[tuple], list[tuple[int, int]]]:
    """Parse all of ``raw``, going on behind bad lines: rows, and (line, code) of the bad ones."""
    buf = np.frombuffer(bytearray(raw), np.uint8)
    n = raw.count(b"\n") + 1
    form = np.array([ord(delimiter[0]), len(delimiter), quote, fields, *columns, *kinds], np.int64)
    state = np.array([0, 1, 0], np.int64)
    user, user_stop, item, item_stop, time, line = (np.zeros(n, np.int64) for _ in range(6))
    rating = np.zeros(n, np.float32)
    arrays = (user, user_stop, item, item_stop, rating, time, line)
    bad = []
    while code := pd_.parse_delimited(buf, form, np.array(limits), state, *arrays):
        bad.append((int(state[pd_.LINE]), code))
        end = raw.find(b"\n", int(state[pd_.POS]))
        state[pd_.POS] = len(raw) if end < 0 else end + 1
        state[pd_.LINE] += 1
    assert code == DONE
    assert state[pd_.POS] == len(raw)
    rows = int(state[pd_.ROWS])

    def ids(kind: int, start: np.ndarray, stop: np.ndarray) -> list:
        if kind != S:
            return start[:rows].tolist()
        offsets = np.empty(rows + 1, np.int64)
        data = np.empty(len(raw), np.uint8)
        total = pd_.gather_texts(buf, start[:rows], stop[:rows], quote, offsets, data)
        assert total == offsets[-1]
        return [data[a:b].tobytes() for a, b in itertools.pairwise(offsets)]

    table = zip(
        ids(kinds[0], user, user_stop),
        ids(kinds[1], item, item_stop),
        rating[:rows].tolist(),
        time[:rows].tolist(),
        line[:rows].tolist(),
        strict=True,
    )
    return list(table), bad


def test_plain() -> None:
    rows, bad = run(b"196,242,3,881250949\n186,302,3.5,-1\n")
    assert bad == []
    assert rows == [(196, 242, 3.0, 881250949, 1), (186, 302, 3.5, pv.NULL, 2)]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", "::"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", [True, False])
def test_delimiters_and_line_ends(delimiter: str, newline: str, end: bool) -> None:
    text = newline.join(
        delimiter.join(row) for row in (["1", "2", "0.5", "10"], ["3", "4", "5", ""])
    )
    raw = (text + (newline * 3 if end else "")).encode()
    rows, bad = run(raw, delimiter=delimiter, quote=-1)
    assert bad == []
    assert rows == [(1, 2, 0.5, 10, 1), (3, 4, 5.0, pv.NULL, 2)]


def test_columns_in_any_order_and_between_others() -> None:
    rows, _ = run(
        b"x,2005-09-06,4,free text,i9,u1\n",
        fields=6,
        columns=(5, 4, 2, 1),
        kinds=(S, S, pv.DATE),
    )
    assert rows == [(b"u1", b"i9", 4.0, 13032, 1)]


def test_quotes() -> None:
    raw = b'"a,""b""","7","3.5","881250949"\r\n"","7",3,1\n"c",7,3,""\n'
    rows, bad = run(raw, kinds=(S, INT, pv.EPOCH))
    assert rows == [(b'a,"b"', 7, 3.5, 881250949, 1), (b"c", 7, 3.0, pv.NULL, 3)]
    assert bad == [(2, pd_.ROLE_BASE * (pd_.USER + 1) + pv.BAD_TEXT)]


@pytest.mark.parametrize("field", [b'"open', b'"a"b', b'"a" ', b'"', b'"a""'])
def test_bad_quotes(field: bytes) -> None:
    rows, bad = run(b"1," + field + b",3,4\n1,a,3,4\n", kinds=(INT, S, pv.EPOCH))
    assert [row[1] for row in rows] == [b"a"]
    assert bad == [(1, pd_.BAD_QUOTE)]


def test_a_quote_inside_an_unquoted_field_is_text() -> None:
    assert run(b'1,a"b"c,3,4', kinds=(INT, S, pv.EPOCH))[0][0][1] == b'a"b"c'


def test_one_colon_is_text() -> None:
    _, bad = run(b"a:b::c:::3::4\n", delimiter="::", quote=-1, kinds=(S, S, pv.EPOCH))
    assert bad == [(1, pd_.ROLE_BASE * (pd_.RATING + 1) + pv.BAD_TEXT)]  # ":3"
    assert (
        run(b"a:b::c::3::4\n", delimiter="::", quote=-1, kinds=(S, S, pv.EPOCH))[0][0][0] == b"a:b"
    )
    assert run(b"1:::2::3::4\n", delimiter="::", quote=-1)[1][0][1] // pd_.ROLE_BASE == 2


@pytest.mark.parametrize(
    ("line", "role", "why"),
    [
        (b"x,2,3,4", pd_.USER, pv.BAD_TEXT),
        (b",2,3,4", pd_.USER, pv.BAD_TEXT),
        (b"9223372036854775808,2,3,4", pd_.USER, pv.BAD_RANGE),
        (b"01,2,3,4", pd_.USER, pv.BAD_ZEROS),
        (b"1,2.0,3,4", pd_.ITEM, pv.BAD_TEXT),
        (b"1,2,nan,4", pd_.RATING, pv.BAD_TEXT),
        (b"1,2,,4", pd_.RATING, pv.BAD_TEXT),
        (b"1,2,5.5,4", pd_.RATING, pv.BAD_RANGE),
        (b"1,2,0,4", pd_.RATING, pv.BAD_RANGE),
        (b"1,2,3.7,4", pd_.RATING, pv.BAD_RANGE),
        (b"1,2,3,soon", pd_.TIME, pv.BAD_TEXT),
        (b"1,2,3,881250949000", pd_.TIME, pv.BAD_RANGE),
    ],
)
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_codes(line: bytes, role: int, why: int, end: bytes) -> None:
    raw = b"5,6,0.5,7\n" + line + end
    rows, bad = run(raw, kinds=(CANON, CANON, pv.EPOCH), limits=(0.5, 5.0, 2.0))
    assert [row[0] for row in rows] == [5]
    assert bad == [(2, pd_.ROLE_BASE * (role + 1) + why)]


@pytest.mark.parametrize("line", [b"1", b"1,2,3", b"1,2,3,4,5", b"1,2,3,4,", b",,,,"])
def test_wrong_column_count(line: bytes) -> None:
    assert run(line) == ([], [(1, pd_.BAD_FIELDS)])


def test_an_empty_last_field_at_the_end_of_the_buffer() -> None:
    assert run(b"1,2,3,9\n1,2,3,")[0] == [(1, 2, 3.0, 9, 1), (1, 2, 3.0, pv.NULL, 2)]


def test_spaces_around_numbers() -> None:
    assert run(b" 1, 2 ,  3.5 , 4 \n")[0] == [(1, 2, 3.5, 4, 1)]


@pytest.mark.parametrize("digits", range(1, 20))
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_integers_of_every_length(digits: int, newline: bytes) -> None:
    # The last field may end in a carriage return, which the fast path has to take out again.
    number = int("9876543210123456789"[:digits]) if digits < 19 else 9223372036854775807
    raw = b"3,7,4,%d%s" % (number, newline)
    rows, bad = run(raw, columns=(3, 1, 2, -1), kinds=(CANON, INT, pv.EPOCH))
    assert (rows[0][0], bad) == (number, [])


_FIELD = st.one_of(
    st.integers(-5, 10**6).map(str),
    st.decimals(-2, 6, places=1).map(str),
    st.text('0123456789.-, "ab', max_size=6),
)


@given(st.lists(st.lists(_FIELD, min_size=4, max_size=4), max_size=8), st.booleans())
def test_rows_written_by_the_csv_module_come_back(table: list[list[str]], quote_all: bool) -> None:
    out = io.StringIO()
    style = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    csv.writer(out, quoting=style, lineterminator="\n").writerows(table)
    rows, bad = run(out.getvalue().encode(), kinds=(S, S, pv.EPOCH), columns=(0, 1, 2, -1))
    read = {row[4]: row for row in rows}
    for number, fields in enumerate(table, 1):
        try:
            star = float(fields[2].strip(" ")) if fields[0] and fields[1] else None
        except ValueError:
            star = None
        if star is None:
            assert number in dict(bad)
        else:
            user, item, rating, _, _ = read[number]
            assert (user, item) == (fields[0].encode(), fields[1].encode())
            assert rating == np.float32(star)
    assert len(rows) + len(bad) == len(table)


@given(st.binary(max_size=200), st.sampled_from([",", "\t", "::"]), st.sampled_from([34, -1]))
def test_random_bytes_are_rows_or_refused(raw: bytes, delimiter: str, quote: int) -> None:
    lines = [line for line in raw.split(b"\n") if line.strip(b" \t\r")]
    for kinds in ((S, S, pv.ISO), (INT, CANON, pv.EPOCH)):
        rows, bad = run(raw, delimiter=delimiter, quote=quote, kinds=kinds)
        assert len(rows) + len(bad) == len(lines)
