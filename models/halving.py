"""The tuning of a baseline by successive halving (Jamieson and Talwalkar 2016): most learning rates see few tasks.

The candidates are those of `models.tuning`: the same schedules, the grid that grows at its edges and is halved around
the best point. They run on a quarter of the tuning tasks. The best third by either criterion goes on to half of the
tasks, and the best third of those to all of them. Where the best of these is at the edge of its schedule's grid, the
grid grows on all tasks. No run is shorter than the horizon, for a schedule knows its length.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Mapping, Sequence

import torch
from torch import Tensor

from models.baselines.base import Tunable
from models.looks import looks
from models.rollout import Sample
from models.task_spec import LossesOn
from models.tasks.base import Family
from models.tuned import Tuned, run_side_by_side
from models.tuning import GRID_LIMIT, GridPoint, Pair, Tuning, candidates, learning_rate
from models.tuning_budget import CRITERIA, KEPT, rungs_of

MOST_GROWTH = 6
"""How often the grid may grow on all tasks."""


def tune_by_halving(
    baseline: Tunable,
    family: Family,
    sample: Sample,
    horizon: int,
    schedules: Sequence[str],
    *,
    on: LossesOn = "training",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Generator[GridPoint | None, None, Tuning]:
    """Sweep schedules and learning rates on the tasks of `sample`; returns the Tuning, whose best points were measured
    on all of them.

    on: as in `models.tuning.tune`

    Yields None after each inner step, so that a caller can look at the clock, and each candidate's first grid point.
    """
    sweep = _Sweep(baseline, family, sample, horizon, on, dtype, device)
    rungs = rungs_of(sample.tasks)
    for pairs in candidates(baseline.centre, schedules, sweep.points):
        yield from sweep.measure(pairs, rungs[0])
        for pair in pairs:
            yield sweep.points[pair]
    pairs = list(sweep.points)
    for tasks in rungs[1:]:
        pairs = _best_of(pairs, sweep.points)
        yield from sweep.measure(pairs, tasks)
    for criterion in CRITERIA:
        for _ in range(MOST_GROWTH):
            beyond = _beyond(_winner(sweep.points, sample.tasks, criterion), sweep.points, criterion)
            if beyond is None:
                break
            yield from sweep.measure([beyond], sample.tasks)
    order = sorted(sweep.points.values(), key=lambda point: (schedules.index(point.schedule), point.k))
    return Tuning(baseline, horizon, tuple(order))


class _Sweep:
    """The losses of each candidate so far. A candidate never runs on a task twice."""

    def __init__(
        self,
        baseline: Tunable,
        family: Family,
        sample: Sample,
        horizon: int,
        on: LossesOn,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self.points: dict[Pair, GridPoint] = {}
        self._baseline, self._family, self._sample, self._horizon = baseline, family, sample, horizon
        self._dtype, self._device = dtype, device
        self._looks = looks(horizon) if on == "held_out" else ()
        self._losses: dict[Pair, tuple[Tensor, Tensor]] = {}

    def measure(self, pairs: Sequence[Pair], tasks: int) -> Generator[None, None, None]:
        """Run candidates, which have seen equally many tasks, on the first `tasks` tasks, as far as they have not."""
        [seen] = {self.points[pair].tasks if pair in self.points else 0 for pair in pairs}
        if seen == tasks:
            return
        part = dataclasses.replace(self._sample, first=self._sample.first + seen, tasks=tasks - seen)
        settings = [Tuned(self._baseline, learning_rate(k), schedule, self._horizon) for schedule, k in pairs]
        found = yield from run_side_by_side(
            *(settings, self._family, part, self._horizon), dtype=self._dtype, device=self._device, looks=self._looks
        )
        for pair, each in zip(pairs, found, strict=True):
            before = self._losses.get(pair, (each.final[:0], each.area[:0]))
            final, area = torch.cat([before[0], each.final]), torch.cat([before[1], each.area])
            self._losses[pair] = final, area
            diverged = int(torch.isinf(final).sum())
            self.points[pair] = GridPoint(*pair, float(final.mean()), float(area.mean()), diverged, tasks)


def _best_of(places: Sequence[Pair], points: Mapping[Pair, GridPoint]) -> list[Pair]:
    """The best third by each criterion, in the order of `places`."""
    count = math.ceil(len(places) / KEPT)
    kept: set[Pair] = set()
    for criterion in CRITERIA:
        kept |= set(sorted(places, key=lambda place: float(getattr(points[place], criterion)))[:count])
    return [place for place in places if place in kept]


def _winner(points: Mapping[Pair, GridPoint], tasks: int, criterion: str) -> Pair:
    """The best of those that ran on all tasks."""
    finalists = [place for place, point in points.items() if point.tasks == tasks]
    return min(finalists, key=lambda place: float(getattr(points[place], criterion)))


def _beyond(winner: Pair, points: Mapping[Pair, GridPoint], criterion: str) -> Pair | None:
    """A stride beyond the edge of the winner's schedule, where the winner is at one; else None."""
    schedule, k = winner
    ks = sorted(other for name, other in points if name == schedule)
    lowest = k == ks[0]
    if not (lowest or (k == ks[-1] and math.isfinite(getattr(points[winner], criterion)))):
        return None
    neighbour = ks[min(1, len(ks) - 1)] if lowest else ks[max(-2, -len(ks))]
    further = k + (2 * (k - neighbour) or (-1.0 if lowest else 1.0))
    return (schedule, further) if abs(further) <= GRID_LIMIT else None
