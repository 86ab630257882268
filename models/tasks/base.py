"""Tasks and families: what is optimized while a rule learns, and what it is measured on.

All tasks of a batch lie on ONE flat coordinate axis, task after task, each with the same number of coordinates. Tasks
of different sizes are in different batches.
So a rule sees (coordinates,) whatever is optimized, and `segments` tells a rule that averages per task whose
coordinate is whose.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import SplitHeldOut
from models.memory import tasks_abreast
from models.spec import Split
from models.task_spec import Part
from models.tasks.composite import Composite
from models.tasks.randomness import task_seeds


@dataclass(frozen=True)
class HeldOut:
    """Each task's loss and accuracy, (tasks,), on images that it did not train on."""

    losses: Tensor
    accuracies: Tensor


class TaskBatch(ABC):
    """Some tasks of one family, side by side. Immutable: a minibatch is a function of the task and the step.

    step: the number of an inner step. Where a CUDA graph is recorded it is an int64 scalar on the device, so that no
        branch and no Python number may be made of it: multiply it, add to it, hand it to `randomness.indices`.
    """

    namespace = ""
    """What these tasks are drawn from. Batches of one class and size that compute differently have different ones."""

    parts: tuple[Part, ...] = ()
    """The tensors of one task, where the family was opened from its description."""

    def __init__(self, tasks: int, coordinates_per_task: int, dtype: torch.dtype, device: torch.device) -> None:
        self.tasks: int = tasks
        self.coordinates_per_task = coordinates_per_task
        self.coordinates = tasks * coordinates_per_task
        self.dtype = dtype
        self.device = device

    @property
    def segments(self) -> Tensor:
        """The task of each coordinate: (coordinates,) int64."""
        return torch.arange(self.tasks, device=self.device).repeat_interleave(self.coordinates_per_task)

    @abstractmethod
    def initial(self) -> Tensor:
        """A new tensor with the starting point of every task: (coordinates,)."""

    @abstractmethod
    def buffers(self) -> Mapping[str, Tensor]:
        """The tensors, by name, in which this batch differs from another of its class, size and namespace.

        A window that was recorded for one batch runs for another once the other's buffers have been copied into
        its own. So these are the very tensors that losses are computed from, not copies.
        """

    @abstractmethod
    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """Each task's loss at `theta` on the minibatch of `step`, and its gradient on the SAME minibatch.

        (coordinates,) -> (tasks,), (coordinates,). Both are constants: no graph is kept.
        """

    @abstractmethod
    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:
        """Each task's loss at `theta` on the minibatch of `step`: (coordinates,) -> (tasks,). Differentiable."""

    def hessian_vector(self, theta: Tensor, step: int | Tensor, v: Tensor, *, gradient: Tensor | None = None) -> Tensor:
        """The Hessian of each task's loss at `theta`, on the minibatch of `step`, times that task's part of `v`.

        (coordinates,), (coordinates,) -> (coordinates,), a constant. gradient: that at `theta`, where it is known.

        This one is a forward difference of gradients, a step away along v: one gradient evaluation, or two. Its error
        is half the third derivative along v times that step, and the gradient's own rounding over it. A family that
        has the product in closed form overrides this.
        """
        if gradient is None:
            _, gradient = self.losses_and_gradient(theta, step)
        directions = v.view(self.tasks, -1)
        lengths = directions.norm(dim=1, keepdim=True)
        away = difference_step(theta.view(self.tasks, -1))
        scales = torch.where(lengths > 0, away / lengths, 0.0)
        _, ahead = self.losses_and_gradient(theta + (directions * scales).view(-1), step)
        product: Tensor = ((ahead - gradient).view(self.tasks, -1) * (lengths / away)).view(-1)
        return product

    outer: TaskBatch | None = None
    """The same tasks on other data, which a meta-loss on held-out data counts; only what `parted` gives has it."""

    def parted(self) -> TaskBatch | None:
        """These tasks on a part of their training data, with the same tasks on the rest of it as `outer`; None where
        a task has no data. `TaskSpec.parts_data` says which."""
        return None

    def held_out(self, theta: Tensor) -> HeldOut | None:  # noqa: ARG002 - a family without held-out data has none
        """Loss and accuracy on data that these tasks do not train on; None where a task has no data."""
        return None

    def composite(self) -> Composite | None:
        """The absolute values in the loss, for methods that treat them apart; None where it has none.
        `TaskSpec.composite` says which."""
        return None

    def pictures(self, theta: Tensor) -> Tensor | None:  # noqa: ARG002 - most parameters cannot be seen
        """What each task's parameters look like: RGB, uint8 (tasks, height, width, 3); None where they cannot be seen.
        `TaskSpec.pictured` says which."""
        return None

    def given_pictures(self) -> Mapping[str, Tensor]:
        """What each task's pictures are to be held against, by name: uint8 (tasks, height, width, 3)."""
        return {}


def difference_step(theta: Tensor) -> Tensor:
    """How far from `theta`, (tasks, coordinates), gradients are taken for a difference of them: (tasks, 1).

    1e-2 in float32, as in the trials of docs/science.md, and less in float64 by the root of what that rounds less:
    where rounding and curvature err alike. Parameters that are larger than 1 in the root mean square move further.
    """
    precision = math.sqrt(torch.finfo(theta.dtype).eps / torch.finfo(torch.float32).eps)
    return 1e-2 * precision * theta.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1.0)


class Family(ABC):
    """A distribution of tasks, opened for some splits only.

    `sample` refuses every other split, so that a function which is handed a family opened for training and
    validation cannot reach a test task, whatever seed it uses.
    """

    def __init__(self, namespace: str, coordinates_per_task: int, splits: Collection[Split]) -> None:
        self.namespace = namespace
        self.parts: tuple[Part, ...] = ()
        self.coordinates_per_task = coordinates_per_task
        self.tasks_abreast = tasks_abreast(coordinates_per_task)
        self.splits = frozenset(splits)

    def sample(
        self,
        split: Split,
        *,
        seed: int,
        trajectory: int,
        tasks: int,
        first: int = 0,
        repeats: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> tuple[TaskBatch, ...]:
        """The tasks `first` .. `first + tasks - 1` of a trajectory: one batch, or one for each size where they differ.

        repeats: how often a batch has each of its tasks: all of them, then all of them again

        A task depends on (split, distribution, seed, trajectory, its index) and on nothing else.
        Raises SplitHeldOut when this family was not opened for `split`.
        """
        if split not in self.splits:
            allowed = ", ".join(sorted(self.splits))
            raise SplitHeldOut(
                f"This family was opened for {allowed}; tasks of the {split} split are out of its reach. "
                f"Open it for evaluation (models.tasks.catalogue) where an optimizer is measured."
            )
        seeds = task_seeds(split, self.namespace, seed, trajectory, first, tasks).repeat(repeats)
        return self.batches(seeds, split, dtype, torch.device(device))

    def batches(self, seeds: Tensor, split: Split, dtype: torch.dtype, device: torch.device) -> tuple[TaskBatch, ...]:
        """The tasks with these seeds, which know what they are drawn from and what their tensors are."""
        batches = tuple(self._batches(seeds, split, dtype, device))
        for batch in batches:
            batch.namespace = batch.namespace or self.namespace
            batch.parts = batch.parts or self.parts
        return batches

    @abstractmethod
    def _batches(self, seeds: Tensor, split: Split, dtype: torch.dtype, device: torch.device) -> Sequence[TaskBatch]:
        """The tasks with these seeds, (tasks,) int64 on the CPU.

        Where sizes differ, a task's size is drawn from its seed, and the tasks of a batch keep their order. Which
        batches there are then depends on the seeds, so each stretch of tasks has its own order of tasks, always the
        same.
        """
