"""Families that each break one promise: what `families check` must find. Named by the check that finds them."""

from __future__ import annotations

from typing import Literal

import torch

from models.families.quadratic import QuadraticSpec
from models.families.quadratic.tasks import QuadraticBatch, QuadraticFamily
from models.spec import Split
from models.tasks.base import TaskBatch


class BrokenSpec(QuadraticSpec):
    kind: Literal["broken"] = "broken"
    dimension: int = 4


class Batch(QuadraticBatch):
    @classmethod
    def like(cls, batch):
        return cls(batch.W, batch.y, batch._start)


class Broken(QuadraticFamily):
    batch = Batch

    def _batches(self, seeds, split, dtype, device):
        return [self.batch.like(found) for found in super()._batches(seeds, split, dtype, device)]


class size(Broken):  # noqa: N801
    class batch(Batch):  # noqa: N801
        def initial(self):
            return self._start.flatten()[1:]


class gradient(Broken):  # noqa: N801
    class batch(Batch):  # noqa: N801
        def losses_and_gradient(self, theta, step):
            losses, found = super().losses_and_gradient(theta, step)
            return losses, found * 1.01


class hessian(Broken):  # noqa: N801
    class batch(Batch):  # noqa: N801
        def hessian_vector(self, theta, step, v, *, gradient=None):
            return super().hessian_vector(theta, step, v, gradient=gradient).flip(0)


class parted(Broken):  # noqa: N801
    class batch(Batch):  # noqa: N801
        def parted(self):
            return self


class pictures(Broken):  # noqa: N801
    class batch(Batch):  # noqa: N801
        def pictures(self, theta):
            return (
                theta.view(self.tasks, 1, -1, 1).expand(-1, -1, -1, 3).byte()
            )  # though the spec says that it has none


class company(Broken):  # noqa: N801
    class batch(Batch):  # noqa: N801
        def losses(self, theta, step):
            return super().losses(theta, step) / self.tasks

        def losses_and_gradient(self, theta, step):
            losses, found = super().losses_and_gradient(theta, step)
            return losses / self.tasks, found / self.tasks


class splits(Broken):  # noqa: N801
    def sample(self, split, **which):
        self.splits = frozenset(Split)
        return super().sample(split, **which)


class same(Broken):  # noqa: N801
    def _batches(self, seeds, split, dtype, device):
        return super()._batches(torch.zeros_like(seeds), split, dtype, device)


class seeds(Broken):  # noqa: N801
    def _batches(self, seeds, split, dtype, device):
        [found] = super()._batches(seeds, split, dtype, device)
        return [Batch(found.W, found.y + 1e-3 * torch.randn_like(found.y), found._start)]


class dtype(Broken):  # noqa: N801
    class batch(Batch):  # noqa: N801
        def initial(self):
            return torch.zeros(self.coordinates)


class graphs(Broken):  # noqa: N801
    class batch(Batch):  # noqa: N801
        def buffers(self):
            return {"W": self.W, "start": self._start}


class differences(Broken):  # noqa: N801
    """Breaks none: its product is the one that every family has."""

    class batch(Batch):  # noqa: N801
        hessian_vector = TaskBatch.hessian_vector


class draws(Broken):  # noqa: N801
    """Breaks every promise, with the same exception."""

    def _batches(self, *_):
        raise RuntimeError("no task can be drawn")
