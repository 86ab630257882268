"""Seconds of one inner step: the gradient of one task, and each optimizer's own step on that task's coordinates.

Users optimize one problem at a time, so one task is what is timed. The rounds take turns between the gradient and all
optimizers, so that a machine that slows down slows all of them. Measured seconds are facts of the machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from models.rollout import Contender
from models.tasks.base import TaskBatch

ROUNDS = 15
_ROUND_SECONDS = 0.0005  # a shorter call is repeated: the clock itself takes some 50 ns
_MOST_CALLS = 32
_WARM_UP = 3


@dataclass(frozen=True)
class Seconds:
    """Seconds of one call: the median of the rounds, and their quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class StepCosts:
    """gradient: of one task; optimizers: of each optimizer's own step, by name; coordinates: of that task."""

    gradient: Seconds
    optimizers: Mapping[str, Seconds]
    coordinates: int

    def step(self, name: str) -> float:
        """Seconds of a whole inner step with this optimizer."""
        return self.gradient.median + self.optimizers[name].median

    def steps_in_time_of(self, name: str, baseline: str, steps: int) -> tuple[int, int, int]:
        """How many steps `name` makes while `baseline` makes `steps`, and how few and many by the quartiles; never
        more than `steps`, for no curve is longer."""
        own, other, gradient = self.optimizers[name], self.optimizers[baseline], self.gradient.median

        def made(ours: float, theirs: float) -> int:
            return min(steps, math.floor(steps * (gradient + theirs) / (gradient + ours) + 1e-9))

        return made(own.median, other.median), made(own.high, other.low), made(own.low, other.high)


def step_costs(contenders: Mapping[str, Contender], tasks: TaskBatch) -> Generator[None, None, StepCosts]:
    """Time them on `tasks`, which should be one task. Yields between rounds."""
    theta = tasks.initial()
    _, gradient = tasks.losses_and_gradient(theta, 0)
    moving = theta.clone()

    def stepping(contender: Contender) -> Callable[[], None]:
        stepper = contender.start(tasks)
        return lambda: stepper.step(moving, gradient)

    calls: dict[str | None, Callable[[], object]] = {None: lambda: tasks.losses_and_gradient(theta, 0)}
    calls |= {name: stepping(contender) for name, contender in contenders.items()}
    repeats = {}
    for name, call in calls.items():
        _seconds(call, _WARM_UP, tasks.device)
        repeats[name] = min(_MOST_CALLS, math.ceil(_ROUND_SECONDS / _seconds(call, 1, tasks.device)))
        yield
    rounds: dict[str | None, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            moving.copy_(theta)  # the same gradient again and again leads nowhere; no step costs more for it
            rounds[name].append(_seconds(call, repeats[name], tasks.device))
            yield
    found = {name: _summary(seconds) for name, seconds in rounds.items()}
    return StepCosts(found[None], {name: found[name] for name in contenders}, tasks.coordinates)


def _seconds(call: Callable[[], object], times: int, device: torch.device) -> float:
    """Seconds of one of `times` calls in a row."""
    _wait_for(device)
    started = time.perf_counter()
    for _ in range(times):
        call()
    _wait_for(device)
    return (time.perf_counter() - started) / times


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(seconds: list[float]) -> Seconds:
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    return Seconds(float(median), float(low), float(high))
