"""The losses of a run, step by step, and the two numbers that stand for them: how it ends, and its area."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.film import Pictures
from models.tasks.base import HeldOut

FINAL_STEPS = 5  # a single step's minibatch is worth several percent of noise on a network


@dataclass(frozen=True)
class Curves:
    """Losses (steps + 1, tasks): f at theta_0 .. theta_horizon on the minibatch of that step; or, where `looks` says
    after which steps (0 first), on held-out data.

    held_out, pictures: loss and accuracy at the end of the run, and pictures of some steps, where they were asked for
    """

    losses: Tensor
    held_out: HeldOut | None = None
    looks: tuple[int, ...] | None = None
    pictures: Pictures | None = None

    @property
    def steps(self) -> tuple[int, ...]:
        """The number of steps that each row of `losses` comes after."""
        return tuple(range(self.losses.shape[0])) if self.looks is None else self.looks

    @property
    def horizon(self) -> int:
        return self.steps[-1]

    @property
    def smooth(self) -> Tensor:
        """The losses without the noise of minibatches: means of FINAL_STEPS steps, or held-out losses as they are."""
        return trailing_means(self.losses) if self.looks is None else self.losses

    @property
    def final(self) -> Tensor:
        """The mean loss of the last FINAL_STEPS steps, or the held-out loss after the last one: (tasks,); a run that
        met a loss that is not finite counts as infinite."""
        return torch.where(self.finite, self.smooth[-1], torch.inf)

    @property
    def area(self) -> Tensor:
        """The mean loss over all rows but the first, which is the same whatever optimizes: (tasks,)."""
        moved = self.losses[1:] if self.horizon else self.losses
        return torch.where(self.finite, moved.mean(dim=0), torch.inf)

    def cut(self, steps: int) -> Curves:
        """The first `steps` steps of the run, without what was held out, which is measured at the end."""
        if self.looks is None:
            return Curves(self.losses[: steps + 1])
        return self.at(tuple(look for look in self.looks if look <= steps))

    def at(self, looks: tuple[int, ...]) -> Curves:
        """The rows after these steps, of held-out losses."""
        assert self.looks is not None
        return Curves(self.losses[[self.looks.index(look) for look in looks]], None, looks)

    @property
    def finite(self) -> Tensor:
        return torch.isfinite(self.losses).all(dim=0)


def trailing_means(losses: Tensor) -> Tensor:
    """The mean loss of the last FINAL_STEPS steps up to each: (horizon + 1, tasks) -> the same. The loss at the start
    counts for itself alone, so that step 3 has the mean of three."""
    means = losses.clone()
    steps = losses.shape[0] - 1
    for back in range(1, min(FINAL_STEPS, steps)):
        means[1 + back :] += losses[1 : steps + 1 - back]
    counts = torch.arange(steps + 1, device=losses.device).clamp(1, FINAL_STEPS)
    return means / counts[:, None]
