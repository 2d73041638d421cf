"""Megabytes of text a second and core: the parsing kernels alone, every row checked.

    python tests/benchmarks/parse_speed.py

The text is made up (customers, stars and days of the prize's ranges) and lies in memory. Each
figure is the best of many runs in processor time of this thread, after the kernels are compiled.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from netflixdask.kernels import parse_block_runs, parse_delimited_runs
from netflixdask.kernels import parse_values as values
from netflixdask.kernels.parse_swar import PAD, SWAR
from netflixdask.store.readers.rowbuffer import RowBuffer
from netflixdask.store.readers.textform import TextForm

RUNS = 200
N_MOVIES = 10
N_RATINGS = 6_000
"""Of each movie; the text then fits a core's second cache, as the readers' blocks do."""
NAMES = ("movie", "user", "rating", "time")


def texts() -> dict[str, bytes]:
    """Return the same ratings in every form."""
    rng = np.random.default_rng(0)
    block, table, seconds = [], [], []
    for movie in rng.integers(1, 17_771, N_MOVIES):
        block.append(f"{movie}:")
        users, stars = rng.integers(1, 2_649_430, N_RATINGS), rng.integers(1, 6, N_RATINGS)
        days = rng.integers(10_900, 13_148, N_RATINGS)
        for user, star, day in zip(users, stars, days, strict=True):
            date = np.datetime64(int(day), "D")
            block.append(f"{user},{star},{date}")
            table.append(f"{movie},{user},{star},{date}")
            seconds.append(f"{movie},{user},{star - user % 2 / 2},{day * 86_400 + user % 86_400}")
    lines = {"blocks": block, "date": table, "seconds": seconds}
    return {name: ("\n".join(some) + "\n").encode() for name, some in lines.items()}


def best(name: str, size: int, n_rows: int, parse: Callable[[], None]) -> float:
    """Time a call, report it, and return its bytes a second."""
    start = time.perf_counter()
    parse()
    first = time.perf_counter() - start
    fastest = float("inf")
    for _ in range(RUNS):
        start = time.thread_time()
        parse()
        fastest = min(fastest, time.thread_time() - start)
    sys.stdout.write(
        f"{name:32} {size / fastest / 1e6:8,.0f} MB/s {fastest / n_rows * 1e9:7.1f} ns a row"
        f"   (first call {first:.1f} s)\n"
    )
    return size / fastest


def padded(text: bytes) -> np.ndarray:
    """Return the text with room behind it for the kernels' loads."""
    return np.frombuffer(bytearray(text + bytes(PAD)), np.uint8)


def blocks(text: bytes, *, swar: bool) -> Callable[[], None]:
    """Return the parse of text under movie headers."""
    buffer, rows = padded(text), RowBuffer(len(text) // parse_block_runs.SHORTEST)
    start, stop = np.zeros(1, np.int64), np.array([len(text)])

    def parse() -> None:
        state = np.array([0, 1, -1, 0, 0])
        code = parse_block_runs.parse_block_runs(
            buffer, start, stop, start - 1, np.ones(1, np.uint8), swar, rows.largest, state,
            rows.user, rows.item, rows.star, rows.time, rows.scratch, rows.stars,
        )  # fmt: skip
        assert code == parse_block_runs.DONE
        assert state[3] == N_MOVIES * N_RATINGS

    return parse


def delimited(text: bytes, delimiter: str, kind: int, *, swar: bool) -> Callable[[], None]:
    """Return the parse of delimited text."""
    kinds = (values.CANONICAL_INT, values.CANONICAL_INT, kind)
    form = TextForm(names=NAMES, columns=(1, 0, 2, 3), delimiter=delimiter, kinds=kinds)
    buffer, rows = padded(text), RowBuffer(len(text) // form.shortest)
    packed, limits = form.packed()
    if kind == values.EPOCH:
        rows.to_floats(0)

    def parse() -> None:
        state = np.array([0, 1, 0])
        code = parse_delimited_runs.parse_delimited_runs(
            buffer, len(text), packed, limits, form.tenths(), swar, rows.largest, state,
            rows.user, rows.item, rows.star, rows.rating, rows.time, rows.scratch, rows.stars,
        )  # fmt: skip
        assert code == 0
        assert state[2] == N_MOVIES * N_RATINGS

    return parse


def main() -> None:
    """Report every kernel."""
    made = texts()
    n = N_MOVIES * N_RATINGS
    colons = made["seconds"].replace(b",", b"::")
    for swar in (True, False) if SWAR else (False,):
        how = "" if swar else ", line by line"
        text = made["blocks"]
        best(f"movie headers{how}", len(text), n, blocks(text, swar=swar))
        for name, raw, mark, kind in (
            ("CSV with dates", made["date"], ",", values.DATE),
            ("CSV with seconds, half stars", made["seconds"], ",", values.EPOCH),
            (":: with seconds, half stars", colons, "::", values.EPOCH),
        ):
            best(name + how, len(raw), n, delimited(raw, mark, kind, swar=swar))


if __name__ == "__main__":
    main()
