"""The tensors of the tasks on a flat axis of coordinates, for baselines that look at matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from models.task_spec import Part
    from models.tasks.base import TaskBatch


def is_matrix(part: Part) -> bool:
    """Whether a tensor has rows and columns. One with more dimensions is a matrix of its first and all others."""
    return len(part.shape) >= 2 and min(part.shape[0], part.size // part.shape[0]) > 1


class Tensors:
    """Views of each tensor of all tasks: (tasks, rows, columns) of a matrix, (tasks, size) of another one.

    Raises ValueError where the parts of the tasks are not known.
    """

    def __init__(self, tasks: TaskBatch) -> None:
        self._tasks = tasks.tasks
        self.parts: Sequence[Part] = tasks.parts
        size = tasks.coordinates_per_task
        if sum(part.size for part in self.parts) != size:
            raise ValueError(
                f"a task has {size} coordinates, and its family names parts with "
                f"{sum(part.size for part in self.parts)}; a baseline for matrices needs to know them. Leave it out"
            )

    def of(self, axis: Tensor) -> list[Tensor]:
        """(coordinates,) -> a view for each part."""
        by_task, start, found = axis.view(self._tasks, -1), 0, []
        for part in self.parts:
            view = by_task[:, start : start + part.size]
            found.append(view.view(self._tasks, part.shape[0], -1) if is_matrix(part) else view)
            start += part.size
        return found
