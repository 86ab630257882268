"""Lasso with random dictionaries: |D x - y|^2 / 2 + l1 |x|_1 + l2 |x|^2 / 2 (Tibshirani 1996; Zou and Hastie 2005)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.families.lasso import LassoSpec
from models.spec import Split
from models.tasks.base import Family, TaskBatch
from models.tasks.composite import Composite, largest_eigenvalues
from models.tasks.randomness import drawn, normals, streams, uniforms


class LassoBatch(TaskBatch):
    """`D` (tasks, measurements, dimension), `y` (tasks, measurements, 1) and the starting points (tasks, dimension)."""

    def __init__(self, spec: LassoSpec, D: Tensor, y: Tensor, start: Tensor) -> None:
        super().__init__(D.shape[0], D.shape[2], D.dtype, D.device)
        self.D, self.y = D, y
        self._spec = spec
        self._start = start

    def initial(self) -> Tensor:
        return self._start.reshape(-1).clone()

    def buffers(self) -> Mapping[str, Tensor]:
        return {"D": self.D, "y": self.y, "start": self._start}

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:  # noqa: ARG002 - a lasso has no minibatches
        x = theta.view(self.tasks, -1)
        fitted = self._residual(x).square().sum(dim=(1, 2)) / 2
        return fitted + self._spec.l1 * x.abs().sum(dim=1) + self._spec.l2 / 2 * x.square().sum(dim=1)

    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """Where an entry is 0, the subgradient of its absolute value is 0."""
        with torch.no_grad():
            x = theta.view(self.tasks, -1)
            slope = torch.bmm(self.D.transpose(1, 2), self._residual(x)).squeeze(2)
            slope.add_(x.sign(), alpha=self._spec.l1).add_(x, alpha=self._spec.l2)
            return self.losses(theta, step), slope.reshape(-1)

    def hessian_vector(
        self,
        theta: Tensor,  # noqa: ARG002 - the Hessian is the same everywhere but where an entry is 0
        step: int | Tensor,  # noqa: ARG002
        v: Tensor,
        *,
        gradient: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        with torch.no_grad():
            along = v.view(self.tasks, -1, 1)
            product = torch.bmm(self.D.transpose(1, 2), torch.bmm(self.D, along))
            return product.add_(along, alpha=self._spec.l2).reshape(-1)

    def composite(self) -> Composite:
        l1 = torch.full((self.coordinates,), self._spec.l1, dtype=self.dtype, device=self.device)
        return Composite(l1, largest_eigenvalues(self.D) + self._spec.l2)

    def _residual(self, x: Tensor) -> Tensor:
        # (tasks, dimension) -> (tasks, measurements, 1)
        return torch.bmm(self.D, x.unsqueeze(2)) - self.y


class LassoFamily(Family):
    """Draws the dictionary, the sparse vector, the noise of its measurements, and theta_0."""

    def __init__(
        self,
        spec: LassoSpec,
        splits: Collection[Split],
        data_dir: Path | None = None,  # noqa: ARG002 - a lasso needs no data
    ) -> None:
        super().__init__(f"lasso/{spec.model_dump_json()}", spec.coordinates_per_task, splits)
        self.spec = spec

    def _batches(
        self,
        seeds: Tensor,
        split: Split,  # noqa: ARG002 - there are no data to keep apart
        dtype: torch.dtype,
        device: torch.device,
    ) -> tuple[TaskBatch, ...]:
        d, m = self.spec.dimension, self.spec.measurements
        D = drawn(normals, streams(seeds, "dictionary"), m * d, dtype).mul_(m**-0.5).view(-1, m, d)
        support = drawn(uniforms, streams(seeds, "support"), d, torch.float64) < self.spec.nonzero
        vector = drawn(normals, streams(seeds, "size"), d, dtype) * support
        noise = drawn(normals, streams(seeds, "noise"), m, dtype) * self.spec.noise_std
        y = torch.bmm(D, vector.unsqueeze(2)) + noise.unsqueeze(2)
        start = drawn(normals, streams(seeds, "start"), d, dtype) * self.spec.start_std
        return (LassoBatch(self.spec, D.to(device), y.to(device), start.to(device)),)
