"""Pictures of tasks, taken in the middle of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.tasks.base import TaskBatch

PICTURED_PIXELS = 2 * 64 * 64
"""Pixels of the tasks whose pictures a run keeps, at each of some steps; one task at least."""


@dataclass(frozen=True)
class Pictures:
    """What the first tasks of a sample looked like in the middle of a run.

    images: uint8 (tasks, steps, height, width, 3)
    steps: after which inner steps
    given: what the images are to be held against, by name, uint8 (tasks, height, width, 3)
    """

    images: Tensor
    steps: tuple[int, ...]
    given: Mapping[str, Tensor]


def pictured_steps(horizon: int) -> tuple[int, ...]:
    """After which inner steps pictures are taken."""
    return tuple(sorted({max(1, horizon // part) for part in (8, 4, 2, 1)}))


class Film:
    """Takes the pictures of a run, of its first tasks alone."""

    def __init__(self, horizon: int) -> None:
        self._steps = pictured_steps(horizon)
        self._frames: list[list[Tensor]] = []  # of each batch that is looked at, a frame a step
        self._given: list[Mapping[str, Tensor]] = []
        self._left: int | None = None  # tasks still to be looked at; unknown before the first picture

    def look(self, tasks: TaskBatch, theta: Tensor, step: int) -> None:
        if step not in self._steps or self._left == 0:
            return
        images = tasks.pictures(theta)
        if images is None:
            return
        if self._left is None:
            self._left = max(1, PICTURED_PIXELS // (images.shape[1] * images.shape[2]))
        if step == self._steps[0]:
            self._frames.append([])
            self._given.append({name: each[: self._left].cpu() for name, each in tasks.given_pictures().items()})
        self._frames[-1].append(images[: self._left].cpu())
        if step == self._steps[-1]:
            self._left -= self._frames[-1][-1].shape[0]

    def developed(self) -> Pictures | None:
        if not self._frames:
            return None
        images = torch.cat([torch.stack(frames, dim=1) for frames in self._frames])
        given = {name: torch.cat([each[name] for each in self._given]) for name in self._given[0]}
        return Pictures(images, self._steps, given)
