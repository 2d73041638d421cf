"""What a person is told when a cluster fails, and how long a run waits before it says so.

Workers come and go without a word: what they held or did is done again elsewhere, with the same
result. A run ends when nobody is left to do it, when the same task ends worker after worker, or
when the scheduler, which alone knows what is where, is gone. Then the same command goes on from the
artifacts that are complete and from the last checkpoint.
"""

from __future__ import annotations

import re
from typing import Any

import distributed

from netflixdask.errors import ClusterError, StageError

SCHEDULER_TIMEOUT = 120.0
"""Seconds a scheduler that is connected may leave a question unanswered. One whose process ends is
missed at once, one whose link is cut after ``distributed.comm.timeouts.tcp``, 30 s."""
WORKERS_TIMEOUT = 300.0
"""Seconds that a run waits while no worker at all can take a task."""
FETCH_TIMEOUT = 600.0
"""Seconds that the results of a step may take to this process, once they are there."""
WORKER_ANSWERS = 30.0
"""Seconds that a worker may take to say what it sees of the folders of a run."""
PULSE = 5.0
"""Seconds between two looks at the cluster, while a run waits for it."""

_GROUP = re.compile(r"(.+)-[0-9a-f]{6}x\d+")
OVER_MEMORY = "worker-restart-memory"  # the topic under which nannies tell of it


def task_name(key: Any) -> str:
    """Return a task's key as people read it, such as ``similarity-map 3``."""
    group, *where = key if isinstance(key, tuple) else (key,)
    found = _GROUP.fullmatch(str(group))
    numbers = ", ".join(str(number) for number in where)
    return f"{found[1] if found else group} {numbers}".strip()


def scheduler_gone(stage: str, address: str, why: str) -> ClusterError:
    """Return the error of a scheduler that does not answer any more."""
    return ClusterError(
        f"{stage}: the scheduler at {address} is gone ({why}); start it, and its workers, and run "
        "the same command again: complete stages are skipped, a fit goes on from its checkpoint"
    )


def tasks_dropped(stage: str, why: str) -> StageError:
    """Return the error of a scheduler that has dropped tasks which it had been given."""
    return StageError(
        f"{stage}: the scheduler has dropped tasks ({why}); expected the same code everywhere, and "
        "that nobody else cancels them ('netflixdask doctor --cluster ADDRESS' compares); run the "
        "same command again: complete stages are skipped"
    )


def no_workers(stage: str, address: str, paused: int, limit: int) -> ClusterError:
    """Return the error of a cluster in which no worker takes a task.

    Args:
        stage: the stage that waits.
        address: of the scheduler.
        paused: workers that are there, and take none as their memory is full.
        limit: bytes that one of these may use.
    """
    again = "run the same command again: complete stages are skipped"
    waited = f"{WORKERS_TIMEOUT:g} s"
    if not paused:
        return ClusterError(
            f"{stage}: no worker has been at the scheduler {address} for {waited}; start some with "
            f"'dask worker {address}' and {again}"
        )
    return ClusterError(
        f"{stage}: the memory of all {paused} workers has been full for {waited}, so that they "
        f"take no task (limit of one: {_size(limit)}); give each more memory (memory_limit=, "
        f"'dask worker --memory-limit') or fewer threads, and {again}"
    )


def workers_died(
    stage: str, error: distributed.KilledWorker, events: Any, lower: str
) -> StageError:
    """Return the error of a task on which worker after worker died.

    Args:
        stage: the stage.
        error: what Dask says.
        events: what nannies said of workers over their limit, as ``Client.get_events`` has it.
        lower: options that lower what a task of the stage needs.
    """
    worker = error.last_worker
    died = f"{stage}: task {task_name(error.task)}: {error.allowed_failures + 1} workers died on it"
    told = [event for _, event in events or ()]
    if not any(event.get("worker") in (worker.address, worker.nanny) for event in told):
        return StageError(
            f"{died} one after the other, the last one at {worker.address}, and none said why: "
            "look into its log, and whether the machine ran out of memory or a file that the task "
            "reads is odd; then run the same command again: complete stages are skipped"
        )
    options = f", or lower what a task needs: {lower}" if lower else ""
    return StageError(
        f"{died} as it took more than their memory limit of {_size(worker.memory_limit)}; give "
        "each worker more memory (memory_limit=, 'dask worker --memory-limit') or fewer threads"
        f"{options}; then run the same command again: complete stages are skipped"
    )


def _size(n: int) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"
