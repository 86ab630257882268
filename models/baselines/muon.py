"""Muon: momentum, orthogonalized (Jordan et al. 2024), for matrices; AdamW for all else.

It is torch.optim.Muon with `match_rms_adamw`, by which one learning rate serves matrices and the rest (Liu et al. 2025,
"Muon is scalable for LLM training"), and with AdamW's weight decay. torch orthogonalizes in bfloat16; this does it in
the precision of the run, which is nearer to the iteration's own answer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from models.baselines.adamw import WEIGHT_DECAY, AdamWRun
from models.baselines.base import Tunable
from models.baselines.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor

    from models.baselines.base import Run
    from models.tasks.base import TaskBatch

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
EPSILON = 1e-7


class MuonRun:
    def __init__(self, tasks: TaskBatch) -> None:
        self._tensors = Tensors(tasks)
        self._runs: list[Run] = []

    def step(self, theta: Tensor, gradient: Tensor, learning_rate: float) -> None:
        own, gradients = self._tensors.of(theta), self._tensors.of(gradient)
        if not self._runs:
            self._runs = [_MatrixRun() if tensor.dim() == 3 else AdamWRun() for tensor in own]
        for run, tensor, its in zip(self._runs, own, gradients, strict=True):
            run.step(tensor, its, learning_rate)


class _MatrixRun:
    def __init__(self) -> None:
        self._mean: Tensor | None = None

    def step(self, theta: Tensor, gradient: Tensor, learning_rate: float) -> None:
        if self._mean is None:
            self._mean = gradient.new_zeros(gradient.shape)
        self._mean.lerp_(gradient, 1 - MOMENTUM)
        update = orthogonalized(gradient.lerp(self._mean, MOMENTUM))
        theta.mul_(1 - learning_rate * WEIGHT_DECAY)
        theta.sub_(update, alpha=learning_rate * 0.2 * math.sqrt(max(theta.shape[1:])))


def orthogonalized(matrices: Tensor) -> Tensor:
    """Newton and Schulz's iteration, (n, rows, columns): the singular vectors as they are, and the singular values near
    1, where they are not much smaller than the largest."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    found = matrices.mT if tall else matrices
    found = found / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=EPSILON)
    for _ in range(ITERATIONS):
        gram = found @ found.mT
        found = found.baddbmm(gram.baddbmm(gram, gram, beta=b, alpha=c), found, beta=a)
    result: Tensor = found.mT if tall else found
    return result


MUON = Tunable("muon", "Muon", by_default=False, centre=-4, start=MuonRun, torch=None, matrices=True, rule=False)
