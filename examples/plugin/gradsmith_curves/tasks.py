"""Robust fits of curves, the half with torch, which workers open: it makes the tasks."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from gradsmith_curves import CurveSpec
from models.spec import Split
from models.tasks.base import Family, TaskBatch
from models.tasks.randomness import drawn, indices, normals, streams, uniforms


class CurveBatch(TaskBatch):
    """Some curves side by side.

    polynomials: the Chebyshev polynomials at each point (points, coefficients), the same for every curve
    heights: the measured points (tasks, points)
    """

    def __init__(self, spec: CurveSpec, seeds: Tensor, polynomials: Tensor, heights: Tensor) -> None:
        super().__init__(heights.shape[0], spec.coordinates_per_task, heights.dtype, heights.device)
        self._batch_size = spec.batch_size
        self._minibatches = streams(seeds, "minibatch").to(heights.device)
        self._polynomials = polynomials
        self._heights = heights

    def initial(self) -> Tensor:
        return torch.zeros(self.coordinates, dtype=self.dtype, device=self.device)

    def buffers(self) -> Mapping[str, Tensor]:
        return {"minibatches": self._minibatches, "heights": self._heights}

    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            polynomials, residuals = self._residuals(theta, step)
            roots = (residuals.square() + 1.0).sqrt()
            slopes = residuals / roots / self._batch_size  # (tasks, batch)
            gradient = torch.bmm(slopes[:, None, :], polynomials)  # (tasks, 1, coefficients)
            return (roots - 1.0).mean(dim=1), gradient.reshape(-1)

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:
        _, residuals = self._residuals(theta, step)
        return ((residuals.square() + 1.0).sqrt() - 1.0).mean(dim=1)

    def _residuals(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        # (tasks, batch, coefficients), (tasks, batch)
        rows = indices(self._minibatches, step, self._batch_size, self._heights.shape[1])
        polynomials = self._polynomials[rows]
        fitted = torch.bmm(polynomials, theta.view(self.tasks, -1, 1)).squeeze(2)
        return polynomials, fitted - self._heights.gather(1, rows)


class CurveFamily(Family):
    """Coefficients fall off as 1 / (k + 1); errors are normal, and those of outliers thirty times as large."""

    def __init__(self, spec: CurveSpec, splits: Collection[Split], data_dir: Path | None = None) -> None:  # noqa: ARG002
        # Seeds are made of this text, so it names every parameter that a task depends on.
        shape = f"{spec.degree}/{spec.points}/{spec.noise!r}/{spec.outliers!r}/{spec.batch_size}"
        super().__init__(f"curve/{shape}", spec.coordinates_per_task, splits)
        self.spec = spec

    def _batches(
        self,
        seeds: Tensor,
        split: Split,  # noqa: ARG002 - a curve has no data to keep apart
        dtype: torch.dtype,
        device: torch.device,
    ) -> tuple[TaskBatch, ...]:
        spec, orders = self.spec, torch.arange(self.spec.degree + 1, dtype=torch.float64)
        angles = (torch.arange(spec.points, dtype=torch.float64) + 0.5) * (math.pi / spec.points)
        polynomials = (angles[:, None] * orders).cos().to(dtype)  # (points, coefficients)
        coefficients = drawn(normals, streams(seeds, "curve"), spec.degree + 1, dtype).div_(orders.to(dtype) + 1.0)
        errors = drawn(normals, streams(seeds, "errors"), spec.points, dtype).mul_(spec.noise)
        far = drawn(uniforms, streams(seeds, "outliers"), spec.points, dtype) < spec.outliers
        heights = coefficients @ polynomials.T + torch.where(far, 30.0 * errors, errors)
        return (CurveBatch(spec, seeds, polynomials.to(device), heights.to(device)),)
