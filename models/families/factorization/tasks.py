"""Matrix factorizations: sum(C (U V^T - M)^2) / 2 + l2 (|U|^2 + |V|^2) / 2, where C is 0 at unknown entries."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.families.factorization import FactorizationSpec
from models.spec import Split
from models.tasks.base import Family, TaskBatch
from models.tasks.randomness import drawn, normals, streams, uniforms


class FactorizationBatch(TaskBatch):
    """`M` and `C` (tasks, rows, columns), and the starting points (tasks, coordinates): U before V."""

    def __init__(self, spec: FactorizationSpec, M: Tensor, C: Tensor, start: Tensor) -> None:
        super().__init__(M.shape[0], start.shape[1], M.dtype, M.device)
        self.M, self.C = M, C
        self._spec = spec
        self._start = start

    def initial(self) -> Tensor:
        return self._start.reshape(-1).clone()

    def buffers(self) -> Mapping[str, Tensor]:
        return {"M": self.M, "C": self.C, "start": self._start}

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:  # noqa: ARG002 - no minibatches
        U, V = self._factors(theta)
        errors = torch.bmm(U, V.transpose(1, 2)) - self.M
        penalty = theta.view(self.tasks, -1).square().sum(dim=1) * (self._spec.l2 / 2)
        return (self.C * errors.square()).sum(dim=(1, 2)) / 2 + penalty

    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            U, V = self._factors(theta)
            weighted = self.C * (torch.bmm(U, V.transpose(1, 2)) - self.M)
            gradient = theta * self._spec.l2
            by_U, by_V = self._factors(gradient)
            by_U.baddbmm_(weighted, V)
            by_V.baddbmm_(weighted.transpose(1, 2), U)
            return self.losses(theta, step), gradient

    def hessian_vector(
        self,
        theta: Tensor,
        step: int | Tensor,  # noqa: ARG002 - no minibatches
        v: Tensor,
        *,
        gradient: Tensor | None = None,  # noqa: ARG002 - the product is exact without it
    ) -> Tensor:
        with torch.no_grad():
            (U, V), (along_U, along_V) = self._factors(theta), self._factors(v)
            weighted = self.C * (torch.bmm(U, V.transpose(1, 2)) - self.M)
            moved = self.C * torch.baddbmm(torch.bmm(U, along_V.transpose(1, 2)), along_U, V.transpose(1, 2))
            product = v * self._spec.l2
            by_U, by_V = self._factors(product)
            by_U.baddbmm_(weighted, along_V).baddbmm_(moved, V)
            by_V.baddbmm_(weighted.transpose(1, 2), along_U).baddbmm_(moved.transpose(1, 2), U)
            return product

    def _factors(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Views of theta: (tasks, rows, rank), (tasks, columns, rank)."""
        rows, columns, rank = self._spec.rows, self._spec.columns, self._spec.rank
        by_task = theta.view(self.tasks, -1)
        U, V = by_task[:, : rows * rank], by_task[:, rows * rank :]
        return U.view(-1, rows, rank), V.view(-1, columns, rank)


class FactorizationFamily(Family):
    """Draws the matrix, its noise, which entries are known, and theta_0."""

    def __init__(
        self,
        spec: FactorizationSpec,
        splits: Collection[Split],
        data_dir: Path | None = None,  # noqa: ARG002 - everything is drawn
    ) -> None:
        super().__init__(f"factorization/{spec.model_dump_json()}", spec.coordinates_per_task, splits)
        self.spec = spec

    def _batches(
        self,
        seeds: Tensor,
        split: Split,  # noqa: ARG002 - there are no data to keep apart
        dtype: torch.dtype,
        device: torch.device,
    ) -> tuple[TaskBatch, ...]:
        spec = self.spec
        rows, columns, rank = spec.rows, spec.columns, spec.true_rank
        true = drawn(normals, streams(seeds, "matrix"), (rows + columns) * rank, dtype)
        left, right = true[:, : rows * rank], true[:, rows * rank :]
        M = drawn(normals, streams(seeds, "noise"), rows * columns, dtype).mul_(spec.noise_std).view(-1, rows, columns)
        thin = left.reshape(-1, rows, rank), right.reshape(-1, columns, rank).transpose(1, 2)
        M.baddbmm_(*thin, alpha=rank**-0.5)
        C = drawn(lambda *given: uniforms(*given) < spec.known, streams(seeds, "known"), rows * columns, dtype)
        C.mul_(rows * columns / C.sum(dim=1, keepdim=True).clamp(min=1))
        start = drawn(normals, streams(seeds, "start"), spec.coordinates_per_task, dtype) * spec.start_std
        placed = (each.to(device) for each in (M, C.view_as(M), start))
        return (FactorizationBatch(spec, *placed),)
