"""Test functions of the literature: Rosenbrock's, Rastrigin's and Ackley's, each with its gradient in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.families.functions import FunctionSpec
from models.spec import Split
from models.tasks.base import Family, TaskBatch
from models.tasks.randomness import drawn, normals, streams

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


FUNCTIONS: dict[str, FunctionAndGradient] = {"rosenbrock": rosenbrock, "rastrigin": rastrigin, "ackley": ackley}


class FunctionBatch(TaskBatch):
    """The minimum of each task (tasks, d) and its starting point (tasks, d)."""

    def __init__(self, function: FunctionAndGradient, minimum: Tensor, start: Tensor) -> None:
        super().__init__(minimum.shape[0], minimum.shape[1], minimum.dtype, minimum.device)
        self._function = function
        self._minimum = minimum
        self._start = start

    def initial(self) -> Tensor:
        return self._start.reshape(-1).clone()

    def buffers(self) -> Mapping[str, Tensor]:
        return {"minimum": self._minimum, "start": self._start}

    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - no minibatches
        with torch.no_grad():
            losses, gradient = self._function(theta.view(self.tasks, -1) - self._minimum)
            return losses, gradient.reshape(-1)

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:  # noqa: ARG002 - a function has no minibatches
        return self._function(theta.view(self.tasks, -1) - self._minimum)[0]

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
            _, gradients = self._function(free - self._minimum)
            (product,) = torch.autograd.grad(gradients, free, v.view(self.tasks, -1))  # the Hessian is symmetric
        return product.reshape(-1)


class FunctionFamily(Family):
    """Draws the minimum from N(0, shift_std^2) and theta_0 from N(0, start_std^2)."""

    def __init__(
        self,
        spec: FunctionSpec,
        splits: Collection[Split],
        data_dir: Path | None = None,  # noqa: ARG002 - a function needs no data
    ) -> None:
        super().__init__(
            f"function/{spec.function}/{spec.dimension}/{spec.shift_std!r}/{spec.start_std!r}",
            spec.coordinates_per_task,
            splits,
        )
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
        return (FunctionBatch(FUNCTIONS[self.spec.function], minimum.to(device), start.to(device)),)
