"""Tasks of another family in scaled coordinates, with a convex function of further coordinates added."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.errors import FamilyBroken
from models.families.augmented import AugmentedSpec
from models.spec import Split
from models.tasks.base import Family, HeldOut, TaskBatch
from models.tasks.catalogue import opened
from models.tasks.randomness import drawn, normals, streams, uniforms


class AugmentedBatch(TaskBatch):
    """f(scale * phi) + |x - point|^2 / n: `scale` (tasks, d), `point` and the start of x (tasks, n)."""

    def __init__(self, inner: TaskBatch, scale: Tensor, point: Tensor, start: Tensor) -> None:
        size = inner.coordinates_per_task + point.shape[1]
        super().__init__(inner.tasks, size, inner.dtype, inner.device)
        self._inner = inner
        self._scale, self._point, self._start = scale, point, start

    def initial(self) -> Tensor:
        return self._joined(self._inner.initial().view_as(self._scale) / self._scale, self._start)

    def buffers(self) -> Mapping[str, Tensor]:
        inner = {f"inner {name}": each for name, each in self._inner.buffers().items()}
        return inner | {"scale": self._scale, "point": self._point, "start of x": self._start}

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:
        inner, x = self._parted(theta)
        return self._inner.losses(inner, step) + self._convex(x)

    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            inner, x = self._parted(theta)
            losses, gradient = self._inner.losses_and_gradient(inner, step)
            slope = (x - self._point) * (2 / max(1, x.shape[1]))
            return losses + self._convex(x), self._joined(gradient.view_as(self._scale) * self._scale, slope)

    def hessian_vector(
        self,
        theta: Tensor,
        step: int | Tensor,
        v: Tensor,
        *,
        gradient: Tensor | None = None,
    ) -> Tensor:
        with torch.no_grad():
            (inner, x), (along, along_x) = self._parted(theta), self._parted(v)
            known = None
            if gradient is not None:
                known = (gradient.view(self.tasks, -1)[:, : self._scale.shape[1]] / self._scale).reshape(-1)
            product = self._inner.hessian_vector(inner, step, along, gradient=known)
            return self._joined(product.view_as(self._scale) * self._scale, along_x * (2 / max(1, x.shape[1])))

    def parted(self) -> AugmentedBatch | None:
        inner = self._inner.parted()
        if inner is None or inner.outer is None:
            return None
        kept = self._scale, self._point, self._start
        batch, batch.outer = AugmentedBatch(inner, *kept), AugmentedBatch(inner.outer, *kept)
        batch.namespace = batch.outer.namespace = self.namespace
        return batch

    def held_out(self, theta: Tensor) -> HeldOut | None:
        """The family's own loss alone."""
        return self._inner.held_out(self._parted(theta)[0])

    def _convex(self, x: Tensor) -> Tensor:
        return (x - self._point).square().sum(dim=1) / max(1, x.shape[1])

    def _parted(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The family's own parameters, (coordinates,), and the further ones, (tasks, n)."""
        by_task = theta.view(self.tasks, -1)
        d = self._scale.shape[1]
        return (by_task[:, :d] * self._scale).reshape(-1), by_task[:, d:]

    @staticmethod
    def _joined(own: Tensor, further: Tensor) -> Tensor:
        return torch.cat([own, further], dim=1).reshape(-1)


class AugmentedFamily(Family):
    """Draws scales, and the point and the start of the further coordinates from the standard normal distribution."""

    def __init__(self, spec: AugmentedSpec, splits: Collection[Split], data_dir: Path | None) -> None:
        self._inner = opened(spec.tasks, splits, data_dir)
        told = f"augmented/{spec.scaling!r}/{spec.convex}/{self._inner.namespace}"
        super().__init__(told, spec.coordinates_per_task, splits)
        self.spec = spec

    def _batches(self, seeds: Tensor, split: Split, dtype: torch.dtype, device: torch.device) -> tuple[TaskBatch, ...]:
        batches = self._inner.batches(seeds, split, dtype, device)
        if len(batches) > 1:
            raise FamilyBroken(
                f"Tasks of kind {self.spec.tasks.kind!r} differ in size and cannot be augmented; declare the family "
                f"without `augmented`."
            )
        [inner] = batches
        spec, d = self.spec, inner.coordinates_per_task
        share = 2 * drawn(uniforms, streams(seeds, "scale"), d, dtype) - 1
        scale = share.mul_(math.log(spec.scaling)).exp_()
        point, start = (drawn(normals, streams(seeds, name), spec.convex, dtype) for name in ("point", "start of x"))
        return (AugmentedBatch(inner, scale.to(device), point.to(device), start.to(device)),)
