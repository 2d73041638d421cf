"""Plans: what a verb would read, hold, move, write and take, worked out before anything starts.

::

    Machines   the workers: of a name such as laptop:2, of a running scheduler, of an engine
    Step       one stage: rows, blocks, tasks, memory, bytes moved, disk, work
    Rates      the work that a core does in a second, as it was measured
    Plan       the steps of a verb on some machines; refuses what does not fit

What a step holds stands beside the stage that it plans, and asks the same functions that the
stage asks how to cut its tasks. A stage checks its own plan before it starts.
"""

from __future__ import annotations

from netflixdask.plan.machines import Machines, machines_of
from netflixdask.plan.rates import Rates, load_rates
from netflixdask.plan.step import Plan, Step, joined, refuse

__all__ = ["Machines", "Plan", "Rates", "Step", "joined", "load_rates", "machines_of", "refuse"]
