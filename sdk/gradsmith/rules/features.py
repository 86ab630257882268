"""`Features`: named inputs of a rule, combined over one memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gradsmith.rules.clock import elapsed, towards_the_end
from gradsmith.rules.inputs import LogSign, State
from gradsmith.rules.pieces import Combination
from gradsmith.rules.segments import Segments

SLOW, ALIGNMENT = 0.95, 0.7
"""Decays of a tensor's mean square, and of its alignment."""

FLOOR, EPSILON = 1e-3, 1e-8
"""What s has beside the root of the mean square: this share of r, and this where tensors are not looked at."""


@dataclass(frozen=True)
class Reading:
    """features: (width, N); directions: (directions, N); memory: for the next step, but for the last update"""

    features: Tensor
    directions: Tensor
    memory: State
    keeps_last: bool
    of_tensors: bool

    def remembering(self, update: Tensor) -> State:
        """The memory for the next step, after this update."""
        if not self.keeps_last:
            return self.memory
        place = len(self.memory) - 1  # before the numbers of tensors, which alignment always has
        return (*self.memory[:place], update.detach()[:, None], *self.memory[place:])


@final
class Features:
    """With m_b the running mean of gradients g with decay b and v_b that of their squares, both corrected for their
    start at zero as in Adam (Kingma and Ba 2015); s the root of v_.99, and r that of a tensor's running mean square:

    - log_sign, raw: see `gradsmith.rules.inputs`
    - rnnprop: g and m over the root of v, both with decay 0.95 (Lv, Jiang and Li 2017)
    - momenta: g/s, m_.5/s, m_.9/s, m_.97/s
    - scales: g over the root of v_.9, the logarithms of s, of that root over s, and of |m_.9|/s
    - tensor_scale: g/r, m_.9/r, m_.97/r, and the logarithms of r and of s/r; s then has r/1000 beside it
    - alignment: the running cosine of a tensor's gradient and its last update
    - time: tanh(t / tau - 1) for tau = 1, 3, 10, ..., 1000
    - fraction: the share of the planned steps that is done, from -1 to 1, and tanh of a tenth of those left, less one

    All are differentiable in the gradient and the momenta through the numerators. Denominators, logarithms (but for
    log_sign), alignments and time count as constants, and so does the share of g in a young denominator, but for the
    factor 1 - (1 - b)/(1 - b^t) on g/s (decision 0070). What has never had a gradient has directions that are zero.

    The memory: (N, momenta), (N, squares) and (N, 1) last update, where there are any; then the number of steps,
    (N, 1), or (tensors, 3) where tensors are looked at, and one column more for those planned, where they are asked
    for. Counts are float32 at least.
    """

    def __init__(self, combination: Combination, p: float = 10.0) -> None:
        self.combination = combination
        self.width, self.directions = combination.width, combination.directions
        self._log_sign = LogSign(p)

    @property
    def usual(self) -> int:
        """The direction that a fresh rule goes against: m_.9 / s as Adam does, or what is nearest to it."""
        before = 0
        places = {}
        for name, piece in zip(self.combination.names, self.combination.pieces, strict=True):
            places[name] = before + {"rnnprop": 1, "momenta": 2, "tensor_scale": 1}.get(name, 0)
            before += piece.directions
        return next(places[name] for name in ("momenta", "rnnprop", "tensor_scale", "raw") if name in places)

    def initial_state(self, coordinates: int, tensors: int, dtype: torch.dtype, device: torch.device | str) -> State:
        """Zeros."""
        own = self.combination
        widths = [width for width in (len(own.means), len(own.squares), int(own.last)) if width]
        state = [torch.zeros(width, coordinates, dtype=dtype, device=device).t() for width in widths]
        if own.counts:
            exact = torch.promote_types(dtype, torch.float32)
            rows = tensors if own.of_tensors else coordinates
            state.append(torch.zeros(rows, own.numbers, dtype=exact, device=device))
        return tuple(state)

    def read(self, gradient: Tensor, state: State, segments: Segments | None) -> Reading:
        """(N,) -> the features and directions of this step. Nothing is changed in place."""
        own, rest = self.combination, [tensor.t() for tensor in state]
        means = rest.pop(0) if own.means else gradient.new_zeros(0, gradient.shape[0])
        squares = rest.pop(0).detach() if own.squares else means.detach()
        last = rest.pop(0).detach() if own.last else None
        numbers = rest.pop(0).detach() if own.counts else gradient.new_zeros(1, 1)
        segments = segments or Segments((gradient.shape[0],), device=gradient.device)

        def spread(values: Tensor) -> Tensor:
            """The value for each coordinate: (n, tensors) or (n, N) -> (n, N), in the gradient's precision."""
            return (segments.spread(values) if own.of_tensors else values).to(gradient.dtype)

        held = gradient.detach()
        by_mean, by_square = _column(own.means, gradient), _column(own.squares, gradient)
        means = by_mean * means + (1 - by_mean) * gradient
        squares = by_square * squares + (1 - by_square) * held * held
        numbers, steps = (numbers[:-1], numbers[-1:]) if own.planned else (numbers, numbers[:0])
        numbers = _seen(held, last, numbers, segments) if own.of_tensors else numbers + 1
        count = numbers[:1]  # (1, N), or (1, tensors)
        r = (numbers[1:2] / (1 - SLOW**count)).sqrt() if own.of_tensors else torch.zeros_like(count)
        each = _Each(own, gradient, means, squares, count, r, spread)
        features, directions = [], []
        for name, piece in zip(own.names, own.pieces, strict=True):
            if name == "log_sign":
                found = self._log_sign.read(gradient, ())[0].t()
            elif name == "alignment":
                found = spread(3 * numbers[2:3])
            elif name == "time":
                found = spread(elapsed(count))
            elif name == "fraction":
                found = spread(towards_the_end(count, steps))
            else:
                found = getattr(each, name)()
            features.append(found.expand(-1, gradient.shape[0]))
            directions.append(found[: piece.directions])
        kept = [tensor.t() for tensor in (means, squares) if len(tensor)]
        memory = (*kept, torch.cat((numbers, steps)).t()) if own.counts else tuple(kept)
        return Reading(torch.cat(features), torch.cat(directions), memory, own.last, own.of_tensors)


class _Each:
    """The pieces of one step, each (width, N), its directions first."""

    def __init__(
        self,
        own: Combination,
        gradient: Tensor,
        means: Tensor,
        squares: Tensor,
        count: Tensor,
        r: Tensor,
        spread: Callable[[Tensor], Tensor],
    ) -> None:
        self._own, self._gradient, self._count, self._r, self._spread = own, gradient, count, r, spread
        self._means: dict[float, Tensor] = dict(zip(own.means, means, strict=True))
        self._squares: dict[float, Tensor] = dict(zip(own.squares, squares, strict=True))

    def raw(self) -> Tensor:
        return self._gradient[None]

    def rnnprop(self) -> Tensor:
        inverse = self._inverse(0.95)
        return torch.stack((self._young(0.95) * inverse, self._mean(0.95) * inverse))

    def momenta(self) -> Tensor:
        inverse = self._inverse(0.99)
        return torch.stack((self._young(0.99), *map(self._mean, (0.5, 0.9, 0.97)))) * inverse

    def scales(self) -> Tensor:
        fast, slow = self._log_root(0.9), self._log_root(0.99)
        size = ((self._mean(0.9) * self._inverse(0.99)).detach().abs() + 1e-4).log()
        logs = torch.stack((slow / 4 + 1, fast - slow, 0.3 * size)).clamp(-4, 4)
        return torch.cat(((self._young(0.9) * self._inverse(0.9))[None], logs))

    def tensor_scale(self) -> Tensor:
        inverse = self._spread(torch.where(self._r == 0, self._r, 1 / self._r))
        size = self._spread(_log(self._r))
        logs = torch.cat((size / 4 + 1, 0.3 * (self._log_root(0.99) - size))).clamp(-4, 4)
        return torch.cat((torch.stack((self._gradient, self._mean(0.9), self._mean(0.97))) * inverse, logs))

    def _mean(self, decay: float) -> Tensor:
        return self._means[decay] / self._begun(decay)

    def _young(self, decay: float) -> Tensor:
        """The gradient; its derivative is less in the first steps, where it makes up most of what it is divided by."""
        if not self._gradient.requires_grad:
            return self._gradient
        held = self._gradient.detach()
        factor = self._spread(1 - (1 - decay) / (1 - decay**self._count))[0]
        return held + factor * (self._gradient - held)

    def _root(self, decay: float) -> Tensor:
        return (self._squares[decay] / self._begun(decay)).sqrt()

    def _begun(self, decay: float) -> Tensor:
        """What a running mean of ones would be by now: (N,)."""
        begun: Tensor = 1 - decay**self._count
        return self._spread(begun)[0]

    def _log_root(self, decay: float) -> Tensor:
        return _log(self._root(decay))

    def _inverse(self, decay: float) -> Tensor:
        """1 / root, for s with its floor; 0 where there has been no gradient: no direction, and no derivative."""
        floor: Tensor | float = 0.0
        if decay == 0.99:
            floor = self._spread(FLOOR * self._r)[0] if self._own.of_tensors else EPSILON
        squares = self._squares[decay]
        return torch.where(squares == 0, squares, 1 / (self._root(decay) + floor))


def _seen(g: Tensor, last: Tensor | None, numbers: Tensor, segments: Segments) -> Tensor:
    """What is remembered of a tensor after this gradient: (3, tensors)."""
    own = segments.sums((g * g)[None])
    slow = SLOW * numbers[1:2] + (1 - SLOW) * own / segments.lengths(g)
    aligned = numbers[2:3]
    if last is not None:
        product, theirs = segments.sums(last * g), segments.sums(last * last)
        cosine = product / (own.sqrt() * theirs.sqrt() + 1e-30)
        aligned = ALIGNMENT * aligned + (1 - ALIGNMENT) * cosine
    return torch.cat((numbers[:1] + 1, slow, aligned))


def _log(size: Tensor) -> Tensor:
    return size.clamp(min=torch.finfo(size.dtype).tiny).log()


def _column(numbers: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=like.dtype, device=like.device)[:, None]
