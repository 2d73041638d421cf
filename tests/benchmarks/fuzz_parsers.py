"""Random damage to files of ratings, for as long as it is let: no crash, no hang, no row lost.

    python tests/benchmarks/fuzz_parsers.py --minutes 10

Each round writes a good file in some layout, damages it, and reads it whole and in random cuts,
by ``on_error="fail"`` and ``"reject"``. It fails if a reader raises anything but an
:class:`~netflixdask.errors.InputError`, if rows and rejects do not add up to the lines, if two ways
of cutting differ, if the fast kernels and the plain ones differ, or if a round takes long.
A round is known by its seed: ``--seed N --rounds 1`` repeats it.
"""

from __future__ import annotations

import argparse
import faulthandler
import gzip
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from netflixdask.errors import InputError
from netflixdask.store.readers import blocks, delimited, open_source, runs
from netflixdask.store.readers.base import Source, wide_time

MAX_SECONDS = 60.0
"""A round of some milliseconds that takes as long as this hangs."""
_BLANK = b" \t\r"

Rows = list[tuple[Any, ...]]
Bad = list[tuple[int, str, str]]


@dataclass(frozen=True)
class Layout:
    """How a file of one layout is made, opened, and counted."""

    name: str
    make: Callable[[np.random.Generator], bytes]
    options: dict[str, Any]
    header: int
    """Lines that are no rows at the start of the text."""


def _day(rng: np.random.Generator) -> str:
    return str(np.datetime64(int(rng.integers(-32_768, 32_768)), "D"))


def _blocks(rng: np.random.Generator) -> bytes:
    lines = []
    for _ in range(int(rng.integers(1, 6))):
        lines.append(f"{rng.integers(1, 17_771)}:")
        lines += [
            f"{rng.integers(1, 2_649_430)},{rng.integers(1, 6)},{_day(rng)}"
            for _ in range(int(rng.integers(0, 40)))
        ]
    return "\n".join(lines).encode()


def _table(rng: np.random.Generator, mark: str, kind: str) -> bytes:
    lines = [mark.join(("user", "movie", "rating", "date"))] if mark != "::" else []
    halves = rng.random() < 0.5
    top = 10 ** int(rng.integers(1, 12))
    for _ in range(int(rng.integers(1, 120))):
        star = rng.integers(1, 11) / 2 if halves else rng.integers(1, 6)
        if kind == "date":
            when = _day(rng)
        elif kind == "iso":
            when = f"{_day(rng)}T12:{rng.integers(10, 60)}:00Z"
        else:
            when = str(rng.integers(0, 2**31 + 1000))
        row = (rng.integers(0, top), rng.integers(1, 200_000), star, when)
        lines.append(mark.join(map(str, row)))
    return "\n".join(lines).encode()


_NAMES = {"user": "user", "item": "movie", "rating": "rating", "time": "date"}
LAYOUTS = (
    Layout("combined_data_1.txt", _blocks, {"format": "combined"}, 0),
    Layout("r.csv", lambda rng: _table(rng, ",", "date"), _NAMES, 1),
    Layout("e.csv", lambda rng: _table(rng, ",", "epoch"), {**_NAMES, "ids": "int"}, 1),
    Layout("i.csv", lambda rng: _table(rng, ";", "iso"), _NAMES, 1),
    Layout("s.csv", lambda rng: _table(rng, "|", "date"), {**_NAMES, "ids": "string"}, 1),
    Layout("t.tsv", lambda rng: _table(rng, "\t", "epoch"), {**_NAMES, "format": "tsv"}, 1),
    Layout("ratings.dat", lambda rng: _table(rng, "::", "epoch"), {"format": "ml-1m"}, 0),
)

_PIECES = (
    *(
        b"\n",
        b"\r\n",
        b"\r",
        b"\n\n",
        b",",
        b"::",
        b":",
        b'"',
        b'""',
        b" ",
        b"\t",
        b"-",
        b".",
        b"\0",
    ),
    *(
        b"0",
        b"00",
        b"9" * 20,
        b"1e5",
        b"nan",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xe9",
        b"7:\n",
        b"x:\n",
    ),
    *(b"2005-02-29", b"9999-12-31", b"2147483648", b"-1", b"3.55", b"x" * 70, b"x" * 700),
)


def damage(raw: bytes, rng: np.random.Generator) -> bytes:
    """Change a text a little, somewhere."""
    for _ in range(int(rng.integers(0, 6))):
        at = int(rng.integers(0, len(raw) + 1))
        to = min(at + int(rng.geometric(0.2)), len(raw))
        match int(rng.integers(0, 7)):
            case 0:
                raw = raw[:at] + bytes(rng.integers(0, 256, to - at, np.uint8)) + raw[to:]
            case 1:
                raw = raw[:at] + raw[to:]
            case 2 | 3:
                raw = raw[:at] + _PIECES[rng.integers(len(_PIECES))] + raw[at:]
            case 4:
                raw = raw[:at]
            case 5:
                raw = raw[:at] + raw[max(at - 60, 0) : to] + raw[at:]
            case _:
                raw = raw.replace(b"\n", b"\r\n")
    return raw


def read(source: Source, target: int, on_error: Any) -> tuple[Rows, Bad]:
    """Return the rows of all chunks, and their rejects."""
    rows: Rows = []
    bad: Bad = []
    for chunk in source.chunks(target):
        for part in chunk.parts(on_error):
            r = part.ratings
            columns: list[Any] = [r.user_id, r.item_id, r.rating]
            if r.time is not None:
                columns.append(wide_time(r.time))
            rows += zip(*(column.tolist() for column in columns), strict=True)
            bad += [(one.line, one.text, one.reason) for one in part.rejects]
            assert part.n_rows == len(r) + len(part.rejects)
    return rows, bad


def outcome(path: Path, layout: Layout, target: int, on_error: str) -> tuple[Rows, Bad] | None:
    """Read a file; None if it is refused."""
    try:
        return read(open_source(path, **layout.options), target, on_error)
    except InputError:
        return None


def check(raw: bytes, layout: Layout, folder: Path, rng: np.random.Generator) -> str:
    """Read one damaged file in every way, and say how it ended."""
    path = folder / layout.name
    path.write_bytes(raw)
    if layout.options.get("format") == "ml-1m":
        (folder / "tags.dat").write_text("half stars")
    packed = folder / f"{layout.name}.gz"
    packed.write_bytes(gzip.compress(raw, 1))
    whole = outcome(path, layout, 1 << 24, "reject")
    strict = outcome(path, layout, 1 << 24, "fail")
    for _ in range(2):
        target = int(rng.integers(1, len(raw) + 2))
        with (
            mock.patch.object(runs, "BLOCK", int(rng.integers(48, 3_000))),
            mock.patch.object(runs, "LEAST", int(rng.integers(1, 100))),
            mock.patch.object(runs, "_spare", []),
        ):
            assert outcome(path, layout, target, "reject") == whole, "another cut, other rows"
            assert outcome(packed, layout, target, "reject") == whole, "packed, other rows"
    with mock.patch.object(blocks, "SWAR", False), mock.patch.object(delimited, "SWAR", False):
        assert outcome(path, layout, 1 << 24, "reject") == whole, "the plain kernel differs"
    if whole is None:
        assert strict is None, "refused by on_error='reject' only"
        return "refused"
    rows, bad = whole
    assert (strict is None) == bool(bad), "on_error='fail' and 'reject' differ"
    assert strict is None or strict == whole
    count_lines(raw, layout, len(rows), bad)
    return "rejects" if bad else "whole"


def count_lines(raw: bytes, layout: Layout, n_rows: int, bad: Bad) -> None:
    """Check that every line is a row, a reject, a header or blank."""
    text = raw.removeprefix(b"\xef\xbb\xbf")
    lines = [line.strip(_BLANK) for line in text.split(b"\n")]
    filled = [line for line in lines if line][layout.header :]
    headers = 0
    if layout.make is _blocks:
        refused = Counter(reason for _, _, reason in bad)["a header that is no movie number"]
        headers = sum(line.endswith(b":") for line in filled) - refused
    assert n_rows + len(bad) + headers == len(filled), "rows and rejects do not add up"
    assert len({line for line, _, _ in bad}) == len(bad), "a line refused twice"


def main() -> int:
    """Run rounds until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=None, help="stop after so many")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    args = parser.parse_args()
    faulthandler.enable()
    end = time.monotonic() + 60 * args.minutes
    ended: Counter[str] = Counter()
    seed = args.seed
    longest = 0.0
    while time.monotonic() < end and (args.rounds is None or seed - args.seed < args.rounds):
        rng = np.random.default_rng(seed)
        layout = LAYOUTS[rng.integers(len(LAYOUTS))]
        raw = damage(layout.make(rng), rng)
        faulthandler.dump_traceback_later(MAX_SECONDS, exit=True)
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                ended[f"{layout.name} {check(raw, layout, Path(folder), rng)}"] += 1
            except BaseException:
                sys.stderr.write(f"seed {seed}, {layout.name}: {raw!r}\n")
                raise
        if seed > args.seed:  # the first may compile
            longest = max(longest, time.monotonic() - begin)
        seed += 1
    faulthandler.cancel_dump_traceback_later()
    for name, count in sorted(ended.items()):
        sys.stdout.write(f"{count:8,}  {name}\n")
    sys.stdout.write(f"{seed - args.seed:8,}  rounds, the longest {longest:.2f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
