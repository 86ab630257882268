"""SGD, NAG, RMSprop and Adam on the flat coordinate axis, and the tuning of their learning rates.

Each equals torch.optim's own, step by step (tests hold them to it): settings other than the learning rate are
torch's defaults, NAG is SGD with Nesterov momentum 0.9.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from models.rollout import Sample, Stepper, run
from models.spec import BaselineName
from models.tasks.base import Family, TaskBatch

# The grid is 10^(k/4), finer than the 10^(k/2) that earlier work used. Each baseline starts with the same number of
# points, around its usual optimum; the grid then grows while the best point stands at its edge.
GRID_POINTS = 9
GRID_CENTRES: dict[BaselineName, int] = {"sgd": -4, "nag": -6, "rmsprop": -6, "adam": -4}  # k of 10^(k/4)
GRID_LIMIT = 24  # |k|: learning rates from 1e-6 to 1e6


@dataclass(frozen=True)
class SGD:
    learning_rate: float

    def start(self, tasks: TaskBatch) -> Stepper:  # noqa: ARG002 - nothing to remember
        return _SGDRun(self.learning_rate)


@dataclass(frozen=True)
class NAG:
    learning_rate: float
    momentum: float = 0.9

    def start(self, tasks: TaskBatch) -> Stepper:  # noqa: ARG002 - its memory begins at the first gradient
        return _NAGRun(self.learning_rate, self.momentum)


@dataclass(frozen=True)
class RMSprop:
    learning_rate: float
    alpha: float = 0.99
    epsilon: float = 1e-8

    def start(self, tasks: TaskBatch) -> Stepper:
        return _RMSpropRun(self, torch.zeros(tasks.coordinates, dtype=tasks.dtype, device=tasks.device))


@dataclass(frozen=True)
class Adam:
    learning_rate: float
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def start(self, tasks: TaskBatch) -> Stepper:
        zeros = torch.zeros(tasks.coordinates, dtype=tasks.dtype, device=tasks.device)
        return _AdamRun(self, zeros, zeros.clone())


class _SGDRun:
    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        theta.add_(gradient, alpha=-self._learning_rate)


class _NAGRun:
    def __init__(self, learning_rate: float, momentum: float) -> None:
        self._learning_rate = learning_rate
        self._momentum = momentum
        self._velocity: Tensor | None = None

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        if self._velocity is None:
            self._velocity = gradient.clone()
        else:
            self._velocity.mul_(self._momentum).add_(gradient)
        theta.add_(gradient.add(self._velocity, alpha=self._momentum), alpha=-self._learning_rate)


class _RMSpropRun:
    def __init__(self, settings: RMSprop, square: Tensor) -> None:
        self._settings = settings
        self._square = square

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        own = self._settings
        self._square.mul_(own.alpha).addcmul_(gradient, gradient, value=1 - own.alpha)
        theta.addcdiv_(gradient, self._square.sqrt().add_(own.epsilon), value=-own.learning_rate)


class _AdamRun:
    def __init__(self, settings: Adam, first: Tensor, second: Tensor) -> None:
        self._settings = settings
        self._first = first
        self._second = second
        self._count = 0

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        own = self._settings
        self._count += 1
        self._first.lerp_(gradient, 1 - own.beta_1)
        self._second.mul_(own.beta_2).addcmul_(gradient, gradient, value=1 - own.beta_2)
        scale = (self._second.sqrt() / math.sqrt(1 - own.beta_2**self._count)).add_(own.epsilon)
        theta.addcdiv_(self._first, scale, value=-own.learning_rate / (1 - own.beta_1**self._count))


Baseline = SGD | NAG | RMSprop | Adam
KINDS: dict[BaselineName, type[SGD] | type[NAG] | type[RMSprop] | type[Adam]] = {
    "sgd": SGD,
    "nag": NAG,
    "rmsprop": RMSprop,
    "adam": Adam,
}


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

    name: BaselineName
    points: tuple[GridPoint, ...]

    @property
    def best_final(self) -> GridPoint:
        return min(self.points, key=lambda point: point.final)

    @property
    def best_area(self) -> GridPoint:
        return min(self.points, key=lambda point: point.area)


def learning_rate(k: int) -> float:
    return float(10.0 ** (k / 4))


def tune(
    name: BaselineName,
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
    start = GRID_CENTRES[name] - GRID_POINTS // 2
    waiting = list(range(start, start + GRID_POINTS))
    points: dict[int, GridPoint] = {}
    while waiting:
        k = waiting.pop(0)
        found = yield from run(KINDS[name](learning_rate(k)), family, sample, horizon, dtype=dtype, device=device)
        diverged = int((~found.finite).sum())
        points[k] = GridPoint(k, float(found.final.mean()), float(found.area.mean()), diverged)
        yield points[k]
        if not waiting:
            waiting = _beyond_the_edge(points)
    return Tuning(name, tuple(points[k] for k in sorted(points)))


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
