"""The nanny of the laptop's workers: it can be closed while it starts one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import distributed
from distributed.core import Status

LOOK = 0.05  # seconds between two looks at a process that was told to end


class LaptopNanny(distributed.Nanny):
    """A nanny that does not wait for a worker that it no longer wants.

    Dask's waits until its worker has started, and only then ends it. A worker that starts while
    its nanny is closing asks that nanny, which takes no more calls, and never has: a command whose
    worker died in its last second would then end a minute later, with an error.
    """

    async def kill(self, timeout: float = 5, reason: str = "nanny-kill") -> None:
        """End the worker process, at once if it is only starting and the nanny is closing."""
        started = self.process
        end = asyncio.get_running_loop().time() + timeout
        while (
            self.status == Status.closing
            and started is not None
            and started.status == Status.starting
            and asyncio.get_running_loop().time() < end
        ):
            if (pid := started.pid) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(LOOK)
        await super().kill(timeout=timeout, reason=reason)
