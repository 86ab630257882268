"""An exact window of a hyper rule, written out by hand: the fast twin of autograd through `HyperRule.forward`.

What a tensor's network sees counts as constant, so a step is linear in the gradient and the momenta: update = sum of
J_k * row_k, with rows (g, m_.5, m_.9, m_.97) and J_k what the tensor's coefficients and both denominators make of them.
Each step leaves J and its rows; going back is five operations a step. The networks are differentiated once for the
whole window, since of each step and tensor they only need seven dot products of rows and what updates are worth.
A test holds it equal to autograd; `gradsmith.rules.hyper` stays the only place where the rule's features are told.

Letters: T steps of the window, N coordinates, R tensors of all tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from gradsmith.rules.heads import bounded_exp
from gradsmith.rules.hyper import FLOOR, MOMENTA, OVER_R, SQUARES, HyperRule, reciprocal, seen, with_rest
from gradsmith.rules.segments import Segments
from models.backends.base import Memory

KEPT = 18
"""Numbers that a step leaves of a coordinate, or takes at the end."""

_ROWS = 1 + len(MOMENTA)


class HyperWindow:
    """See `models.backends.base.ExactWindow`.

    segments: the tensors of all tasks
    """

    def __init__(self, rule: HyperRule, segments: Tables, steps: int, like: Tensor) -> None:
        self._rule = rule
        self._segments = segments
        width = segments.coordinates
        self._rows = like.new_empty(steps, _ROWS, width)
        self._J = like.new_empty(steps, _ROWS, width)
        self._inverse = like.new_empty(steps, width)  # 1 / s
        self._worth = like.new_empty(steps, width)
        self._signals: list[Tensor] = []  # (R, features) of each step
        self._factors: list[Tensor] = []  # (7, R): what makes coefficients of the networks' outputs
        self._decays, self._others = with_rest(MOMENTA, like)
        self._back = steps
        self._worth_of_means = like.new_zeros(len(MOMENTA), width)

    def kept(self, memory: Memory) -> Memory:
        return memory

    def step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        with torch.no_grad():
            return self._step(theta, gradient, memory)

    def _step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        number = len(self._signals)
        means, squares, last, numbers = (each.t() for each in memory)
        numbers, features, begun, r = seen(gradient, means, last[0], numbers, self._segments)
        signal = self._rule.signal(features, numbers)
        rows = self._rows[number]
        rows[0] = gradient
        torch.mul(means, self._decays, out=rows[1:]).addcmul_(self._others, gradient)
        squares = (squares * SQUARES).addcmul_(gradient, gradient, value=1 - SQUARES)

        start = begun[len(MOMENTA) : _ROWS]
        corrected = torch.cat((torch.ones_like(start), begun[: len(MOMENTA)]))
        root = start.sqrt()
        factors = torch.cat((root / corrected, reciprocal(r) / torch.cat((corrected[:1], corrected[2:]))))
        coefficients = self._coefficients(signal, factors)
        # Row 7: what d(g / s) / dg lacks of g / s where s counts as constant; row 8: what is added to s.
        lacking, floor = coefficients[:1] * ((SQUARES - 1) / start), root * (FLOOR * r)
        table = self._segments.spread(torch.cat((coefficients, lacking, floor)))  # (9, N)
        inverse = torch.add(squares[0].sqrt(), table[8], out=self._inverse[number])
        inverse.reciprocal_().masked_fill_(inverse == torch.inf, 0.0)  # what has had no gradient has no direction
        J = torch.mul(table[:_ROWS], inverse, out=self._J[number])
        J[0] += table[4]
        J[2:] += table[5:7]
        update = (J * rows).sum(dim=0)
        theta += update
        J[0].addcmul_(table[7], inverse)
        self._signals.append(signal)
        self._factors.append(factors)
        return rows[1:].t(), squares.t(), update[:, None], numbers.t()

    def back(self, worth: Tensor) -> Tensor:
        self._back -= 1
        self._worth[self._back] = worth
        with torch.no_grad():
            through = self._J[self._back] * worth
            means = self._worth_of_means.add_(through[1:])
            q = torch.addmv(through[0], means.t(), self._others[:, 0])
            means.mul_(self._decays)
        return q

    def gradient(self) -> Tensor:
        parameters = tuple(self._rule.parameters())
        with torch.no_grad():
            products = self._rows * self._worth[:, None]  # (T, 4, N)
            over_r = self._segments.sums(products[:, list(OVER_R)])
            over_s = self._segments.sums(products.mul_(self._inverse[:, None]))
            dots = torch.cat((over_s, over_r), dim=1)  # (T, 7, R)
        steps, rows = dots.shape[0], dots.shape[2]
        with torch.enable_grad():
            factors = torch.stack(self._factors).transpose(0, 1).reshape(-1, steps * rows)
            coefficients = self._coefficients(torch.cat(self._signals), factors)
            worth = dots.transpose(0, 1).reshape(-1, steps * rows)
            found = torch.autograd.grad(coefficients, parameters, worth.to(coefficients.dtype))
        return torch.cat([piece.reshape(-1) for piece in found])

    def _coefficients(self, signal: Tensor, factors: Tensor) -> Tensor:
        """(R, features), (7, R) -> (7, R), of one step or of several side by side."""
        outputs = self._rule.outputs(signal).t()
        rate: Tensor = self._rule.settings.output_scale * bounded_exp(outputs[-1])
        return outputs[:-1] * rate * factors


@final
@dataclass(frozen=True)
class Tables(Segments):
    """Segments whose sums are one product of matrices and whose values are spread by one gather: faster for many small
    tensors, at the price of a table, (coordinates of a task, its tensors)."""

    def lengths(self, like: Tensor) -> Tensor:
        return self._lengths if self._lengths.dtype == like.dtype else self._lengths.to(like)

    def sums(self, values: Tensor) -> Tensor:
        by_task = values.reshape(*values.shape[:-1], self.count, sum(self.sizes))
        members = self._members if self._members.dtype == values.dtype else self._members.to(values)
        return (by_task @ members).flatten(-2)

    def spread(self, values: Tensor) -> Tensor:
        return values.index_select(-1, self.tensors)

    @cached_property
    def _lengths(self) -> Tensor:
        return super().lengths(torch.empty(0, dtype=torch.float32, device=self.device))

    @cached_property
    def _members(self) -> Tensor:
        each = torch.arange(len(self.sizes), device=self.device).repeat_interleave(
            torch.tensor(self.sizes, device=self.device)
        )
        return torch.nn.functional.one_hot(each, len(self.sizes)).float()
