"""Many tasks at once, worked in groups of whole tasks.

A window is a matter of its own tasks alone: the meta-gradient is a sum over them. So the tasks of a meta-step need not
go through it side by side. Group after group does, each small enough that what its steps leave for the gradient (the
native backend's tape) is kept whole and its state stays in the caches. A coordinate then costs the same among a
thousand and among a million, and of G and D only one group's are there at a time.

`models.memory.group_tasks` says how many tasks make a group; a small batch is one group, and so is any on a GPU, which
wants all the work that it can get at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from models.backends import Backend
from models.captured import Windows
from models.memory import group_tasks
from models.spec import share
from models.tasks.base import TaskBatch
from models.unroll import Position, Window, begin


class Groups:
    """The tasks of a trajectory, in groups, and where each group stands."""

    def __init__(
        self,
        batches: Sequence[TaskBatch],
        backend: Backend,
        positions: Sequence[Position] = (),
        horizon: int | None = None,
    ) -> None:
        """positions: of each group; default: every task at its starting point, with an empty memory."""
        self.batches = tuple(batches)
        self.positions: list[Position] = list(positions) or [begin(batch, backend, horizon) for batch in batches]

    def unroll(self, windows: Windows, unroll_steps: int) -> Window:
        """One window of all groups: losses (unroll_steps, tasks) group by group, the gradient of their mean.

        A group moves on as soon as it is done, so that one group's memory at a time is there twice.
        """
        if len(self.batches) == 1:
            window, self.positions[0] = windows(self.batches[0], self.positions[0], unroll_steps)
            return window
        tasks, column = sum(batch.tasks for batch in self.batches), 0
        losses, gradient = self.positions[0].theta.new_empty(unroll_steps, tasks), None
        for number, batch in enumerate(self.batches):
            before = self.positions[number]
            window, after = windows(batch, before, unroll_steps)
            self.positions[number] = _in_place(before, after)
            gradient = torch.zeros_like(window.gradient) if gradient is None else gradient
            gradient.add_(window.gradient, alpha=batch.tasks / tasks)
            losses[:, column : column + batch.tasks] = window.losses
            column += batch.tasks
        assert gradient is not None
        return Window(losses, gradient)


def _in_place(before: Position, after: Position) -> Position:
    """`after`, in the tensors of `before`.

    New tensors would stay among the temporaries of the next group's steps, and keep the heap from using that space
    again: with 81 groups it grew by a quarter.
    """
    for name in ("theta", "gradient", "losses"):
        getattr(before, name).copy_(getattr(after, name))
    for kept, moved in zip(before.memory, after.memory, strict=True):
        kept.copy_(moved)
    return replace(before, step=after.step)


def ranges(own: range, coordinates_per_task: int, record: int, unroll_steps: int, device: torch.device) -> list[range]:
    """The tasks `own` as groups, none longer than another by more than one task. record: as for `group_tasks`."""
    if device.type != "cpu":
        return [own]
    most = group_tasks(coordinates_per_task, record, unroll_steps)
    groups = -(-len(own) // most)
    shares = (share(len(own), groups, number) for number in range(groups))
    return [range(own.start + part.start, own.start + part.stop) for part in shares]
