"""How many runs the tuning of a baseline has. No import of torch: a job's price is counted from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

FIRST_RUNS = 12  # of the first schedule
FURTHER_RUNS = 4  # of each other one
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


def runs_by_tasks(schedules: Sequence[str], search: str, tasks: int) -> list[tuple[int, int]]:
    """(runs, tasks of each) of a baseline's tuning on so many tasks, but for the growth of grids at their edges.

    Halving keeps the best by either criterion: between one and two thirds of the candidates. Half as many again as one
    third are counted.
    """
    runs = runs_of(schedules)
    if search == "full":
        return [(runs, tasks)]
    rungs = rungs_of(tasks)
    found = [(runs, rungs[0])]
    for before, now in pairwise(rungs):
        runs = math.ceil(1.5 * runs / KEPT)
        found.append((runs, now - before))
    return found
