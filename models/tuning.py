"""The tuning of a baseline: one sweep over schedules and learning rates, for both criteria, of a fixed number of runs.

Every baseline gets `runs_of(schedules)` runs, whatever it does with them. The first schedule begins with a coarse grid
around the baseline's usual optimum, which grows, ever faster, while the best point is at its edge, and is halved
around the best point down to a quarter of a decade. The other schedules begin a quarter of a decade around the optimum
of the first. The runs that are left refine the best pair of all.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from models.baselines.base import Tunable
from models.looks import looks
from models.rollout import Sample
from models.task_spec import LossesOn
from models.tasks.base import Family
from models.tuned import Tuned as Tuned
from models.tuned import run_side_by_side
from models.tuning_budget import CRITERIA, FIRST_RUNS, FURTHER_RUNS, runs_of

SPACING = 4.0  # of a first grid: a decade
MOST_STRIDE = 8.0  # beyond an edge; each stride is twice the one before
GRID_LIMIT = 24.0  # |k|: learning rates from 1e-6 to 1e6


@dataclass(frozen=True)
class GridPoint:
    """A schedule, a learning rate 10^(k/4) and the means over `tasks` tuning tasks; infinite when any task diverged."""

    schedule: str
    k: float
    final: float
    area: float
    diverged: int
    tasks: int

    @property
    def learning_rate(self) -> float:
        return learning_rate(self.k)


Pair = tuple[str, float]
"""A schedule, and the k of a learning rate."""
Points = Mapping[Pair, GridPoint]


@dataclass(frozen=True)
class Tuning:
    """A whole sweep of one baseline, by schedule and learning rate. Both criteria are tuned from the same runs.

    Only points that were measured on the most tasks can be the best ones.
    """

    baseline: Tunable
    steps: int
    points: tuple[GridPoint, ...]

    def best(self, criterion: str) -> Tuned:
        """The baseline at the pair that was best for "final" or "area"."""
        point = self.best_final if criterion == "final" else self.best_area
        return Tuned(self.baseline, point.learning_rate, point.schedule, self.steps)

    @property
    def best_final(self) -> GridPoint:
        return min(self._whole, key=lambda point: point.final)

    @property
    def best_area(self) -> GridPoint:
        return min(self._whole, key=lambda point: point.area)

    @property
    def _whole(self) -> list[GridPoint]:
        most = max(point.tasks for point in self.points)
        return [point for point in self.points if point.tasks == most]


def learning_rate(k: float) -> float:
    return float(10.0 ** (k / 4))


def tune(
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
    """Sweep schedules and learning rates on the tasks of `sample`; returns the Tuning.

    on: the data of the losses that a baseline is tuned for. held_out: what was held out of the sample's split, at
        `models.curves.looks(horizon)`

    Yields None after each inner step, so that a caller can look at the clock, and each grid point when it is done.
    """
    points: dict[Pair, GridPoint] = {}
    seen = looks(horizon) if on == "held_out" else ()
    for pairs in candidates(baseline.centre, schedules, points):
        settings = [Tuned(baseline, learning_rate(k), schedule, horizon) for schedule, k in pairs]
        found = yield from run_side_by_side(settings, family, sample, horizon, dtype=dtype, device=device, looks=seen)
        for (schedule, k), each in zip(pairs, found, strict=True):
            diverged = int((~each.finite).sum())
            point = GridPoint(schedule, k, float(each.final.mean()), float(each.area.mean()), diverged, sample.tasks)
            points[schedule, k] = point
            yield point
    order = sorted(points.values(), key=lambda point: (schedules.index(point.schedule), point.k))
    return Tuning(baseline, horizon, tuple(order))


def candidates(centre: float, schedules: Sequence[str], points: Points) -> Iterator[list[Pair]]:
    """The pairs to try, `runs_of(schedules)` of them, some at a time. Those of one list do not depend on each other;
    they are to be in `points` before the next list is asked for."""
    runs = runs_of(schedules)
    for wanted in _wanted_pairs(centre, schedules, points):
        yield wanted[:runs]
        runs -= len(wanted)
        if runs <= 0:
            return


def _wanted_pairs(centre: float, schedules: Sequence[str], points: Points) -> Iterator[list[Pair]]:
    first, *others = schedules
    grid = [(first, centre + SPACING * place) for place in range(-2, 3)]
    yield grid
    for wanted in islice(_settled(first, 1.0, points), FIRST_RUNS - len(grid)):
        yield [wanted]
    if others:
        best = _best(_of(first, points), "final")
        around = [best + place for place in (-1, 0, 1)]
        yield [(other, k) for other in others for k in around]
        for other in others:
            for wanted in islice(_settled(other, 1.0, points), FURTHER_RUNS - len(around)):
                yield [wanted]
    for halvings in range(1, 8):
        for criterion in CRITERIA:
            schedule = min(points.values(), key=lambda point: float(getattr(point, criterion))).schedule
            for wanted in _settled(schedule, 0.5**halvings, points, (criterion,)):
                yield [wanted]


def _settled(schedule: str, gap: float, points: Points, criteria: Sequence[str] = CRITERIA) -> Iterator[Pair]:
    """Until the best point of each criterion is inside the grid, with neighbours at most `gap` away."""
    for criterion in criteria:
        while (k := _wanted(_of(schedule, points), criterion, gap)) is not None:
            yield schedule, k


def _of(schedule: str, points: Points) -> dict[float, GridPoint]:
    """The points of a schedule by k, rising."""
    return dict(sorted((k, point) for (name, k), point in points.items() if name == schedule))


def _best(found: Mapping[float, GridPoint], criterion: str) -> float:
    """The k of the best point; where everything diverged the lowest, since smaller is the only way to go."""
    return min(found, key=lambda k: float(getattr(found[k], criterion)))


def _wanted(found: Mapping[float, GridPoint], criterion: str, gap: float) -> float | None:
    """The next k to try: beyond the edge where the best is at one, else in the middle of its wider neighbouring gap;
    None where it is settled."""
    ks = list(found)
    best = _best(found, criterion)
    place = ks.index(best)
    if place == 0 and best > -GRID_LIMIT:
        return max(best - min(2 * (ks[1] - ks[0]), MOST_STRIDE), -GRID_LIMIT)
    if place == len(ks) - 1 and best < GRID_LIMIT and math.isfinite(getattr(found[best], criterion)):
        return min(best + min(2 * (ks[-1] - ks[-2]), MOST_STRIDE), GRID_LIMIT)
    sides = [ks[side] for side in (place + 1, place - 1) if 0 <= side < len(ks)]
    widest = max(sides, key=lambda k: abs(k - best))
    return (best + widest) / 2 if abs(widest - best) > gap else None
