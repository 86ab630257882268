"""The tuning of a baseline's learning rate: one sweep over a grid that grows, for both criteria."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import torch

from models.baselines import Baseline
from models.rollout import Sample, Stepper, run
from models.tasks.base import Family, TaskBatch

# The grid is 10^(k/4), finer than the 10^(k/2) that earlier work used. Each baseline starts with the same number of
# points, around its usual optimum; the grid then grows while the best point stands at its edge.
GRID_POINTS = 9
GRID_LIMIT = 24  # |k|: learning rates from 1e-6 to 1e6


@dataclass(frozen=True)
class Tuned:
    """A baseline at one learning rate."""

    baseline: Baseline
    learning_rate: float

    def start(self, tasks: TaskBatch) -> Stepper:  # noqa: ARG002 - its memory begins at the first gradient
        return self.baseline.start(self.learning_rate)


@dataclass(frozen=True)
class GridPoint:
    """A learning rate 10^(k/4) and the means over the tuning tasks; infinite when any task diverged."""

    k: int
    final: float
    area: float
    diverged: int

    @property
    def learning_rate(self) -> float:
        return learning_rate(self.k)


@dataclass(frozen=True)
class Tuning:
    """A whole sweep of one baseline, sorted by learning rate. Both criteria are tuned from the same runs."""

    baseline: Baseline
    points: tuple[GridPoint, ...]

    def best(self, criterion: str) -> Tuned:
        """The baseline at the learning rate that was best for "final" or "area"."""
        point = self.best_final if criterion == "final" else self.best_area
        return Tuned(self.baseline, point.learning_rate)

    @property
    def best_final(self) -> GridPoint:
        return min(self.points, key=lambda point: point.final)

    @property
    def best_area(self) -> GridPoint:
        return min(self.points, key=lambda point: point.area)


def learning_rate(k: int) -> float:
    return float(10.0 ** (k / 4))


def tune(
    baseline: Baseline,
    family: Family,
    sample: Sample,
    horizon: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Generator[GridPoint | None, None, Tuning]:
    """Sweep the learning rate on the tasks of `sample`; returns the Tuning.

    GRID_POINTS runs for every baseline, and then one more at a time at whichever edge holds the best final loss or
    the best area, until both stand inside the grid. Yields None after each inner step, so that a caller can look at
    the clock, and each grid point when it is done.
    """
    start = baseline.centre - GRID_POINTS // 2
    waiting = list(range(start, start + GRID_POINTS))
    points: dict[int, GridPoint] = {}
    while waiting:
        k = waiting.pop(0)
        found = yield from run(Tuned(baseline, learning_rate(k)), family, sample, horizon, dtype=dtype, device=device)
        diverged = int((~found.finite).sum())
        points[k] = GridPoint(k, float(found.final.mean()), float(found.area.mean()), diverged)
        yield points[k]
        if not waiting:
            waiting = _beyond_the_edge(points)
    return Tuning(baseline, tuple(points[k] for k in sorted(points)))


def _beyond_the_edge(points: dict[int, GridPoint]) -> list[int]:
    """The next learning rate to try, where the best of a criterion stands at an edge of the grid."""
    low, high = min(points), max(points)
    for criterion in ("final", "area"):
        best = min(points, key=lambda k: float(getattr(points[k], criterion)))
        if not math.isfinite(getattr(points[best], criterion)) or best == low:
            # When everything diverged, smaller is the only way to go.
            if low > -GRID_LIMIT:
                return [low - 1]
        elif best == high and high < GRID_LIMIT:
            return [high + 1]
    return []
