"""Test functions of the literature, each with its gradient in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.families.functions import FunctionSpec
from models.spec import Split
from models.tasks.base import Family, TaskBatch
from models.tasks.randomness import drawn, normals, streams, uniforms

FunctionAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(tasks, d) -> (tasks,), (tasks, d). The minimum is 0 and lies at the origin."""


def rosenbrock(x: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over i of 100 (z[i+1] - z[i]^2)^2 + (1 - z[i])^2, where z = x + 1."""
    z = x + 1
    here, ahead = z[:, :-1], z[:, 1:]
    bend = ahead - here.square()
    gradient = torch.zeros_like(z)
    gradient[:, :-1] = -400 * bend * here + 2 * (here - 1)
    gradient[:, 1:] += 200 * bend
    return (100 * bend.square() + (1 - here).square()).sum(1), gradient


def rastrigin(x: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over i of x[i]^2 + 10 (1 - cos(2 pi x[i]))."""
    angle = 2 * math.pi * x
    return (x.square() + 10 * (1 - angle.cos())).sum(1), 2 * x + 20 * math.pi * angle.sin()


def ackley(x: Tensor) -> tuple[Tensor, Tensor]:
    """20 (1 - exp(-r / 5)) + e - exp(c): r is the root of the mean square of x, c the mean of cos(2 pi x).

    The gradient at the origin itself, where r has none, is 0.
    """
    d = x.shape[1]
    angle = 2 * math.pi * x
    r = x.square().mean(1).sqrt()
    far, near = torch.exp(-r / 5), torch.exp(angle.cos().mean(1))
    outward = x / (d * r.clamp(min=torch.finfo(x.dtype).tiny).unsqueeze(1))
    gradient = 4 * far.unsqueeze(1) * outward + near.unsqueeze(1) * angle.sin() * (2 * math.pi / d)
    return 20 * (1 - far) + math.e - near, gradient


def griewank(x: Tensor) -> tuple[Tensor, Tensor]:
    """1 plus the sum over i of x[i]^2 / 4000, less the product over i of cos(x[i] / sqrt(i))."""
    root = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device).sqrt()
    cosines = (x / root).cos()
    one = torch.ones_like(x[:, :1])
    before = torch.cat([one, cosines[:, :-1]], dim=1).cumprod(dim=1)
    after = torch.cat([one, cosines[:, 1:].flip(1)], dim=1).cumprod(dim=1).flip(1)
    gradient = x / 2000 + before * after * (x / root).sin() / root
    return 1 + x.square().sum(1) / 4000 - cosines.prod(dim=1), gradient


def beale(x: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over k = 1, 2, 3 of (c[k] - a + a b^k)^2, where (a, b) = x + (3, 1/2) and c = (1.5, 2.25, 2.625)."""
    a, b = x[:, 0] + 3, x[:, 1] + 0.5
    loss, by_a, by_b = torch.zeros_like(a), torch.zeros_like(a), torch.zeros_like(a)
    for k, c in enumerate((1.5, 2.25, 2.625), 1):
        residual = c - a + a * b**k
        loss = loss + residual.square()
        by_a = by_a + 2 * residual * (b**k - 1)
        by_b = by_b + 2 * residual * a * k * b ** (k - 1)
    return loss, torch.stack([by_a, by_b], dim=1)


def himmelblau(x: Tensor) -> tuple[Tensor, Tensor]:
    """(a^2 + b - 11)^2 + (a + b^2 - 7)^2, where (a, b) = x + (3, 2)."""
    a, b = x[:, 0] + 3, x[:, 1] + 2
    first, second = a.square() + b - 11, a + b.square() - 7
    gradient = torch.stack([4 * first * a + 2 * second, 2 * first + 4 * second * b], dim=1)
    return first.square() + second.square(), gradient


FUNCTIONS: dict[str, FunctionAndGradient] = {
    "rosenbrock": rosenbrock,
    "rastrigin": rastrigin,
    "ackley": ackley,
    "griewank": griewank,
    "beale": beale,
    "himmelblau": himmelblau,
}


class FunctionBatch(TaskBatch):
    """The minimum of each task (tasks, d) and its starting point (tasks, d).

    turn: a matrix of each task, (tasks, d, d), that a point's distance from the minimum is multiplied by, or its
        diagonal, (tasks, d); None for the identity
    """

    def __init__(
        self, function: FunctionAndGradient, minimum: Tensor, start: Tensor, turn: Tensor | None = None
    ) -> None:
        super().__init__(minimum.shape[0], minimum.shape[1], minimum.dtype, minimum.device)
        self._function = function
        self._minimum = minimum
        self._start = start
        self._turn = turn

    def initial(self) -> Tensor:
        return self._start.reshape(-1).clone()

    def buffers(self) -> Mapping[str, Tensor]:
        found = {"minimum": self._minimum, "start": self._start}
        return found if self._turn is None else {**found, "turn": self._turn}

    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - no minibatches
        with torch.no_grad():
            losses, gradient = self._function(self._turned(theta.view(self.tasks, -1) - self._minimum))
            return losses, self._turned_back(gradient).reshape(-1)

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:  # noqa: ARG002 - a function has no minibatches
        return self._function(self._turned(theta.view(self.tasks, -1) - self._minimum))[0]

    def hessian_vector(
        self,
        theta: Tensor,
        step: int | Tensor,  # noqa: ARG002 - no minibatches
        v: Tensor,
        *,
        gradient: Tensor | None = None,  # noqa: ARG002 - the gradients of all functions are in closed form
    ) -> Tensor:
        with torch.enable_grad():
            free = theta.detach().view(self.tasks, -1).requires_grad_()
            _, turned = self._function(self._turned(free - self._minimum))
            gradients = self._turned_back(turned)
            (product,) = torch.autograd.grad(gradients, free, v.view(self.tasks, -1))  # the Hessian is symmetric
        return product.reshape(-1)

    def _turned(self, z: Tensor) -> Tensor:
        if self._turn is None:
            return z
        return z * self._turn if self._turn.dim() == 2 else torch.bmm(self._turn, z.unsqueeze(2)).squeeze(2)

    def _turned_back(self, gradient: Tensor) -> Tensor:
        if self._turn is None:
            return gradient
        if self._turn.dim() == 2:
            return gradient * self._turn
        return torch.bmm(self._turn.transpose(1, 2), gradient.unsqueeze(2)).squeeze(2)


class FunctionFamily(Family):
    """Draws the minimum from N(0, shift_std^2) and theta_0 from N(0, start_std^2)."""

    def __init__(
        self,
        spec: FunctionSpec,
        splits: Collection[Split],
        data_dir: Path | None = None,  # noqa: ARG002 - a function needs no data
    ) -> None:
        told = f"function/{spec.function}/{spec.dimension}/{spec.shift_std!r}/{spec.start_std!r}"
        turned = f"/{spec.rotation}/{spec.stretch!r}" if spec.rotation or spec.stretch > 1 else ""
        super().__init__(told + turned, spec.coordinates_per_task, splits)
        self.spec = spec

    def _batches(
        self,
        seeds: Tensor,
        split: Split,  # noqa: ARG002 - a function has no data to keep apart
        dtype: torch.dtype,
        device: torch.device,
    ) -> tuple[TaskBatch, ...]:
        d = self.spec.dimension
        minimum = drawn(normals, streams(seeds, "problem"), d, dtype) * self.spec.shift_std
        start = drawn(normals, streams(seeds, "start"), d, dtype) * self.spec.start_std
        turn = self._turn(seeds, dtype)
        turn = None if turn is None else turn.to(device)
        return (FunctionBatch(FUNCTIONS[self.spec.function], minimum.to(device), start.to(device), turn),)

    def _turn(self, seeds: Tensor, dtype: torch.dtype) -> Tensor | None:
        """(tasks, d, d), or its diagonal where nothing rotates. The Q of a Gaussian matrix, with signs that make R's
        diagonal positive, is uniform among orthogonal matrices (Mezzadri 2007)."""
        d, factor = self.spec.dimension, None
        if self.spec.stretch > 1:
            share = 2 * drawn(uniforms, streams(seeds, "stretch"), d, torch.float64) - 1
            factor = (share * math.log(self.spec.stretch)).exp()
        if not self.spec.rotation:
            return factor if factor is None else factor.to(dtype)
        entries = drawn(normals, streams(seeds, "rotation"), d * d, torch.float64).view(-1, d, d)
        q, r = torch.linalg.qr(entries)
        turn: Tensor = q * r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)
        return (turn if factor is None else factor.unsqueeze(2) * turn).to(dtype)
