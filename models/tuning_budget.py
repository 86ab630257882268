"""How many runs the tuning of a baseline has. No import of torch: a job's price is counted from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

FIRST_RUNS = 12  # of the first schedule
FURTHER_RUNS = 4  # of each other one
GRID = 5
"""How many learning rates of the first schedule are tried before the first choice."""
AROUND = 3
"""How many of each other schedule are tried around the best of the first."""
CRITERIA = ("final", "area")

KEPT = 3
"""Successive halving: one of so many candidates goes on, for each criterion."""
SHARES = (4, 2, 1)
"""Successive halving: a rung runs on the tasks of the sample divided by this."""


def runs_of(schedules: Sequence[str]) -> int:
    """How many runs every baseline's sweep over these schedules has."""
    return FIRST_RUNS + FURTHER_RUNS * (len(schedules) - 1)


def rungs_of(tasks: int) -> list[int]:
    """The numbers of tasks that candidates run on one after the other in a halving, in rising order."""
    return sorted({max(1, tasks // share) for share in SHARES})


def batches_of(schedules: Sequence[str], search: str, tasks: int) -> list[tuple[int, int]]:
    """(settings that run side by side, tasks of each) of a baseline's tuning on so many tasks, but for the growth of
    grids at their edges.

    Halving keeps the best by either criterion: between one and two thirds of the candidates. Half of them are counted.
    """
    others = len(schedules) - 1
    grids = [GRID, *([1] * (FIRST_RUNS - GRID))] + ([AROUND * others] if others else [])
    grids += [1] * (runs_of(schedules) - sum(grids))
    if search == "full":
        return [(together, tasks) for together in grids]
    rungs = rungs_of(tasks)
    found = [(together, rungs[0]) for together in grids]
    kept = sum(grids)
    for before, now in pairwise(rungs):
        kept = math.ceil(1.5 * kept / KEPT)
        found.append((kept, now - before))
    return found
