"""Baselines that run a rule of kind `tuned`, so that what is tuned is what users get."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from models.baselines.base import Run

if TYPE_CHECKING:
    from torch import Tensor

    from gradsmith.rules import State
    from models.tasks.base import TaskBatch


def of_rule(optimizer: str, *, matrices: bool = False) -> Callable[[TaskBatch], Run]:
    """Starts runs of the rule of this name, at the rate that each step is given.

    matrices: whether it has to know the tensors of a task. A run then raises ValueError where they are not known
    """

    def start(tasks: TaskBatch) -> Run:
        size, named = tasks.coordinates_per_task, sum(part.size for part in tasks.parts)
        if matrices and named != size:
            raise ValueError(
                f"a task has {size} coordinates, and its family names parts with {named}; a baseline for matrices "
                f"needs to know them. Leave it out"
            )
        shapes: list[tuple[int, ...]] = [part.shape for part in tasks.parts] if named == size else [(size,)]
        return RuleRun(optimizer, shapes, tasks.tasks)

    return start


class RuleRun:
    """A rule in the middle of a run: a RunOfEach. shapes: of the tensors of one task; tasks: how many there are"""

    def __init__(self, optimizer: str, shapes: list[tuple[int, ...]], tasks: int) -> None:
        from gradsmith.rules import TunedRule  # which imports torch
        from gradsmith.rules.configs import TunedConfig

        self._rule = TunedRule(TunedConfig(optimizer=optimizer))
        self._shapes, self._tasks = shapes, tasks
        self._memory: State = ()

    def step(self, theta: Tensor, gradient: Tensor, learning_rate: float | Tensor) -> None:
        if not self._memory:
            self._begin(gradient)
        numbers = self._memory[-1]
        if isinstance(learning_rate, float):
            rate = numbers.new_full((self._segments.rows,), learning_rate)
        else:
            rate = learning_rate.to(numbers).repeat_interleave(len(self._shapes))
        share = self._rule.shrinkage_at(rate, self._memory)
        if share is not None:
            theta.mul_(1 - self._segments.spread(share).to(theta.dtype))
        update, self._memory = self._rule.stepped_at(rate, gradient, self._memory, self._segments)
        theta.add_(update)

    def _begin(self, like: Tensor) -> None:
        from gradsmith.rules import Segments

        sizes = [math.prod(shape) for shape in self._shapes]
        self._segments = Segments.repeated(sizes, like.shape[0], like.device, self._shapes)
        self._memory = self._rule.memory_for(self._shapes, self._tasks, dtype=like.dtype, device=like.device)
