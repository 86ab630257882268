"""Where a meta-training run stands: an immutable value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from models.meta_optimizer import AdamState
from models.unroll import Position


@dataclass(frozen=True)
class Cost:
    """What a run has spent. One inner gradient evaluation is one gradient of one task's loss."""

    training_gradients: int = 0
    selection_gradients: int = 0
    training_seconds: float = 0.0
    selection_seconds: float = 0.0

    @property
    def seconds_a_gradient(self) -> float:
        """Mean seconds that training has spent on an inner gradient evaluation so far."""
        return self.training_seconds / max(1, self.training_gradients)

    def training(self, gradients: int, seconds: float) -> Cost:
        """Add what was spent on meta-steps."""
        return replace(
            self,
            training_gradients=self.training_gradients + gradients,
            training_seconds=self.training_seconds + seconds,
        )

    def selection(self, gradients: int, seconds: float) -> Cost:
        """Add what was spent on validation."""
        return replace(
            self,
            selection_gradients=self.selection_gradients + gradients,
            selection_seconds=self.selection_seconds + seconds,
        )


@dataclass(frozen=True)
class Live:
    """A trajectory that is under way.

    number: counts the trajectories of a run; its tasks, family and horizon follow from it
    start_loss: mean over its tasks before the first step
    positions: where its tasks are, group by group
    backend: name of what computed them, in whose layout their memory is
    """

    number: int
    start_loss: float
    positions: tuple[Position, ...]
    backend: str

    @property
    def step(self) -> int:
        """Inner steps done."""
        return self.positions[0].step


@dataclass(frozen=True)
class Leader:
    """The best start so far, as it was when its meta-steps were over. number: counts the starts from 1."""

    number: int
    score: float
    weights: Tensor
    averaged: Tensor
    adam: AdamState
    age: int
    scores: tuple[float, ...]


@dataclass(frozen=True)
class TrainingProgress:
    """A run between two meta-steps. Vectors are flat, in the order of `rule.parameters()`."""

    weights: Tensor
    averaged: Tensor
    """Moving average of `weights` over meta-steps."""
    best_weights: Tensor
    """The average with the best validation score."""
    adam: AdamState
    live: tuple[Live, ...] = ()
    """The pool: trajectories that are under way."""
    leader: Leader | None = None
    """While there are several starts to choose from, the best of those that are over."""
    step: int = 0
    """Meta-steps done."""
    trajectory: int = 0
    """Trajectories begun."""
    replaced: int = 0
    """Trajectories that ended before their horizon, because their loss grew too large."""
    since: int = 0
    """Meta-step after which the schedule of the present initialisation began."""
    age: int = 0
    """Meta-steps in the moving average."""
    start: int = 0
    """Starts that are over, of several."""
    best_score: float | None = None
    best_step: int = 0
    best_is_own: bool = False
    """Whether the best weights come from the present initialisation."""
    unimproved: int = 0
    """Validations since the last best."""
    scores: tuple[float, ...] = ()
    """Validation scores of the present initialisation, in order."""
    standing_still: float | None = None
    """What the validation tasks score before their first step, which a rule should beat."""
    restarts: tuple[int, ...] = ()
    """Meta-steps after which a new initialisation began, because validation stood still."""
    rollbacks: tuple[int, ...] = ()
    """Meta-steps after which training went back to the best weights."""
    rate_factor: float = 1.0
    """The product of what rollbacks have multiplied the meta-learning rate with."""
    start_scores: tuple[float, ...] = ()
    """The last validation score of each start that is over."""
    chosen_start: int | None = None
    """Which of several starts went on, from 1."""
    stopped: bool = False
    """Whether patience is spent."""
    skipped: int = 0
    """Meta-steps skipped so far."""
    skipped_in_a_row: int = 0
    """Meta-steps skipped since the last good one."""
    diverged_windows: int = 0
    """Meta-steps whose loss was not finite."""
    cost: Cost = Cost()

    def but(self, **changes: Any) -> TrainingProgress:
        return replace(self, **changes)

    def begun_anew(self, weights: Tensor) -> TrainingProgress:
        """The same run with a new initialisation: no trajectory is under way, and the schedule begins."""
        return self.but(
            weights=weights,
            averaged=weights,
            adam=AdamState.zero(weights),
            live=(),
            since=self.step,
            age=0,
            best_is_own=False,
            unimproved=0,
            scores=(),
            rate_factor=1.0,
            skipped_in_a_row=0,
        )


def fresh(weights: Tensor) -> TrainingProgress:
    """A run that has done nothing yet."""
    return TrainingProgress(weights, weights, weights, AdamState.zero(weights))
