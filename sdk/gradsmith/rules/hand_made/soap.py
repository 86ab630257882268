"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024), with the defaults of its authors.

It follows `pytorch_optimizer.SOAP`: both sides of a matrix have a basis, unless longer than MOST_ROWS, which then has
none; what is no matrix has Adam with the same decays. The first gradient makes the bases and moves nothing; every tenth
step, one power iteration and a QR decomposition renew them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradsmith.rules.hand_made.base import Method, Now, Remembered, apart, together
from gradsmith.rules.segments import Segments
from gradsmith.rules.shapes import sides

DECAY = 0.95
WEIGHT_DECAY = 0.01
EPSILON = 1e-8
RENEWED_EVERY = 10


def _step(gradient: Tensor, own: Remembered, now: Now) -> tuple[Tensor, Remembered]:
    """own: the running means of gradients and of their squares in the bases; and for every side the running mean of the
    gradients' products, and the basis, one of its vectors in each column, both row by row"""
    segments = now.segments
    lengths = [sides(shape) for shape in segments.shapes or ((1,),) * len(segments.sizes)]
    of_sides = Segments(tuple(length**2 for each in lengths for length in each), segments.count, segments.device)
    starts = [sum(map(len, lengths[:place])) for place in range(len(lengths))]
    gradients, means, squares = (segments.pieces(each) for each in (gradient, *own[:2]))
    products, bases = (of_sides.pieces(each) for each in own[2:])
    updates = list(gradients)
    rates = now.rate.view(segments.count, -1).t()
    counts = now.count.view(segments.count, -1)[0].long().tolist()  # a task's tensors begin together
    renewed = False
    for (rows, columns, count), places in _alike(segments, counts).items():
        own_sides = []
        for number, length in enumerate(lengths[places[0]]):
            at = [starts[place] + number for place in places]
            shaped = (together(each, at).reshape(-1, length, length) for each in (products, bases))
            of_rows = length == rows and number == 0
            own_sides.append((at, _Side(1 if of_rows else 2, *shaped)))
        g, mean, square = (together(each, places).view(-1, rows, columns) for each in (gradients, means, squares))
        matrices = _Tensors(g, mean, square, [side for _, side in own_sides])
        update = matrices.stepped(count - 1)
        rate = together(rates, places)[:, None, None].to(g.dtype)
        update = update * (-rate * (1 - rate * WEIGHT_DECAY))  # theta decays after it has moved
        _put(updates, places, update, segments.count)
        _put(means, places, matrices.mean, segments.count)
        _put(squares, places, matrices.squares, segments.count)
        changed = (count - 1) % RENEWED_EVERY == 0
        renewed |= changed
        for at, side in own_sides:
            _put(products, at, side.products, segments.count)
            if changed:
                _put(bases, at, side.basis, segments.count)
    after = (segments.joined(means), segments.joined(squares))
    if not lengths or not any(lengths):
        return segments.joined(updates), (*after, *own[2:])
    kept = of_sides.joined(bases) if renewed else own[3]
    return segments.joined(updates), (*after, of_sides.joined(products), kept)


def _put(pieces: list[Tensor], places: Sequence[int], values: Tensor, tasks: int) -> None:
    """What has been computed together, in its places."""
    for place, one in zip(places, apart(values, places, tasks), strict=True):
        pieces[place] = one


def _alike(segments: Segments, counts: Sequence[int]) -> dict[tuple[int, int, int], list[int]]:
    """The places of tensors that are computed together, by rows, columns and count; others than matrices have a row."""
    found: dict[tuple[int, int, int], list[int]] = {}
    sizes = [(rows, columns, place) for (rows, columns), places in segments.matrices.items() for place in places]
    sizes += [(1, segments.sizes[place], place) for place in segments.others]
    for rows, columns, place in sizes:
        found.setdefault((rows, columns, counts[place]), []).append(place)
    return found


@dataclass
class _Side:
    """The preconditioner of the rows (side 1) or the columns (side 2) of matrices, and its basis: (n, length, length)
    both."""

    side: int
    products: Tensor
    basis: Tensor

    def see(self, gradient: Tensor) -> None:
        """Add a gradient's products to the running mean."""
        rows = gradient if self.side == 1 else gradient.mT
        self.products = self.products.lerp(torch.bmm(rows, rows.mT), 1 - DECAY)

    def begin(self) -> None:
        """The eigenvectors of the products, the largest value first."""
        self.basis = torch.linalg.svd(self.products)[0]

    def applied(self, values: Tensor, matrices: Tensor) -> Tensor:
        """The matrices times the values, from this side."""
        return torch.bmm(matrices, values) if self.side == 1 else torch.bmm(values, matrices.mT)

    def renew(self, squares: Tensor) -> Tensor:
        """Renew the basis; returns `squares` in its new order."""
        product = torch.bmm(self.products, self.basis)
        order = (self.basis * product).sum(dim=1).argsort(dim=1, descending=True)  # (n, length)
        self.basis = torch.linalg.qr(product.gather(2, order[:, None].expand(product.shape)))[0]
        along = order[:, :, None] if self.side == 1 else order[:, None]
        return squares.gather(self.side, along.expand(squares.shape))


@dataclass
class _Tensors:
    """Tensors alike, (n, rows, columns), with what is remembered of them."""

    gradient: Tensor
    mean: Tensor
    squares: Tensor
    sides: list[_Side]

    def stepped(self, count: int) -> Tensor:
        """The update for a learning rate of -1, at the step of this number; 0 makes the bases and moves nothing."""
        if count == 0:
            for side in self.sides:
                side.see(self.gradient)
                side.begin()
            return torch.zeros_like(self.gradient)
        self.mean = self.mean.lerp(self.gradient, 1 - DECAY)
        self.squares = self.squares.lerp(self._projected(self.gradient).square(), 1 - DECAY)
        direction = self._projected(self.mean) / (self.squares.sqrt() + EPSILON)
        for side in self.sides:
            direction = side.applied(direction, side.basis)
        for side in self.sides:
            side.see(self.gradient)
            if count % RENEWED_EVERY == 0:
                self.squares = side.renew(self.squares)
        return direction / math.sqrt(1 - DECAY**count)

    def _projected(self, values: Tensor) -> Tensor:
        for side in self.sides:
            values = side.applied(values, side.basis.mT)
        return values


SOAP = Method(_step, decay=WEIGHT_DECAY, of_sides=2, waits=True)
