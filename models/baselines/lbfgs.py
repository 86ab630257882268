"""L-BFGS (Liu and Nocedal 1989), one gradient a step: no line search, the step length is the tuned learning rate.

It is torch.optim.LBFGS with one iteration a call and ten pairs. Each task has pairs of its own. A pair is made of two
gradients of successive steps, which on minibatches are of different images: the usual way of such runs, and one reason
why it does badly there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.baselines.base import Tunable

if TYPE_CHECKING:
    from torch import Tensor

    from models.tasks.base import TaskBatch

PAIRS = 10
LEAST_CURVATURE = 1e-10
"""A pair with a smaller product is left out."""


class LBFGSRun:
    """Its memory is PAIRS places, the newest pair last. A place without a pair has zeros and adds nothing."""

    def __init__(self, tasks: TaskBatch) -> None:
        self._tasks = tasks.tasks
        self._moves: list[Tensor] = []  # each (tasks, coordinates of one)
        self._changes: list[Tensor] = []
        self._inverses: list[Tensor] = []  # 1 / <move, change>, (tasks, 1)
        self._last: tuple[Tensor, Tensor] | None = None  # the last gradient and the move that it gave

    def step(self, theta: Tensor, gradient: Tensor, learning_rate: float) -> None:
        theta, gradient = theta.view(self._tasks, -1), gradient.view(self._tasks, -1)
        if self._last is None:
            self._scale = gradient.new_ones(self._tasks, 1)
            length = (1 / gradient.abs().sum(1, keepdim=True)).clamp(max=1) * learning_rate
        else:
            self._remember(self._last[1], gradient - self._last[0])
            length = gradient.new_full((self._tasks, 1), learning_rate)
        direction = self._direction(gradient)
        downhill = (gradient * direction).sum(1, keepdim=True) <= 0
        move = (direction * length).where(downhill, direction.new_zeros(()))
        theta.add_(move)
        self._last = gradient.clone(), move

    def _remember(self, move: Tensor, change: Tensor) -> None:
        """Keep the pair of each task whose curvature is positive; the others keep what they have."""
        curvature = (change * move).sum(1, keepdim=True)
        taken = curvature > LEAST_CURVATURE
        inverse = curvature.reciprocal()
        self._scale = (curvature / change.square().sum(1, keepdim=True)).where(taken, self._scale)
        all_taken = bool(taken.all())
        for kept, new in ((self._moves, move), (self._changes, change), (self._inverses, inverse)):
            before = kept or [new.new_zeros(new.shape)] * PAIRS
            after = [*before[1:], new]
            kept[:] = (
                after if all_taken else [one.where(taken, other) for one, other in zip(after, before, strict=True)]
            )

    def _direction(self, gradient: Tensor) -> Tensor:
        """The two loops."""
        found, weights = -gradient, []
        pairs = list(zip(self._moves, self._changes, self._inverses, strict=True))
        for move, change, inverse in reversed(pairs):
            weights.append((move * found).sum(1, keepdim=True) * inverse)
            found = found - weights[-1] * change
        found = found * self._scale
        for (move, change, inverse), weight in zip(pairs, reversed(weights), strict=True):
            found = found + (weight - (change * found).sum(1, keepdim=True) * inverse) * move
        return found


LBFGS = Tunable("lbfgs", "L-BFGS", by_default=False, centre=0, start=LBFGSRun, torch=None, rule=False)
