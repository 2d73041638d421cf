from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.kernels import parse_values as pv


def buffer(text: str) -> tuple[np.ndarray, int, int]:
    """The text between two bytes that a kernel must not look at."""
    raw = text.encode()
    return np.frombuffer(bytearray(b"7" + raw + b"7"), np.uint8), 1, 1 + len(raw)


@given(st.integers(-(2**70), 2**70))
def test_int_value_is_python_int(number: int) -> None:
    value, code = pv.int_value(*buffer(str(number)))
    if abs(number) <= np.iinfo(np.int64).max:
        assert (value, code) == (number, pv.OK)
    else:
        assert code == pv.BAD_RANGE


@pytest.mark.parametrize("text", ["", "-", "+1", "1 ", " 1", "1.0", "1e3", "abc", "1a", "--1", "٣"])
def test_int_value_refuses(text: str) -> None:
    assert pv.int_value(*buffer(text))[1] == pv.BAD_TEXT


@pytest.mark.parametrize(("text", "number"), [("007", 7), ("-01", -1), ("00", 0), ("-0", 0)])
def test_int_value_flags_zeros(text: str, number: int) -> None:
    assert pv.int_value(*buffer(text)) == (number, pv.BAD_ZEROS)


def test_int_value_prefers_text_over_range() -> None:
    assert pv.int_value(*buffer("9" * 30 + "x"))[1] == pv.BAD_TEXT


@given(st.dates())
def test_day_value_is_the_calendar(day: dt.date) -> None:
    expected = (day - dt.date(1970, 1, 1)).days
    value, code = pv.day_value(*buffer(day.isoformat()))
    if -32768 <= expected <= 32767:
        assert (value, code) == (expected, pv.OK)
    else:
        assert code == pv.BAD_RANGE


@given(st.integers(0, 2100), st.integers(0, 99), st.integers(0, 99))
def test_day_value_knows_which_days_exist(year: int, month: int, day: int) -> None:
    text = f"{year:04d}-{month:02d}-{day:02d}"
    try:
        dt.date(year, month, day)
    except ValueError:
        assert pv.day_value(*buffer(text))[1] == pv.BAD_TEXT
    else:
        assert pv.day_value(*buffer(text))[1] in (pv.OK, pv.BAD_RANGE)


@pytest.mark.parametrize(
    "text", ["2005-9-06", "2005/09/06", "20050906", "2005-09-0a", "2005-09-061", "", "-005-09-06"]
)
def test_day_value_refuses(text: str) -> None:
    assert pv.day_value(*buffer(text))[1] == pv.BAD_TEXT


@given(st.datetimes(dt.datetime(1881, 1, 1), dt.datetime(2059, 1, 1)), st.sampled_from("T "))
def test_iso_value_is_utc_seconds(moment: dt.datetime, between: str) -> None:
    moment = moment.replace(tzinfo=dt.UTC)
    seconds = int((moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(seconds=1))
    plain = moment.strftime(f"%Y-%m-%d{between}%H:%M:%S")
    for text in (plain, plain + "Z", plain + ".25", plain + ".999999Z", plain + "+00:00"):
        assert pv.iso_value(*buffer(text)) == (seconds, pv.OK)
    assert pv.iso_value(*buffer(plain + "+02:30")) == (seconds - 9_000, pv.OK)
    assert pv.iso_value(*buffer(plain + "-0230")) == (seconds + 9_000, pv.OK)


@pytest.mark.parametrize(
    "text",
    [
        "2005-09-06",
        "2005-09-06T24:00:00",
        "2005-09-06T23:60:00",
        "2005-09-06T23:59:60",
        "2005-09-06T23:59",
        "2005-09-06_23:59:59",
        "2005-09-06T23:59:59.",
        "2005-09-06T23:59:59X",
        "2005-09-06T23:59:59+2",
        "2005-09-06T23:59:59+25:00",
        "2005-02-30T23:59:59",
        "2005-09-06T2a:59:59",
    ],
)
def test_iso_value_refuses(text: str) -> None:
    assert pv.iso_value(*buffer(text))[1] == pv.BAD_TEXT


def test_iso_value_range() -> None:
    assert pv.iso_value(*buffer("2059-09-18T23:59:59Z"))[1] == pv.OK
    assert pv.iso_value(*buffer("2059-09-19T00:00:00Z"))[1] == pv.BAD_RANGE
    assert pv.iso_value(*buffer("2059-09-18T23:59:59-01:00"))[1] == pv.BAD_RANGE
    assert pv.iso_value(*buffer("9999-09-18T23:59:59Z"))[1] == pv.BAD_RANGE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (0, pv.OK)),
        ("881250949", (881250949, pv.OK)),
        ("881250949.0", (881250949, pv.OK)),
        ("881250949.", (881250949, pv.OK)),
        ("-1", (pv.NULL, pv.OK)),
        ("-2", (-2, pv.OK)),
        ("2831155199", (2831155199, pv.OK)),
        ("881250949.5", (0, pv.BAD_TEXT)),
        (".0", (0, pv.BAD_TEXT)),
        ("noon", (0, pv.BAD_TEXT)),
        ("2831155200", (0, pv.BAD_RANGE)),
        ("881250949000", (0, pv.BAD_RANGE)),
        ("9" * 25, (0, pv.BAD_RANGE)),
    ],
)
def test_epoch_value(text: str, expected: tuple[int, int]) -> None:
    value, code = pv.epoch_value(*buffer(text))
    assert code == expected[1]
    if code == pv.OK:
        assert value == expected[0]


def test_time_value_is_unknown_when_empty() -> None:
    for kind in (pv.DATE, pv.EPOCH, pv.ISO):
        assert pv.time_value(*buffer(""), kind) == (pv.NULL, pv.OK)


@given(st.integers(-(10**9), 10**9), st.integers(0, 8))
def test_decimal_value_is_python_float(mantissa: int, digits: int) -> None:
    text = f"{mantissa / 10**digits:.{digits}f}"
    assert pv.decimal_value(*buffer(text)) == (float(text), pv.OK)


@given(st.floats(-(2.0**100), 2.0**100, width=32, allow_nan=False, allow_infinity=False))
def test_decimal_value_of_any_repr(number: float) -> None:
    value, code = pv.decimal_value(*buffer(repr(number)))
    assert code == pv.OK
    assert np.float32(value) == pytest.approx(np.float32(number), rel=1e-6)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("4", 4.0),
        ("4.5", 4.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("+3", 3.0),
        ("-0.5", -0.5),
        ("1e1", 10.0),
        ("1E+1", 10.0),
        ("25e-1", 2.5),
        ("0.000", 0.0),
        ("0e99999999999999999999", 0),
        ("3.50000000000000000000000001", 3.5),
        ("1e-400", 0.0),
        ("00004.50", 4.5),
    ],
)
def test_decimal_value(text: str, number: float) -> None:
    assert pv.decimal_value(*buffer(text)) == (number, pv.OK)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "-",
        "nan",
        "inf",
        "-inf",
        "NaN",
        "1,5",
        "1.2.3",
        "1e",
        "1e+",
        "1e+-2",
        "e5",
        "0x1",
        "4 ",
        "a",
        "4a",
        "a.5",
        "4.a",
        "*",
        "4/5",
        "4.:",
    ],
)
def test_decimal_value_refuses(text: str) -> None:
    assert pv.decimal_value(*buffer(text))[1] == pv.BAD_TEXT


@pytest.mark.parametrize("text", ["3.5e38", "1e39", "1e400", "-1e39", "9" * 60, "1e" + "9" * 30])
def test_decimal_value_refuses_what_float32_cannot_hold(text: str) -> None:
    assert pv.decimal_value(*buffer(text))[1] == pv.BAD_RANGE


@given(st.lists(st.text("0123456789-T:. Zx", max_size=22), max_size=20))
def test_convert_texts_is_the_single_functions(texts: list[str]) -> None:
    data = np.frombuffer(bytearray("".join(texts).encode()), np.uint8)
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    out, code = np.empty(len(texts), np.int64), np.empty(len(texts), np.uint8)
    for kind in (pv.INT, pv.CANONICAL_INT, pv.DATE, pv.EPOCH, pv.ISO):
        pv.convert_texts(data, offsets, kind, out, code)
        for i, text in enumerate(texts):
            if kind in (pv.INT, pv.CANONICAL_INT):
                value, found = pv.int_value(*buffer(text))
                if kind == pv.INT and found == pv.BAD_ZEROS:
                    found = pv.OK
            else:
                value, found = pv.time_value(*buffer(text), kind)
            assert code[i] == found
            assert found != pv.OK or out[i] == value
