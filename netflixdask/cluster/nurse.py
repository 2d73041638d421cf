"""A nurse of nannies: a preload that ends those whose scheduler is gone for good.

``dask worker ADDRESS --death-timeout 120 --preload-nanny netflixdask.cluster.nurse``; the clusters
that netflixdask starts over ssh and under SLURM load it.

A worker that loses its scheduler ends, and its nanny with it. A nanny that is just starting its
worker again is told by nobody. After ``death_timeout`` Dask cancels that start and closes the
nanny, which fails half way: ``WorkerProcess.kill`` knows no worker that is still ``starting``. The
nanny then stays, neither running nor closed, and so does its process, asleep for ever.

The nurse is a thread, as it has to outlive what hangs on the loop of the nannies.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import threading
import time
from typing import Any

import psutil
from distributed.comm import connect
from distributed.core import Status

LOOK = 2.0  # seconds between two looks at the nannies
ANSWER = 10.0  # seconds that a busy scheduler has to answer
END = 10.0  # seconds that Dask has to end a process whose nannies were told to close

logger = logging.getLogger(__name__)


@dataclasses.dataclass(eq=False)
class Patient:
    """A nanny that is watched."""

    nanny: Any
    well: float = dataclasses.field(default_factory=time.monotonic)
    """When it last had a worker, or a scheduler that a worker can come to."""
    given_up: bool = False

    def is_over(self) -> bool:
        """Tell whether Dask has nothing to do with it any more."""
        return self.nanny.status in (Status.closed, Status.failed)

    def is_up(self) -> bool:
        """Tell whether its worker has come to the scheduler; the rest is between those two."""
        worker = self.nanny.process
        running = worker is not None and worker.status == Status.running
        return running and self.nanny.status == Status.running

    def is_lost(self, scheduler: bool) -> bool:
        """Tell whether nothing has kept it for longer than its death timeout.

        Args:
            scheduler: whether the scheduler answers. One that is closing has no use for it.
        """
        now = time.monotonic()
        if self.is_up() or (scheduler and self.nanny.status != Status.closing):
            self.well = now
        return self.given_up or now > self.well + self.nanny.death_timeout

    def give_up(self) -> None:
        """Kill its worker and close it; may be called again."""
        if not self.given_up:
            self.given_up = True
            logger.error(
                "nanny %s ends: for %g s it has had no worker, nor a way to get one (scheduler %s)",
                self.nanny.address_safe,
                self.nanny.death_timeout,
                self.nanny.scheduler_addr,
            )
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self.nanny.loop.add_callback(self._close)
        # The worker may go at any moment.
        with contextlib.suppress(AttributeError, ProcessLookupError, psutil.Error):
            if (pid := self.nanny.process.pid) is not None:
                _kill_below(psutil.Process(pid))
                os.kill(pid, signal.SIGKILL)

    async def _close(self) -> None:
        """Close it as Dask closes one whose worker ends, where the worker has not ended before."""
        if self.is_over():
            return
        self.nanny.close_gracefully(reason="nurse")  # it starts no other worker
        await asyncio.sleep(LOOK)
        if self.nanny.status == Status.closing_gracefully:
            await self.nanny.close(reason="nurse")


_patients: list[Patient] = []
_lock = threading.Lock()


def dask_setup(nanny: Any) -> None:
    """Begin to watch; called by Dask when a nanny starts. Without a death timeout, nothing is done.

    The process of the nannies ends with the last of them that is given up, so nothing else should
    live in it: it is that of ``dask worker``.
    """
    if not nanny.death_timeout:
        return
    with _lock:
        _patients.append(Patient(nanny))
        if len(_patients) == 1:
            threading.Thread(target=_watch, name="nurse", daemon=True).start()


def _watch() -> None:
    """Look after the nannies of this process until all are closed, or none has any hope."""
    while True:
        time.sleep(LOOK)
        with _lock:
            _patients[:] = [patient for patient in _patients if not patient.is_over()]
            present = list(_patients)
            if not present:
                return
        # Those whose workers are up need no answer, and all of a process have the same scheduler.
        nanny = present[0].nanny
        scheduler = all(patient.is_up() for patient in present) or answers(
            nanny.scheduler_addr, nanny.connection_args, min(ANSWER, nanny.death_timeout)
        )
        lost = [patient for patient in present if patient.is_lost(scheduler)]
        for patient in lost:
            patient.give_up()
        if len(lost) == len(present):
            time.sleep(END)  # as a rule the process ends meanwhile, and this thread with it
            _kill_below(psutil.Process())
            os._exit(1)


def answers(address: str, options: dict[str, Any], seconds: float) -> bool:
    """Tell whether a scheduler takes a connection and greets."""

    async def ask() -> None:
        # Dask's own timeout ends with the connection; a scheduler that is stopped never greets.
        comm = await asyncio.wait_for(connect(address, timeout=seconds, **options), seconds)
        comm.abort()

    try:
        asyncio.run(ask())
    except Exception:  # whatever it is, it is no answer
        return False
    return True


def _kill_below(process: psutil.Process) -> None:
    """Kill all that a process has started."""
    for one in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
