"""Random quadratics, f(theta) = ||W theta - y||^2 (Andrychowicz et al. 2016, section 3.1)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.families.quadratic import QuadraticSpec
from models.spec import Split
from models.tasks.base import Family, TaskBatch
from models.tasks.randomness import drawn, normals, streams, uniforms


class QuadraticBatch(TaskBatch):
    """`W` (tasks, d, d), `y` (tasks, d, 1) and the starting points (tasks, d)."""

    def __init__(self, W: Tensor, y: Tensor, start: Tensor) -> None:
        super().__init__(W.shape[0], W.shape[2], W.dtype, W.device)
        self.W = W
        self.y = y
        self._start = start

    def initial(self) -> Tensor:
        return self._start.reshape(-1).clone()

    def buffers(self) -> Mapping[str, Tensor]:
        return {"W": self.W, "y": self.y, "start": self._start}

    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - see losses
        with torch.no_grad():
            residual = self._residual(theta)
            losses = residual.square().sum(dim=(1, 2))
            gradient = torch.bmm(self.W.transpose(1, 2), residual).mul_(2.0)
            return losses, gradient.reshape(-1)

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:  # noqa: ARG002 - a quadratic has no minibatches
        return self._residual(theta).square().sum(dim=(1, 2))

    def hessian_vector(
        self,
        theta: Tensor,  # noqa: ARG002 - the Hessian is the same everywhere
        step: int | Tensor,  # noqa: ARG002
        v: Tensor,
        *,
        gradient: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        with torch.no_grad():
            along = torch.bmm(self.W, v.view(self.tasks, -1, 1))
            return torch.bmm(self.W.transpose(1, 2), along).mul_(2.0).reshape(-1)

    def _residual(self, theta: Tensor) -> Tensor:
        # (coordinates,) -> (tasks, d, 1)
        return torch.bmm(self.W, theta.view(self.tasks, -1, 1)) - self.y


class QuadraticFamily(Family):
    """Draws W and y from the standard normal or from U(0, 1), and theta_0 from N(0, start_std^2)."""

    def __init__(
        self,
        spec: QuadraticSpec,
        splits: Collection[Split],
        data_dir: Path | None = None,  # noqa: ARG002 - a quadratic needs no data
    ) -> None:
        super().__init__(
            f"quadratic/{spec.dimension}/{spec.distribution}/{spec.start_std!r}", spec.coordinates_per_task, splits
        )
        self.spec = spec

    def _batches(
        self,
        seeds: Tensor,
        split: Split,  # noqa: ARG002 - a quadratic has no data to keep apart
        dtype: torch.dtype,
        device: torch.device,
    ) -> tuple[TaskBatch, ...]:
        d = self.spec.dimension
        draw = normals if self.spec.distribution == "gaussian" else uniforms
        entries = drawn(draw, streams(seeds, "problem"), d * d + d, dtype)
        start = drawn(normals, streams(seeds, "start"), d, dtype) * self.spec.start_std
        W = entries[:, : d * d].reshape(-1, d, d)
        y = entries[:, d * d :].reshape(-1, d, 1)
        return (QuadraticBatch(W.to(device), y.to(device), start.to(device)),)
