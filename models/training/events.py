"""What a training says while it goes on, one value for each thing that happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MetaStep:
    """One window. `loss` is the mean over its steps and tasks, NaN or infinite when the window diverged;
    `gradient_norm` is that before clipping; `skipped` says that the weights did not move."""

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float
    skipped: bool


@dataclass(frozen=True)
class Working:
    """A long validation goes on: a place to look whether the run is still wanted. It changes nothing, and comes at
    least every WORKING_INTERVAL_SECONDS of a validation, give or take an inner step."""

    step: int


@dataclass(frozen=True)
class Validated:
    """`score`: that of the recipe's objective on the fixed validation tasks; lower is better. `best` says that it is
    the lowest so far and that the rule was kept."""

    step: int
    score: float
    best: bool


@dataclass(frozen=True)
class Restarted:
    """Validation stood still on the plateau of a bad initialisation; training went on from a new one."""

    step: int
    reason: str


@dataclass(frozen=True)
class RolledBack:
    """Validation was far above its best: training went back to the best weights, with a lower meta-learning rate.

    best_step: the meta-step after which those weights were validated
    rate_factor: what the meta-learning rate is multiplied with from now on
    """

    step: int
    score: float
    best_score: float
    best_step: int
    rate_factor: float


@dataclass(frozen=True)
class StartEnded:
    """One of several starts had its meta-steps. `start` counts from 1, to `starts`; `score`: of its last validation.

    chosen: after the last start, the one that goes on; None before
    """

    step: int
    start: int
    starts: int
    score: float
    chosen: int | None


@dataclass(frozen=True)
class StoppedEarly:
    """`validations` in a row brought no new best, so that the run ends before its meta-steps do."""

    step: int
    validations: int
    best_step: int


@dataclass(frozen=True)
class TrajectoryEnd:
    """A place where the run can be resumed bit for bit. `checkpoint()` gives the bytes; call it before you ask for the
    next event, for trajectories that are under way move on."""

    step: int
    checkpoint: Callable[[], bytes]


@dataclass(frozen=True)
class TrainingResult:
    """The best rule as weights (gradsmith.rules.weights), its validation score, and what it took.

    standing_still: what the validation tasks score before the first step, which a rule should beat
    """

    weights: bytes
    validation_score: float
    standing_still: float
    summary: dict[str, Any]


Turn = Restarted | RolledBack | StartEnded | StoppedEarly
"""What a validation may lead to."""

Event = MetaStep | Working | Validated | Turn | TrajectoryEnd | TrainingResult
