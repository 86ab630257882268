"""The rule on the fixed validation tasks: the losses along its curves, and the score that they make."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor

from models.curves import Curves
from models.looks import looks
from models.parallel import Team
from models.rollout import Contender, Sample, run, tasks_at_once
from models.spec import Recipe, Split, share
from models.tasks.base import Family
from models.training.events import Working
from models.training.selection import geometric_mean, scored

T = TypeVar("T")

VALIDATION_SEED = 0
"""All jobs of a family are selected on the SAME validation tasks, whatever their seed, so that their scores compare."""

WORKING_INTERVAL_SECONDS = 0.25


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

    @property
    def knows_steps(self) -> bool:
        """Whether it runs otherwise in a run of another length."""

    def contender(self, steps: int) -> Contender:
        """What runs, for a run of so many steps."""


class Validation:
    """Runs the rule, as its weights are now, on the validation tasks of every family that it trains on.

    Where a run has several horizons, the shorter curves are the beginning of the longest; what knows how many steps a
    run has runs once for each.
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
        gradients = recipe.validation_tasks * sum(map(self._steps, self._sources))
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
            chunk = tasks_at_once(source.family, source.contender(horizons[-1]))
            chunks = -(-recipe.validation_tasks // chunk)
            own, longest = (share(chunks, team.size, rank) for rank in (team.rank, 0))
            _, seconds = yield from _at_work(self._chunks(source, own, chunk, rows), step)
            spent += seconds
            # A rank without a chunk knows the pace from training, where a gradient takes longer.
            evaluations += len(longest) * chunk * self._steps(source)
        started = time.perf_counter()
        team.sum_(found, expected_seconds=evaluations * seconds_a_gradient * team.size)
        return found, spent + time.perf_counter() - started

    def _steps(self, source: Judged) -> int:
        """Gradient evaluations that a task of this family takes."""
        horizons = self._recipe.horizons_validated
        return sum(horizon + 1 for horizon in (horizons if source.knows_steps else horizons[-1:]))

    def _chunks(self, source: Judged, own: range, chunk: int, rows: Tensor) -> Generator[None, None, None]:
        """Fill the columns of `rows` that belong to these chunks of `chunk` tasks."""
        recipe, held_out = self._recipe, self._recipe.on == "held_out"
        horizons = recipe.horizons_validated
        for index in own:  # each by itself: how a mean over steps is rounded depends on how many tasks are side by side
            part = slice(index * chunk, min((index + 1) * chunk, recipe.validation_tasks))
            sample = Sample(Split.VALIDATION, VALIDATION_SEED, 0, part.stop - part.start, part.start)
            for place, horizon in enumerate(horizons):
                if place == 0 or source.knows_steps:
                    longest = horizon if source.knows_steps else horizons[-1]
                    curves = yield from self._run(source, sample, longest)
                until = curves.at(looks(horizon)) if held_out else curves.cut(horizon)
                rows[0, part] = curves.losses[0]
                rows[1 + 2 * place, part], rows[2 + 2 * place, part] = until.area, until.final

    def _run(self, source: Judged, sample: Sample, longest: int) -> Generator[None, None, Curves]:
        """The curves of `longest` steps, with all looks of the horizons up to there where held-out losses count."""
        held_out = self._recipe.on == "held_out"
        horizons = (longest,) if source.knows_steps else self._recipe.horizons_validated
        found = yield from run(
            *(source.contender(longest), source.family, sample, longest),
            dtype=self._dtype,
            device=self._device,
            looks=tuple(sorted({look for horizon in horizons for look in looks(horizon)})) if held_out else (),
        )
        return found


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
