"""DoG, distance over gradients (Ivgi, Hinder and Carmon 2023), with the defaults of the authors' `dog-optimizer`.

The step size of a task is the farthest that it has been from its start, over the root of the sum of its squared
gradients. It does not decay, so the authors judge the average of the iterates with polynomial weights; so does this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.baselines.base import Untuned

if TYPE_CHECKING:
    from torch import Tensor

FIRST_MOVE = 1e-6
"""The first step's length, as a share of 1 + the norm of the start."""
EPSILON = 1e-8
GAMMA = 8.0


class DoGRun:
    """tasks: how many there are on the axis of coordinates, one after the other, all of one size"""

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        self._count = 0

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        theta, gradient = theta.view(self._tasks, -1), gradient.view(self._tasks, -1)
        squares = gradient.square().sum(1, keepdim=True)
        if self._count == 0:
            self._start, self._average = theta.clone(), theta.clone()
            self._farthest = (theta.norm(dim=1, keepdim=True) + 1).mul_(FIRST_MOVE)
            self._squares = squares + EPSILON
        else:
            self._farthest = self._farthest.maximum((theta - self._start).norm(dim=1, keepdim=True))
            self._squares.add_(squares)
        theta.sub_(self._farthest / self._squares.sqrt() * gradient)
        self._count += 1
        self._average.lerp_(theta, (1 + GAMMA) / (self._count + GAMMA))

    def average(self, theta: Tensor) -> Tensor:
        """The average of the iterates, later ones weighing more."""
        return theta if self._count == 0 else self._average.reshape(theta.shape)


DOG = Untuned(
    "dog",
    "DoG",
    defaults=f"learning rate 1, first move {FIRST_MOVE:g} (1 + norm of the start); judged at its polynomial average",
    start=lambda tasks: DoGRun(tasks.tasks),
)
