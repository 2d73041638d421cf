from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.kernels import parse_block_runs as br
from netflixdask.kernels import parse_blocks as pb
from netflixdask.kernels.parse_swar import PAD, SWAR

Row = tuple[int, int, int, int]  # movie, customer, star, day


def run(
    texts: list[bytes], swar: bool = SWAR, room: int | None = None, wide: bool = False
) -> tuple[list[Row], list[tuple[int, int, int]]]:
    """Parse texts side by side: rows, and (text, line, code) of the bad lines."""
    raw = b"".join(texts)
    buf = np.frombuffer(bytearray(raw) + b"7" * PAD, np.uint8)
    stop = np.cumsum([len(text) for text in texts]).astype(np.int64)
    start = stop - [len(text) for text in texts]
    movie = np.full(len(texts), pb.NO_MOVIE, np.int64)
    whole = np.zeros(len(texts), np.uint8)
    n = raw.count(b"\n") + len(texts) if room is None else room
    kind: Any = np.int64 if wide else np.int32
    user, item, day = (np.full(n, -9, kind) for _ in range(3))
    star = np.full(n, 99, np.uint8)
    scratch, stars = np.empty((9, br.BURST), np.int64), np.empty(br.BURST, np.float32)
    state = np.array([start[0], 1, pb.NO_MOVIE, 0, 0], np.int64)
    rows: list[Row] = []
    bad = []
    largest = int(np.iinfo(kind).max)
    while True:
        code = br.parse_block_runs(
            buf, start, stop, movie, whole, swar, largest, state,
            user, item, star, day, scratch, stars,
        )  # fmt: skip
        done = int(state[pb.ROWS])
        if code in (pb.DONE, br.FULL):
            columns = (item, user, star, day)
            rows += zip(*(column[:done].tolist() for column in columns), strict=True)
            if code == pb.DONE:
                return rows, bad
            state[pb.ROWS] = 0
            continue
        if code == br.WIDE:
            assert not wide
            return run(texts, swar, room, wide=True)
        text = int(state[br.RUN])
        bad.append((text, int(state[pb.LINE]), code))
        end = raw.find(b"\n", int(state[pb.POS]), stop[text])
        state[pb.POS] = stop[text] if end < 0 else end + 1
        state[pb.LINE] += 1
        if code == pb.BAD_HEADER:
            state[pb.MOVIE] = pb.LOST_MOVIE


def plain(texts: list[bytes]) -> tuple[list[Row], list[tuple[int, int, int]]]:
    """The same by ``parse_blocks``, text by text."""
    rows, bad = [], []
    for number, raw in enumerate(texts):
        buf = np.frombuffer(bytearray(raw), np.uint8)
        n = raw.count(b"\n") + 1
        state = np.array([0, 1, pb.NO_MOVIE, 0], np.int64)
        user, item, day, line = (np.empty(n, np.int64) for _ in range(4))
        rating = np.empty(n, np.float32)
        while code := pb.parse_blocks(buf, 3, state, user, item, rating, day, line):
            bad.append((number, int(state[pb.LINE]), code))
            end = raw.find(b"\n", int(state[pb.POS]))
            state[pb.POS] = len(raw) if end < 0 else end + 1
            state[pb.LINE] += 1
            if code == pb.BAD_HEADER:
                state[pb.MOVIE] = pb.LOST_MOVIE
        done = int(state[pb.ROWS])
        columns = (item[:done], user[:done], rating[:done].astype(int), day[:done])
        rows += zip(*(column.tolist() for column in columns), strict=True)
    return rows, bad


def test_usual_lines() -> None:
    text = b"1:\n1488844,3,2005-09-06\n5,5,1900-01-01\n17770:\n2649429,1,2058-12-31\n"
    expected = [(1, 1488844, 3, 13032), (1, 5, 5, -25567), (17770, 2649429, 1, 32506)]
    for swar in {False, SWAR}:
        assert run([text], swar) == (expected, [])


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n", b" \n"])
@pytest.mark.parametrize("date", [b"1899-12-31", b"1900-03-01", b"2004-02-29", b"2059-09-18"])
@pytest.mark.parametrize("user", [b"1", b"007", b"1234567", b"12345678", b"2147483648", b"9" * 18])
def test_unusual_lines_in_between(user: bytes, date: bytes, end: bytes) -> None:
    text = b"7:\n1,1,2005-09-06\n" + user + b",3," + date + end
    assert run([text]) == plain([text])
    assert run([text])[0][1][:3] == (7, int(user), 3)


def test_texts_have_their_own_movie_and_lines() -> None:
    texts = [b"1:\n5,3,2005-09-06", b"", b"6,3,2005-09-06\n2:\n7,3,2005-09-06\n", b"x"]
    rows, bad = run(texts)
    assert rows == [(1, 5, 3, 13032), (2, 7, 3, 13032)]
    assert bad == [(2, 1, pb.NO_HEADER), (3, 1, pb.NO_HEADER)]


def test_a_text_without_a_header_is_told() -> None:
    buf = np.frombuffer(bytearray(b"\n\n" + bytes(PAD)), np.uint8)
    one = np.zeros(1, np.int64)
    state = np.array([0, 1, pb.NO_MOVIE, 0, 0], np.int64)
    columns = [np.empty(4, np.int32), np.empty(4, np.int32), np.empty(4, np.uint8)]
    code = br.parse_block_runs(
        buf, one, one + 2, one - 1, np.ones(1, np.uint8), SWAR, 2**31 - 1, state,
        *columns, np.empty(4, np.int32), np.empty((9, br.BURST), np.int64),
        np.empty(br.BURST, np.float32),
    )  # fmt: skip
    assert code == br.EMPTY


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_many_lines(newline: bytes) -> None:
    rng = np.random.default_rng(3)
    lines = [b"9:"]
    for user, star, day in rng.integers((1, 1, 10_900), (2_649_430, 6, 13_148), (5_000, 3)):
        date = str(np.datetime64(int(day), "D")).encode()
        lines.append(b"%d,%d,%s" % (user, star, date))
    text = newline.join(lines)
    rows, bad = run([text])
    assert (rows, bad) == plain([text])
    assert len(rows) == 5_000
    assert run([text], room=77) == (rows, bad)


@pytest.mark.skipif(not SWAR, reason="the words are little-endian")
@given(st.integers(0, 27), st.integers(0, 255))
def test_any_byte_of_a_usual_line_is_checked(place: int, byte: int) -> None:
    text = bytearray(b"77:\n2649429,3,2004-02-29\n8,1,2005-09-06\n")
    text[place] = byte
    assert run([bytes(text)]) == plain([bytes(text)])


_LINE = st.one_of(
    st.from_regex(r"[0-9]{1,3}:", fullmatch=True),
    st.from_regex(r"[0-9]{1,11},[1-5],200[0-5]-[01][0-9]-[0-3][0-9]", fullmatch=True),
    st.from_regex(r"[0-9]{1,8},[1-5],2005-0[1-9]-[12][0-8]", fullmatch=True),
    st.from_regex(r"[0-9]{1,8},[0-6],[0-9]{4}-[0-9]{2}-[0-9]{2}", fullmatch=True),
    st.text("0123456789,-: \tx", max_size=24),
)
_TEXT = st.tuples(st.lists(_LINE, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans()).map(
    lambda t: (t[1].join(t[0]) + (t[1] if t[2] else "")).encode()
)


@given(st.lists(_TEXT, min_size=1, max_size=4), st.integers(1, 5))
def test_every_line_as_the_plain_kernel_says(texts: list[bytes], room: int) -> None:
    expected = plain(texts)
    assert run(texts) == expected
    assert run(texts, swar=False) == expected
    assert run(texts, room=room) == expected


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=3))
def test_random_bytes(texts: list[bytes]) -> None:
    assert run(texts) == plain(texts)
