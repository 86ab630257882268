"""An exact window of a schedule, written out by hand: the fast twin of autograd through `ScheduleRule.forward`.

A schedule looks at nothing but the time, so the rate r and the momentum b of each step are two numbers for all
coordinates, and an update is linear in the gradient and the momentum m. Going back is a few operations a step; what the
curves' knots are worth follows at the end from two dot products of each step. A test holds it equal to autograd;
`gradsmith.rules.schedule` stays the only place where the curves are told.

    nag:   m' = b m + g,             update = -r (g + b m')
    adam:  m' = b m + (1 - b) g,     update = -r / (1 - p') m' / root,     p' = b p
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradsmith.rules.schedule import EPSILON, SQUARES, ScheduleRule
from models.backends.base import Memory

KEPT = 4
"""Numbers that a step leaves of a coordinate."""


class ScheduleWindow:
    """See `models.backends.base.ExactWindow`. steps: of the window"""

    def __init__(self, rule: ScheduleRule, steps: int) -> None:
        self._rule = rule
        self._length = steps
        self._nag = rule.settings.direction == "nag"
        self._begun: tuple[Tensor, Tensor] | None = None  # steps done before each step, and steps planned, (T,)
        self._rates: list[float] = []
        self._momenta: list[float] = []
        self._products: list[float] = []  # p before the window, and after each of its steps
        self._left: list[tuple[Tensor, ...]] = []
        self._worth_of_mean: Tensor | None = None
        self._found: list[tuple[Tensor, Tensor]] = []  # of each step gone back through, the last one first

    def kept(self, memory: Memory) -> Memory:
        return memory

    def step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        with torch.no_grad():
            return self._step(theta, gradient, memory)

    def _step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        if self._begun is None:
            self._begin(memory[-1])
        number = len(self._left)
        r, b, p = self._rates[number], self._momenta[number], self._products[number] * self._momenta[number]
        self._products.append(p)
        before, numbers, gradient = memory[0][:, 0], memory[-1].clone(), gradient.clone()
        after: tuple[Tensor, ...]
        if self._nag:
            mean = (before * b).add_(gradient)
            direction = torch.add(gradient, mean, alpha=b)
            theta.sub_(direction, alpha=r)
            after = (mean,)
            self._left.append((before, gradient, direction, mean))
        else:
            mean = (before * b).add_(gradient, alpha=1 - b)
            squares = (memory[1][:, 0] * SQUARES).addcmul_(gradient, gradient, value=1 - SQUARES)
            inverse = (squares / (1 - SQUARES ** (float(numbers[0, 0]) + 1))).sqrt_().add_(EPSILON).reciprocal_()
            direction = mean * inverse
            theta.sub_(direction, alpha=r / (1 - p))
            after = (mean, squares)
            self._left.append((before, gradient, direction, inverse))
        numbers[:, 0] += 1
        numbers[:, 1] = p - 1
        return (*(each[:, None] for each in after), numbers)

    def _begin(self, numbers: Tensor) -> None:
        """All tensors of a window have done, and plan, the same steps."""
        done, less_one, planned = numbers[0]
        count = done + torch.arange(self._length, dtype=numbers.dtype, device=numbers.device)
        self._begun = count, planned.expand(self._length)
        rates, momenta = self._rule.curves(*self._begun)
        self._rates, self._momenta = rates.tolist(), momenta.tolist()
        self._products = [1 + float(less_one)]

    def back(self, worth: Tensor) -> Tensor:
        with torch.no_grad():
            number = len(self._left) - 1
            before, gradient, direction, other = self._left.pop()
            r, b, p = self._rates[number], self._momenta[number], self._products[number + 1]
            later = torch.zeros_like(worth) if self._worth_of_mean is None else self._worth_of_mean
            of_scale = -torch.dot(worth, direction)
            if self._nag:
                mean = torch.add(later, worth, alpha=-r * b)
                of_momentum = torch.dot(mean, before) - r * torch.dot(worth, other)
                q = torch.sub(mean, worth, alpha=r)
            else:
                mean = torch.addcmul(later, worth, other, value=-r / (1 - p))
                of_momentum = torch.dot(mean, before - gradient)
                q = mean * (1 - b)
            self._worth_of_mean = mean.mul_(b)
            self._found.append((of_scale, of_momentum))
        return q

    def gradient(self) -> Tensor:
        assert self._begun is not None
        of_scales, of_momenta = (torch.stack(each).double().tolist() for each in zip(*self._found, strict=True))
        of_rates, of_product = [], 0.0
        for back, of_scale in enumerate(of_scales):
            number = self._length - 1 - back
            p = 0.0 if self._nag else self._products[number + 1]
            of_rates.append(of_scale / (1 - p))
            if not self._nag:  # r / (1 - p') moves with all momenta so far
                of_product += of_scale * self._rates[number] / (1 - p) ** 2
                of_momenta[back] += of_product * self._products[number]
                of_product *= self._momenta[number]
        like = self._rule.get_parameter("log_rate")
        with torch.enable_grad():
            curves = self._rule.curves(*self._begun)
            worth = [
                torch.tensor(each[::-1], dtype=curves[0].dtype, device=like.device) for each in (of_rates, of_momenta)
            ]
            found = torch.autograd.grad(curves, tuple(self._rule.parameters()), worth)
        return torch.cat([piece.reshape(-1) for piece in found])
