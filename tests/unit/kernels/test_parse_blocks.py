from __future__ import annotations

import datetime as dt
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.kernels import parse_blocks as pb

Row = tuple[int, int, int, int, int]  # movie, customer, star, day, line


def run(raw: bytes, columns: int = 3, movie: int = pb.NO_MOVIE) -> tuple[list[Row], list[tuple]]:
    """Parse all of ``raw``, going on behind bad lines: rows, and (line, code) of the bad ones."""
    buf = np.frombuffer(bytearray(raw), np.uint8)
    n = raw.count(b"\n") + 1
    state = np.array([0, 1, movie, 0], np.int64)
    user, item, day, line = (np.full(n, -9, np.int64) for _ in range(4))
    rating = np.full(n, -9, np.float32)
    bad = []
    while code := pb.parse_blocks(buf, columns, state, user, item, rating, day, line):
        bad.append((int(state[pb.LINE]), code))
        end = raw.find(b"\n", int(state[pb.POS]))
        state[pb.POS] = len(raw) if end < 0 else end + 1
        state[pb.LINE] += 1
        if code == pb.BAD_HEADER:
            state[pb.MOVIE] = pb.LOST_MOVIE
    assert state[pb.POS] == len(raw)
    rows = int(state[pb.ROWS])
    table = zip(item[:rows], user[:rows], rating[:rows], day[:rows], line[:rows], strict=True)
    return [tuple(map(int, row)) for row in table], bad


def oracle(raw: bytes, columns: int, movie: int = pb.NO_MOVIE) -> tuple[list[Row], list[int]]:
    """The same in plain Python: rows, and the lines of the bad ones."""
    rows, bad = [], []
    for number, line in enumerate(raw.split(b"\n"), 1):
        text = line.strip(b" \t\r").decode("latin-1")
        if not text:
            continue
        if text.endswith(":"):
            good = re.fullmatch(r"[0-9]+\s*:", text) and " " not in text and "\t" not in text
            good = good and "\r" not in text and int(text[:-1]) < 2**63
            movie = int(text[:-1]) if good else pb.LOST_MOVIE
            if not good:
                bad.append(number)
            continue
        fields = text.split(",")
        good = movie >= 0 and len(fields) == columns
        good = good and re.fullmatch("[0-9]+", fields[0]) and int(fields[0]) < 2**63
        star, day = -9, -9
        if good and columns == 3:
            good = re.fullmatch("[1-5]", fields[1])
            star = int(fields[1]) if good else 0
        if good and columns > 1:
            good = re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", fields[-1])
            try:
                day = (dt.date.fromisoformat(fields[-1]) - dt.date(1970, 1, 1)).days
            except ValueError:
                good = False
            good = good and -32768 <= day <= 32767
        if good:
            rows.append((movie, int(fields[0]), star, day, number))
        else:
            bad.append(number)
    return rows, bad


def test_three_layouts() -> None:
    rows, bad = run(b"1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n30878,4,2005-12-26\n")
    assert bad == []
    assert rows == [
        (1, 1488844, 3, 13032, 2),
        (1, 822109, 5, 12916, 3),
        (2, 30878, 4, 13143, 5),
    ]
    assert run(b"8:\n1046323,2005-12-19\n", 2) == ([(8, 1046323, -9, 13136, 2)], [])
    assert run(b"1:\n30878\n2647871", 1) == ([(1, 30878, -9, -9, 2), (1, 2647871, -9, -9, 3)], [])


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"", b"\n\n\n", b"\r\n\r\n", b" \n", b"\n \t\n"])
def test_line_ends(end: bytes) -> None:
    newline = b"\r\n" if b"\r" in end else b"\n"
    raw = newline.join([b"7:", b"5,3,2005-09-06", b"6,1,2005-09-07"]) + end
    assert run(raw) == ([(7, 5, 3, 13032, 2), (7, 6, 1, 13033, 3)], [])


def test_blank_lines_count_as_lines_but_are_no_rows() -> None:
    assert run(b"\n\n7:\n\n5,3,2005-09-06\n") == ([(7, 5, 3, 13032, 5)], [])


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"5,3", pb.BAD_FIELDS),
        (b"5", pb.BAD_FIELDS),
        (b"5,3,2005-09-06,1", pb.BAD_FIELDS),
        (b"x,3,2005-09-06", pb.BAD_USER),
        (b"-5,3,2005-09-06", pb.BAD_USER),
        (b",3,2005-09-06", pb.BAD_USER),
        (b"9223372036854775808,3,2005-09-06", pb.BAD_USER_RANGE),
        (b"5,0,2005-09-06", pb.BAD_STAR),
        (b"5,6,2005-09-06", pb.BAD_STAR),
        (b"5,,2005-09-06", pb.BAD_STAR),
        (b"5,3.0,2005-09-06", pb.BAD_STAR),
        (b"5,3,2005-02-29", pb.BAD_DATE),
        (b"5,3,2005-13-01", pb.BAD_DATE),
        (b"5,3,2005-09-6", pb.BAD_DATE),
        (b"5,3,", pb.BAD_DATE),
        (b"5,3,2005-09-06x", pb.BAD_DATE),
        (b"5,3,1812-09-06", pb.BAD_DATE_RANGE),
        (b"abc:", pb.BAD_HEADER),
        (b"1 2:", pb.BAD_HEADER),
        (b"9223372036854775808:", pb.BAD_HEADER),
        (b":", pb.BAD_HEADER),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_codes(line: bytes, code: int, last: bool) -> None:
    raw = b"1:\n7,1,2005-09-06\n" + line + (b"" if last else b"\n8,1,2005-09-06\n")
    rows, bad = run(raw)
    expected = [(3, code)]
    if code == pb.BAD_HEADER and not last:
        expected.append((4, pb.NO_HEADER))
    assert bad == expected
    assert [row[4] for row in rows] == ([2] if last or code == pb.BAD_HEADER else [2, 4])


def test_leap_day_is_a_day() -> None:
    assert run(b"1:\n5,3,2004-02-29\n")[1] == []


def test_data_before_a_header() -> None:
    assert run(b"5,3,2005-09-06\n")[1] == [(1, pb.NO_HEADER)]
    assert run(b"5,3,2005-09-06\n", movie=4)[0] == [(4, 5, 3, 13032, 1)]


_LINE = st.one_of(
    st.from_regex(r"[0-9]{1,3}:", fullmatch=True),
    st.from_regex(r"[0-9]{1,8},[1-5],200[0-5]-[01][0-9]-[0-3][0-9]", fullmatch=True),
    st.from_regex(r"[0-9]{1,8},[1-5],2005-0[1-9]-[12][0-8]", fullmatch=True),
    st.text("0123456789,-: \tx", max_size=24),
)


@given(st.lists(_LINE, max_size=12), st.sampled_from([1, 2, 3]), st.sampled_from(["\n", "\r\n"]))
def test_every_line_as_the_oracle_says(lines: list[str], columns: int, newline: str) -> None:
    raw = newline.join(lines).encode()
    rows, bad = run(raw, columns)
    assert (rows, [line for line, _ in bad]) == oracle(raw, columns)


@given(st.binary(max_size=200), st.sampled_from([1, 2, 3]))
def test_random_bytes(raw: bytes, columns: int) -> None:
    rows, bad = run(raw, columns)
    assert (rows, [line for line, _ in bad]) == oracle(raw, columns)
