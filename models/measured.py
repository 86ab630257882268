"""Runs that were measured, as plain JSON: what the results of every kind of job that measures are made of."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

import numpy as np
from torch import Tensor

from models.curves import FINAL_STEPS, Curves
from models.evaluation.statistics import Bootstrap, Floats, curve_quantiles, summary
from models.looks import LOOKS
from models.spec import Recipe
from models.task_spec import LossesOn
from models.tuning import Tuning
from models.tuning_budget import CRITERIA as CRITERIA

PROGRESS_INTERVAL_SECONDS = 0.25
TUNING_TRAJECTORY = 1  # trajectory 0 of the validation split selected the rule; baselines are tuned on other tasks
MEANINGS: dict[LossesOn, dict[str, str]] = {
    "training": {
        "final": f"mean loss of the last {FINAL_STEPS} steps",
        "area": "mean loss of all steps after the start",
    },
    "held_out": {
        "final": "held-out loss after the last step",
        "area": f"mean held-out loss at {LOOKS} points of the curve",
    },
}
"""What each criterion is, for the record."""
T = TypeVar("T")
Y = TypeVar("Y")


@dataclass(frozen=True)
class MeasuringProgress:
    """`step` of `total` runs are done."""

    step: int
    total: int
    message: str


@dataclass(frozen=True)
class BestTuned:
    """The best tuned baseline, as an optimizer of the registry.

    weights: its file, the same bytes for the same settings
    recipe: that of the measured optimizer, with this one's rule: its criterion gave the score
    tuned: its settings, for people
    """

    weights: bytes
    score: float
    standing_still: float
    recipe: Recipe
    tuned: dict[str, Any]


@dataclass(frozen=True)
class BestSchedule:
    """A learned schedule that does as well as the measured optimizer, as an optimizer of the registry.

    recipe: that of its training, whose criterion gave the score
    stands_for: the id of the optimizer in whose place `best` names it
    training: what its training took
    """

    weights: bytes
    score: float
    standing_still: float
    recipe: Recipe
    stands_for: str
    training: dict[str, Any]


@dataclass(frozen=True)
class OwnScore:
    """The validation score of an optimizer from elsewhere, which an evaluation gave it. recipe: has its criterion"""

    score: float
    standing_still: float
    recipe: Recipe


@dataclass(frozen=True)
class MeasuringResult:
    """Plain JSON values; non-finite numbers are None. found: what `best` may name, where that is known; own: the score
    of an optimizer that had none"""

    result: dict[str, Any]
    found: BestTuned | BestSchedule | None = None
    own: OwnScore | None = None


class Runs:
    """Counts runs, and tells of them at least every quarter of a second of work, give or take one inner step."""

    def __init__(self, total: int) -> None:
        self.done = 0
        self.total = total
        self._told = 0.0

    def ticking(self, work: Generator[object | None, None, T], message: str) -> Generator[MeasuringProgress, None, T]:
        """Do the work, telling about it now and then; each thing but None that it yields is a run done."""
        while True:
            try:
                point = next(work)
            except StopIteration as end:
                return cast(T, end.value)
            self.done += point is not None
            now = time.perf_counter()
            if now - self._told >= PROGRESS_INTERVAL_SECONDS:
                self._told = now
                yield self.so_far(message)

    def so_far(self, message: str) -> MeasuringProgress:
        return MeasuringProgress(self.done, max(self.total, self.done), message)


class Stopwatch:
    """Adds up the seconds of generators, without what their callers do meanwhile."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timing(self, work: Generator[Y, None, T]) -> Generator[Y, None, T]:
        """`work`, whose seconds are added."""
        while True:
            started = time.perf_counter()
            try:
                event = next(work)
            except StopIteration as end:
                return cast(T, end.value)
            finally:
                self.seconds += time.perf_counter() - started
            yield event


@dataclass(frozen=True)
class Measured:
    """An optimizer on some tasks: the run that stands for its final loss, and the one for its area."""

    final: Curves
    area: Curves

    def losses(self, criterion: str) -> Floats:
        """(tasks,): one number for each task."""
        return numbers(self.final.final if criterion == "final" else self.area.area)


def described(measured: Measured, bootstrap: Bootstrap) -> dict[str, Any]:
    """Its curves and summaries. `area_curve` is there where another run than that of `curve` stands for the area."""
    curves = {"curve": _curve(measured.final, bootstrap)}
    if measured.area is not measured.final:
        curves["area_curve"] = _curve(measured.area, bootstrap)
    return {
        **curves,
        **{criterion: asdict(summary(measured.losses(criterion), bootstrap)) for criterion in CRITERIA},
        "diverged": int((~measured.final.finite).sum()),
    }


def _curve(found: Curves, bootstrap: Bootstrap) -> dict[str, list[float]]:
    losses = numbers(found.losses)
    quantiles = curve_quantiles(losses, bootstrap)
    return {"step": list(found.steps)} | {name: values.tolist() for name, values in quantiles.items()}


def sweep_of(tuning: Tuning) -> dict[str, Any]:
    """The learning rates and schedules of a baseline that were best, and the grid that they were found on."""
    best = {criterion: tuning.best(criterion) for criterion in CRITERIA}
    return {
        "learning_rate": {criterion: tuned.learning_rate for criterion, tuned in best.items()},
        "schedule": {criterion: tuned.schedule for criterion, tuned in best.items()},
        "runs": len(tuning.points),
        "grid": [
            {
                "schedule": point.schedule,
                "learning_rate": point.learning_rate,
                "final": point.final,
                "area": point.area,
                "diverged": point.diverged,
                "tasks": point.tasks,
            }
            for point in tuning.points
        ],
    }


def numbers(losses: Tensor) -> Floats:
    """float64 with every non-finite loss as infinity, which is what a diverged run counts as."""
    values: Floats = losses.detach().cpu().numpy().astype(np.float64)
    return np.where(np.isfinite(values), values, np.inf)


def plain(value: Any) -> Any:
    """JSON values only: tuples become lists, and numbers that JSON cannot say become None."""
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
