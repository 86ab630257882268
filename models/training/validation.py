"""The rule on the fixed validation tasks: the losses along its curves, and the score that they make."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor

from models.parallel import Team
from models.rollout import Contender, Sample, Stepper, run, tasks_at_once
from models.spec import Recipe, Split, share
from models.tasks.base import Family, TaskBatch
from models.training.events import Working
from models.training.selection import geometric_mean, scored

T = TypeVar("T")

VALIDATION_SEED = 0
"""All jobs of a family are selected on the SAME validation tasks, whatever their seed, so that their scores compare."""

WORKING_INTERVAL_SECONDS = 0.25

LOOKS = 10
"""How often the held-out loss is measured along a curve: each time takes as long as several inner steps."""


@dataclass(frozen=True)
class Found:
    """What a validation came to. seconds: that it took; gradients: inner gradient evaluations of all ranks"""

    score: float
    standing_still: float
    seconds: float
    gradients: int


class Judged(Protocol):
    """What a validation runs on the tasks of a family, with that family's weight in the score."""

    @property
    def family(self) -> Family: ...

    @property
    def weight(self) -> float: ...

    def contender(self, steps: int) -> Contender:
        """What runs, for a run of so many steps."""


class Validation:
    """Runs the rule, as its weights are now, on the validation tasks of every family that it trains on.

    Where a run has several horizons, the shorter curves are the beginning of the longest.
    """

    def __init__(
        self, recipe: Recipe, sources: Sequence[Judged], team: Team, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._recipe = recipe
        self._sources = sources
        self._team = team
        self._dtype = dtype
        self._device = device

    def found(self, step: int, seconds_a_gradient: float) -> Generator[Working, None, Found]:
        """Says now and then that it still works. step: the meta-step; seconds_a_gradient: what one takes in training"""
        recipe, horizons = self._recipe, self._recipe.horizons_validated
        losses, seconds = yield from self.losses(step, seconds_a_gradient)
        weights = [source.weight for source in self._sources for _ in horizons]
        scores, still = [], []
        for standing_still, *curves in losses.to(self._dtype):
            for area, final in zip(curves[::2], curves[1::2], strict=True):
                scores.append(scored(recipe, float(area.mean()), float(final.mean())))
                still.append(float(standing_still.mean()))
        gradients = len(self._sources) * recipe.validation_tasks * (horizons[-1] + 1)
        return Found(geometric_mean(scores, weights), geometric_mean(still, weights), seconds, gradients)

    def losses(self, step: int, seconds_a_gradient: float) -> Generator[Working, None, tuple[Tensor, float]]:
        """Each validation task's first loss, and its mean loss and the mean of its last ones at each horizon: (sources,
        1 + 2 horizons, validation_tasks), and the seconds that they took.

        The ranks share the chunks that one process would run, and put together what they found: the same bits for any
        number of ranks.
        """
        recipe, team = self._recipe, self._team
        horizons = recipe.horizons_validated
        shape = (len(self._sources), 1 + 2 * len(horizons), recipe.validation_tasks)
        found = torch.zeros(shape, dtype=torch.float64, device=self._device)
        spent, evaluations = 0.0, 0
        for source, rows in zip(self._sources, found, strict=True):
            chunk = tasks_at_once(source.family)
            chunks = -(-recipe.validation_tasks // chunk)
            own, longest = (share(chunks, team.size, rank) for rank in (team.rank, 0))
            _, seconds = yield from _at_work(self._chunks(source, own, chunk, rows), step)
            spent += seconds
            # A rank without a chunk knows the pace from training, where a gradient takes longer.
            evaluations += len(longest) * chunk * (horizons[-1] + 1)
        started = time.perf_counter()
        team.sum_(found, expected_seconds=evaluations * seconds_a_gradient * team.size)
        return found, spent + time.perf_counter() - started

    def _contender(self, source: Judged) -> Watched:
        recipe = self._recipe
        watched = {0, *(step for horizon in recipe.horizons_validated for step in looks(horizon))}
        contender = source.contender(recipe.horizons_validated[-1])
        return Watched(contender, frozenset(watched if recipe.on == "held_out" else ()))

    def _chunks(self, source: Judged, own: range, chunk: int, rows: Tensor) -> Generator[None, None, None]:
        """Fill the columns of `rows` that belong to these chunks of `chunk` tasks."""
        recipe = self._recipe
        horizons = recipe.horizons_validated
        for index in own:  # each by itself: how a mean over steps is rounded depends on how many tasks are side by side
            part = slice(index * chunk, min((index + 1) * chunk, recipe.validation_tasks))
            sample = Sample(Split.VALIDATION, VALIDATION_SEED, 0, part.stop - part.start, part.start)
            learned = self._contender(source)
            curves = yield from run(
                learned, source.family, sample, horizons[-1], dtype=self._dtype, device=self._device
            )
            held_out = learned.found()
            rows[0, part] = held_out[0] if held_out else curves.losses[0]
            for place, horizon in enumerate(horizons):
                until = curves.cut(horizon)
                area, final = until.area, until.final
                if held_out:
                    seen = torch.stack([held_out[step] for step in looks(horizon)])
                    finite = until.finite & seen.isfinite().all(dim=0)
                    area, final = (torch.where(finite, each, torch.inf) for each in (seen.mean(dim=0), seen[-1]))
                rows[1 + 2 * place, part], rows[2 + 2 * place, part] = area, final


def looks(horizon: int) -> list[int]:
    """The steps of a run after which held-out losses are measured, the last one being the horizon."""
    return sorted({max(1, round(horizon * look / LOOKS)) for look in range(1, LOOKS + 1)})


class Watched:
    """A contender whose tasks' held-out losses are measured after some steps."""

    def __init__(self, contender: Contender, steps: frozenset[int]) -> None:
        self._contender = contender
        self._steps = steps
        self._losses: dict[int, list[Tensor]] = {}

    def start(self, tasks: TaskBatch) -> Stepper:
        stepper = self._contender.start(tasks)
        if not self._steps:
            return stepper
        self.see(0, tasks, tasks.initial())
        return _WatchedRun(self, tasks, stepper)

    def see(self, step: int, tasks: TaskBatch, theta: Tensor) -> None:
        """Measure, where the step is one of those."""
        if step in self._steps:
            found = tasks.held_out(theta)
            assert found is not None, "the spec lets only families through that have held-out data"
            self._losses.setdefault(step, []).append(found.losses)

    def found(self) -> dict[int, Tensor]:
        """The held-out losses by step, (tasks,), in the order of the run's curves."""
        return {step: torch.cat(losses) for step, losses in self._losses.items()}


@dataclass
class _WatchedRun:
    watched: Watched
    tasks: TaskBatch
    stepper: Stepper
    steps: int = 0

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        self.stepper.step(theta, gradient)
        self.steps += 1
        self.watched.see(self.steps, self.tasks, theta)


def _at_work(steps: Generator[None, None, T], step: int) -> Generator[Working, None, tuple[T, float]]:
    """Run to the end, saying now and then that it still works; returns what that gives and the seconds it took,
    without what the caller does meanwhile."""
    seconds, started = 0.0, time.perf_counter()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(T, end.value), seconds + time.perf_counter() - started
        elapsed = time.perf_counter() - started
        if elapsed >= WORKING_INTERVAL_SECONDS:
            seconds += elapsed
            yield Working(step)
            started = time.perf_counter()
