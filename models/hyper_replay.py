"""An exact window of a hyper rule, written out by hand: the fast twin of autograd through `HyperRule.forward`.

What a tensor's network sees counts as constant, so a step is linear in the gradient and the momenta: update = sum of
J_k * row_k, with rows (g, m_.5, m_.9, m_.97) and J_k what the tensor's coefficients and both denominators make of them.
Each step leaves J and its rows; going back is five operations a step. The networks are differentiated once for the
whole window, since of each step and tensor they only need seven dot products of rows and what updates are worth.
Matrices with Muon's direction have one more stage, update = O(sum of c_k * row_k), through which autograd goes back,
and five more dot products.
A test holds it equal to autograd; `gradsmith.rules.hyper` stays the only place where the rule's features are told.

Letters: T steps of the window, N coordinates, R tensors of all tasks.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from gradsmith.rules.configs import ORTHOGONALIZED
from gradsmith.rules.hyper import FLOOR, MOMENTA, OF_OTHERS, OVER_R, SQUARES, HyperRule, reciprocal, seen, with_rest
from gradsmith.rules.orthogonal import orthogonalized_tensors
from models.backends.base import Memory
from models.segment_tables import Tables

KEPT, KEPT_OF_MATRICES = 18, 18 + ORTHOGONALIZED + 8
"""Numbers that a step leaves of a coordinate, or takes at the end; with Muon's direction."""

_ROWS = 1 + len(MOMENTA)


@final
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
        self._matrices = segments.are_matrices if rule.settings.direction == "muon" else None
        self._muons: list[tuple[Tensor, Tensor, Tensor]] = []  # what goes in, what comes out, (5, N)
        self._worth_of_ahead = like.new_zeros(steps if self._matrices is not None else 0, width)
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
        coefficients = self._coefficients(signal, factors, self._matrices)
        # Row 7: what d(g / s) / dg lacks of g / s where s counts as constant; row 8: what is added to s. Then Muon's.
        lacking, floor = coefficients[:1] * ((SQUARES - 1) / start), root * (FLOOR * r)
        table = self._segments.spread(torch.cat((coefficients[:7], lacking, floor, coefficients[7:])))  # (9 or 14, N)
        inverse = torch.add(squares[0].sqrt(), table[8], out=self._inverse[number])
        inverse.reciprocal_().masked_fill_(inverse == torch.inf, 0.0)  # what has had no gradient has no direction
        J = torch.mul(table[:_ROWS], inverse, out=self._J[number])
        J[0] += table[4]
        J[2:] += table[5:7]
        update = (J * rows).sum(dim=0)
        if self._matrices is not None:
            update += self._along_muons(table[9:], rows, squares[0])
        theta += update
        J[0].addcmul_(table[7], inverse)
        self._signals.append(signal)
        self._factors.append(factors)
        return rows[1:].t(), squares.t(), update[:, None], numbers.t()

    def _along_muons(self, coefficients: Tensor, rows: Tensor, squares: Tensor) -> Tensor:
        """coefficients: (5, N), of the rows and of what is made of them"""
        ahead = (coefficients[:_ROWS] * rows).sum(dim=0).requires_grad_()
        with torch.enable_grad():
            whole = orthogonalized_tensors(ahead, self._segments)
        coefficients[_ROWS] *= squares > 0
        self._muons.append((ahead, whole, coefficients))
        return whole.detach() * coefficients[_ROWS]

    def back(self, worth: Tensor) -> Tensor:
        self._back -= 1
        self._worth[self._back] = worth
        with torch.no_grad():
            through = self._J[self._back] * worth
            if self._matrices is not None:
                ahead, whole, coefficients = self._muons[self._back]
                of_ahead = self._worth_of_ahead[self._back]
                if whole.requires_grad:  # there is a matrix
                    of_ahead[:] = torch.autograd.grad(whole, ahead, worth * coefficients[_ROWS])[0]
                through.addcmul_(coefficients[:_ROWS], of_ahead)
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
            dots = torch.cat((over_s, over_r, *self._dots_of_matrices()), dim=1)  # (T, 7 or 12, R)
        steps, rows = dots.shape[0], dots.shape[2]
        with torch.enable_grad():
            factors = torch.stack(self._factors).transpose(0, 1).reshape(-1, steps * rows)
            matrices = None if self._matrices is None else self._matrices.repeat(steps)
            coefficients = self._coefficients(torch.cat(self._signals), factors, matrices)
            worth = dots.transpose(0, 1).reshape(-1, steps * rows)
            found = torch.autograd.grad(coefficients, parameters, worth.to(coefficients.dtype))
        return torch.cat([piece.reshape(-1) for piece in found])

    def _dots_of_matrices(self) -> list[Tensor]:
        """(T, 4, R) of the rows, and (T, 1, R) of Muon's direction."""
        if self._matrices is None:
            return []
        wholes = torch.stack([whole.detach() * (coefficients[_ROWS] != 0) for _, whole, coefficients in self._muons])
        products = torch.cat((self._rows * self._worth_of_ahead[:, None], (wholes * self._worth)[:, None]), dim=1)
        return [self._segments.sums(products)]

    def _coefficients(self, signal: Tensor, factors: Tensor, matrices: Tensor | None) -> Tensor:
        """(R, features), (7, R) -> (7, R), of one step or of several side by side; with the matrices, bool (R,), that
        have Muon's direction, those of the rows and of what is made of them come after: (12, R)."""
        outputs = self._rule.outputs(signal).t()
        along = outputs[: OF_OTHERS - 1] * self._rule.rate(outputs[OF_OTHERS - 1]) * factors
        if matrices is None:
            return along
        muons = torch.cat((outputs[OF_OTHERS:-1], -self._rule.rate(outputs[-1:])))
        return torch.cat((along.where(~matrices, 0.0), muons.where(matrices, 0.0)))
