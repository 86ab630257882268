"""A baseline with its numbers, and several such settings of one baseline side by side.

Side by side each setting has a copy of the same tasks: one gradient and, where the baseline looks at tasks, one step
for all of them. What is small takes a third of the time that one after the other takes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from models.baselines.base import AtRate, RunOfEach, Tunable
from models.baselines.schedules import rate
from models.curves import Curves
from models.rollout import Sample, Stepper, run
from models.tasks.base import Family, TaskBatch


@dataclass(frozen=True)
class Tuned:
    """A baseline at one learning rate and schedule. steps: the length of the run, which the schedule knows"""

    baseline: Tunable
    learning_rate: float
    schedule: str
    steps: int

    def start(self, tasks: TaskBatch) -> Stepper:
        return AtRate(self.baseline.start(tasks), self.rate)

    @property
    def rate(self) -> Callable[[int], float]:
        """The learning rate at each step."""
        return rate(self.learning_rate, self.schedule, self.steps)


def run_side_by_side(
    settings: Sequence[Tuned],
    family: Family,
    sample: Sample,
    horizon: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    looks: tuple[int, ...] = (),
) -> Generator[None, None, list[Curves]]:
    """`models.rollout.run` for each of these settings of ONE baseline; the Curves in their order. As many run together
    as there is room for.

    looks: as for `run`
    """
    found: list[Curves] = []
    for first in range(0, len(settings), family.tasks_abreast):
        some = SideBySide(tuple(settings[first : first + family.tasks_abreast]))
        count = len(some.settings)
        whole = yield from run(some, family, sample, horizon, dtype=dtype, device=device, looks=looks, repeats=count)
        found += [replace(whole, losses=part) for part in whole.losses.chunk(count, dim=1)]
    return found


@dataclass(frozen=True)
class SideBySide:
    """A Contender: one baseline with several settings, on batches that have every task once for each of them."""

    settings: tuple[Tuned, ...]

    def start(self, tasks: TaskBatch) -> Stepper:
        if len(self.settings) == 1:
            return self.settings[0].start(tasks)
        baseline = self.settings[0].baseline
        if baseline.of_each:
            return _Together(cast(RunOfEach, baseline.start(tasks)), self.settings, tasks)
        return _Apart([AtRate(baseline.start(tasks), each.rate) for each in self.settings])


class _Together:
    """One run, whose tasks have rates of their own."""

    def __init__(self, run: RunOfEach, settings: Sequence[Tuned], tasks: TaskBatch) -> None:
        rates = [each.rate for each in settings]
        by_step = [[of(step) for of in rates] for step in range(settings[0].steps)]
        table = torch.tensor(by_step, dtype=torch.float64, device=tasks.device)
        self._rates = table.repeat_interleave(tasks.tasks // len(settings), dim=1)  # (steps, tasks)
        self._run = run
        self._step = 0

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        self._run.step(theta, gradient, self._rates[self._step])
        self._step += 1


class _Apart:
    """A run for each setting, on its part of the coordinates."""

    def __init__(self, runs: Sequence[AtRate]) -> None:
        self._runs = runs

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        count = len(self._runs)
        for each, moved, by in zip(self._runs, theta.chunk(count), gradient.chunk(count), strict=True):
            each.step(moved, by)
