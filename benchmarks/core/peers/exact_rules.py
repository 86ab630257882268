"""The hyper and the mlp rule, written from their documentation, for the peers that differentiate through everything.

Written once, for what torch and jax.numpy have in common. Arrays of coordinates are (..., tasks, n), those of tensors
(..., tasks, tensors). Letters as in docs/science.md: g gradient, m a running mean of gradients, s and r the roots of
the running mean squares of a coordinate and of its tensor. What a network sees, s, r and the last update are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

Array = Any
Weights = dict[str, Array]

MOMENTA = (0.5, 0.9, 0.97)
TIMES = (1, 3, 10, 30, 100, 300, 1000)
OUTPUT_SCALE = 0.03


@dataclass(frozen=True)
class Library:
    """xp: torch or jax.numpy; constant: cuts the graph; elu: the activation; column: numbers as (n, 1, 1)"""

    xp: Any
    constant: Callable[[Array], Array]
    elu: Callable[[Array], Array]
    column: Callable[[Sequence[float]], Array]


@dataclass(frozen=True)
class State:
    """means (3, tasks, n); squares (2, tasks, n), decays .9 and .99; last update (tasks, n)

    sizes: mean squares of each tensor, decays .5 and .95: (2, tasks, tensors)
    alignments: (3, tasks, tensors)
    """

    means: Array
    squares: Array
    last: Array
    sizes: Array
    alignments: Array

    @classmethod
    def zero(cls, zeros: Callable[..., Array], tasks: int, coordinates: int, tensors: int) -> State:
        each = (3, tasks, coordinates), (2, tasks, coordinates), (tasks, coordinates)
        return cls(*map(zeros, each), *(zeros((count, tasks, tensors)) for count in (2, 3)))

    def tuple(self) -> tuple[Array, ...]:
        return self.means, self.squares, self.last, self.sizes, self.alignments


class ExactRule:
    """kind: "hyper" or "mlp"; tensors: coordinates of each tensor of a task"""

    def __init__(self, library: Library, kind: str, tensors: Sequence[int]) -> None:
        self._library = library
        self._rule = self._hyper if kind == "hyper" else self._mlp
        ends = list(accumulate(tensors))
        self._pieces = [slice(end - size, end) for end, size in zip(ends, tensors, strict=True)]

    def update(self, weights: Weights, gradient: Array, state: State, step: Array) -> tuple[Array, State]:
        """gradient (tasks, n); step: from 1 -> the update (tasks, n), and the next state."""
        of, xp = self._library, self._library.xp
        held, before = of.constant(gradient), of.constant(state.means)
        others = xp.stack((state.last, before[1], before[2]))
        own = self._sums(held * held)
        cosines = self._sums(others * held) / (xp.sqrt(self._sums(others * others)) * xp.sqrt(own) + 1e-30)
        decays = of.column(MOMENTA)
        means = decays * state.means + (1 - decays) * gradient
        decays = of.column((0.9, 0.99))
        squares = decays * state.squares + (1 - decays) * held * held
        decays = of.column((0.5, 0.95))
        lengths = self._sums(xp.ones_like(held))
        sizes = decays * state.sizes + (1 - decays) * (own / lengths)
        alignments = 0.7 * state.alignments + 0.3 * cosines
        after = State(means, squares, state.last, sizes, alignments)
        times = xp.tanh(step / of.column(TIMES) - 1)
        update = self._rule(weights, gradient, after, lengths, step, times)
        return update, State(means, squares, of.constant(update), sizes, alignments)

    def _hyper(self, weights: Weights, g: Array, now: State, lengths: Array, step: Array, times: Array) -> Array:
        of, xp = self._library, self._library.xp
        means = now.means / (1 - of.column(MOMENTA) ** step)
        fast, r = xp.sqrt(now.sizes / (1 - of.column((0.5, 0.95)) ** step))
        lengths_of_means = xp.sqrt(self._sums(of.constant(means[1:]) ** 2) / lengths)
        seen = (_log(xp, r)[None] / 4 + 1, xp.log(fast / r)[None], xp.log(lengths_of_means / r), 3 * now.alignments)
        features = xp.concatenate((xp.clip(xp.concatenate(seen), -4, 4), xp.broadcast_to(times, (7, *r.shape))))
        outputs = self._spread(xp.moveaxis(self._network(weights, xp.moveaxis(features, 0, -1)), -1, 0))
        inverse = self._inverse_s(now, step, self._spread(r))
        over_s = xp.concatenate((self._young(g, 0.99, step)[None], means)) * inverse
        over_r = xp.stack((g, means[1], means[2])) / self._spread(r)
        return _headed(xp, outputs, xp.concatenate((over_s, over_r)))

    def _mlp(self, weights: Weights, g: Array, now: State, lengths: Array, step: Array, times: Array) -> Array:
        del lengths
        of, xp = self._library, self._library.xp
        means = now.means / (1 - of.column(MOMENTA) ** step)
        roots = xp.sqrt(now.squares / (1 - of.column((0.9, 0.99)) ** step))
        r = self._spread(xp.sqrt(now.sizes[1] / (1 - 0.95**step)))
        inverse = self._inverse_s(now, step, r)
        over_s = xp.concatenate((self._young(g, 0.99, step)[None], means)) * inverse
        over_r = xp.stack((g, means[1], means[2])) / r
        fast, slow = _log(xp, roots[0]), _log(xp, roots[1])
        size = xp.log(xp.abs(of.constant(over_s[2])) + 1e-4)
        scales = xp.clip(xp.stack((slow / 4 + 1, fast - slow, 0.3 * size)), -4, 4)
        tensor = xp.clip(xp.stack((_log(xp, r) / 4 + 1, 0.3 * (slow - _log(xp, r)))), -4, 4)
        young = self._young(g, 0.9, step) * xp.where(roots[0] == 0, roots[0], 1 / roots[0])
        aligned = 3 * self._spread(now.alignments[:1])
        seen = (over_s, young[None], scales, over_r, tensor, aligned, xp.broadcast_to(times, (7, *g.shape)))
        features = of.constant(xp.moveaxis(xp.concatenate(seen), 0, -1))
        outputs = xp.moveaxis(self._network(weights, features), -1, 0)
        return _headed(xp, outputs, xp.concatenate((over_s, over_r)))

    def _young(self, g: Array, decay: float, step: Array) -> Array:
        """g, with the derivative of g / root, where the root has most of g in it in the first steps."""
        held = self._library.constant(g)
        return held + (1 - (1 - decay) / (1 - decay**step)) * (g - held)

    def _inverse_s(self, now: State, step: Array, r: Array) -> Array:
        xp = self._library.xp
        s = xp.sqrt(now.squares[1] / (1 - 0.99**step)) + 1e-3 * r
        return xp.where(s == 0, s, 1 / s)

    def _network(self, weights: Weights, signal: Array) -> Array:
        """(..., features) -> (..., outputs)."""
        for level in range(2):
            signal = self._library.elu(signal @ weights[f"layers.{level}.weight"].T + weights[f"layers.{level}.bias"])
        return signal @ weights["readout.weight"].T + weights["readout.bias"]

    def _sums(self, values: Array) -> Array:
        return self._library.xp.stack([values[..., piece].sum(-1) for piece in self._pieces], -1)

    def _spread(self, values: Array) -> Array:
        xp, shape = self._library.xp, values.shape[:-1]
        return xp.concatenate(
            [
                xp.broadcast_to(values[..., place, None], (*shape, piece.stop - piece.start))
                for place, piece in enumerate(self._pieces)
            ],
            -1,
        )


def _headed(xp: Any, outputs: Array, directions: Array) -> Array:
    """Coefficients and the logarithm of a rate, (directions + 1, tasks, n): how far along each direction."""
    return OUTPUT_SCALE * xp.exp(xp.clip(outputs[-1], -7, 5)) * (outputs[:-1] * directions).sum(0)


def _log(xp: Any, size: Array) -> Array:
    return xp.log(xp.clip(size, 1e-38, None))
