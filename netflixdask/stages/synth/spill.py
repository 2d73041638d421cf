"""The way of generated ratings from users to movies: one spill file a task, read back by movies.

::

    users 0 .. 99      ──▶ spill/00000   | run 0 | run 1 | run 2 |      a run: some movies,
    users 100 .. 199   ──▶ spill/00001   | run 0 | run 1 | run 2 |      about as many ratings
                                            └───────┐
    words of run 0, sorted  ◀── every file's first part

So a task holds the ratings of one run only, however many there are in all. The files take eight
bytes a rating and lie in the staging folder, which all workers see.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import synth_text as kernel
from netflixdask.stages.synth.config import SynthConfig
from netflixdask.stages.synth.plan import SynthPlan, days_since_1970, plan_of
from netflixdask.store.parquet import below

FOLDER = "spill"

# Movies at which Kaggle's four files end, of 17,770.
COMBINED_ENDS = (4_499, 9_210, 13_367, 17_770)


def day_bits(config: SynthConfig) -> int:
    """Return the bits of a day less the first."""
    return max(1, (config.last_day - config.first_day).days.bit_length())


def movie_runs(
    plan: SynthPlan, layout: str, task_ratings: int
) -> tuple[NDArray[np.int64], list[int]]:
    """Cut the items into runs of nearly equal ratings.

    Args:
        plan: of the ratings.
        layout: in ``combined`` no run crosses the end of a file.
        task_ratings: about how many training ratings a run has.

    Returns:
        int64[n_runs + 1] edges of the runs (item numbers), and for each run the combined file
        that it goes to.
    """
    n_items = plan.config.n_items
    ends = np.cumsum(plan.wanted)
    n = max(1, round(int(ends[-1]) / task_ratings))
    cuts = [np.searchsorted(ends, ends[-1] * np.arange(1, n) // n) + 1]
    # A word has room for so many items of a run.
    most = 1 << (64 - kernel.USER_BITS - kernel.LOW_BITS - day_bits(plan.config))
    cuts.append(np.arange(most, n_items, most))
    bounds = np.array([round(n_items * end / COMBINED_ENDS[-1]) for end in COMBINED_ENDS])
    if layout == "combined":
        cuts.append(bounds)
    inner = np.unique(np.concatenate(cuts))
    inner = inner[(inner > 0) & (inner < n_items)]
    edges = np.concatenate([[0], inner, [n_items]]).astype(np.int64)
    owner = np.searchsorted(bounds[:-1], edges[:-1], side="right").tolist()
    return edges, owner


def spill_users(
    config: SynthConfig, edges: NDArray[np.int64], base: Path, index: int, first: int, stop: int
) -> NDArray[np.int64]:
    """Generate the ratings of a run of users and write them packed, by the run of their movie.

    Args:
        config: what to generate.
        edges: int64[n_runs + 1], of :func:`movie_runs`.
        base: the staging folder.
        index: number of the file.
        first: number of the first user.
        stop: number behind the last user.

    Returns:
        int64[n_runs + 1], where the words of each run start in the file.
    """
    made = plan_of(config).generate(first, stop)
    words = np.empty(len(made.rating), np.uint64)
    starts = kernel.pack_by_run(
        made.item_num,
        made.user_num,
        made.rating,
        made.day,
        made.label,
        days_since_1970(config.first_day),
        day_bits(config),
        edges,
        words,
    )
    path = _file(base, index)
    below(base, path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        words.tofile(temporary)
        temporary.replace(path)  # a task that runs twice puts the same bytes there
    finally:
        temporary.unlink(missing_ok=True)
    return starts


def read_run(base: Path, parts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Read the words of one run from all files, sorted: by movie, its users scattered.

    Args:
        base: the staging folder.
        parts: int64[n_files, 2], where the run starts and ends in each file.
    """
    ends = np.cumsum(parts[:, 1] - parts[:, 0])
    words = np.empty(int(ends[-1]), np.uint64)
    for index, (start, stop) in enumerate(parts.tolist()):
        with _file(base, index).open("rb") as stream:
            stream.seek(words.itemsize * start)
            stream.readinto(words[ends[index] - (stop - start) : ends[index]].data)
    words.sort()
    return words


def _file(base: Path, index: int) -> Path:
    return base / FOLDER / f"{index:05d}"
