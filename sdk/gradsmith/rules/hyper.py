"""A small network that runs once for each tensor of a model and says how all of its coordinates move."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradsmith.rules.base import Rule, Segments, State, planned
from gradsmith.rules.clock import HORIZONS, elapsed, towards_the_end
from gradsmith.rules.columns import column
from gradsmith.rules.configs import HyperConfig
from gradsmith.rules.dense import Dense, draw_hidden
from gradsmith.rules.heads import bounded_exp
from gradsmith.rules.orthogonal import orthogonalized_tensors

MOMENTA, SQUARES = (0.5, 0.9, 0.97), 0.99
"""Decays of the running means of gradients and of their squares."""

FAST, SLOW, ALIGNMENT = 0.5, 0.95, 0.7
"""Decays of what is remembered of a tensor: its mean square, in the short and in the long run, and its alignments."""

FLOOR = 1e-3
"""A coordinate's root mean square counts as this share of its tensor's at least, so that tiny gradients stay tiny."""

_NO_NORM = 1e-30  # what makes the cosine with a vector of zeros 0

DECAYS = (*MOMENTA, SQUARES, FAST, SLOW)

_ALIGNED = slice(1, 3)  # the momenta whose alignment with the gradient is a feature: those with decays 0.9 and 0.97
OVER_R = (0, 2, 3)  # what is taken over r too: g, and the momenta with decays 0.9 and 0.97
_DIRECTIONS = 1 + len(MOMENTA) + len(OVER_R)
_USUAL = 2  # the direction that a fresh rule goes against: m(.9) / s, after g / s and m(.5) / s
_FEATURES = 3 + 2 * 2

OF_OTHERS = _DIRECTIONS + 1
"""The outputs for a tensor that moves along Adam's directions; those for one that moves along Muon's come after."""

_MUONS = {0: 0.1, 2: 0.9}  # what a fresh rule makes of g and m_.9: Nesterov's momentum of 0.9


@final
class HyperRule(Rule):
    """`layers` ELU layers of `hidden_size` units, once per tensor and step; their outputs are coefficients of seven
    directions and the logarithm of a rate, for all coordinates of the tensor. 1,160 weights at the defaults.

    With running means m_b of the gradient g (decays b = 0.5, 0.9, 0.97), s the root of the running mean square of a
    coordinate plus a thousandth of r, and r the root of the running mean square of the tensor:

    - directions: g/s, m_.5/s, m_.9/s, m_.97/s, g/r, m_.9/r, m_.97/r
    - features of a tensor: log r; the logarithms of its size of late over r, and of |m_.9| and |m_.97| over r; the
      running alignment (cosine) of the gradient with the last update, and with m_.9 and m_.97 before they see it; the
      time, tanh(t / tau - 1) for tau = 1, 3, 10, ..., 1000; and with the clock `time+fraction` the share of the planned
      steps that is done, from -1 to 1, and tanh of a tenth of those left, less one

    With the direction `muon` that holds for tensors that are no matrices. A matrix goes against Muon's direction: the
    iteration of Newton and Schulz (`gradsmith.rules.orthogonal`) of a combination of g, m_.5, m_.9 and m_.97, with a
    rate of its own. The network then has five more outputs, those four coefficients and the logarithm of that rate:
    1,285 weights.

    The update is differentiable in the weights, and in the gradient and the momenta through the numerators of the
    directions. The denominators s and r, the features and so the network's outputs count as constants, but for one
    factor: g/s hardly depends on g in the first steps, where g makes up most of s (decision 0070). Muon's direction is
    differentiated through the whole iteration (decision 0104).

    The memory is (coordinates, 3) momenta, (coordinates, 1) running squares and (coordinates, 1) last update, 20 bytes
    for each coordinate, and (tensors, 6): steps, two running mean squares, three alignments; with `time+fraction`
    (tensors, 7), the planned steps last. A coordinate that has never had a gradient other than zero has the update
    zero.

    settings: what each of them means and may be is told by `HyperConfig`
    """

    kind: ClassVar[str] = HyperConfig.kind
    coordinatewise = False
    of_tensors = 1
    rests = True
    settings: HyperConfig

    def __init__(self, settings: HyperConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or HyperConfig()
        seen_by_it = _FEATURES + len(HORIZONS) + (2 if self.settings.knows_steps else 0)
        widths = [seen_by_it] + [self.settings.hidden_size] * self.settings.layers
        self.layers = nn.ModuleList(map(Dense, widths[:-1], widths[1:]))
        of_matrices = 1 + len(MOMENTA) + 1 if self.settings.direction == "muon" else 0
        self.readout = Dense(widths[-1], OF_OTHERS + of_matrices)

    def initial_state(
        self,
        coordinates: int,
        *,
        tensors: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        """Zeros; see the class for their meaning."""
        each = [torch.zeros(width, coordinates, dtype=dtype, device=device).t() for width in (len(MOMENTA), 1, 1)]
        precise = torch.float64 if dtype == torch.float64 else torch.float32
        return (*each, torch.zeros(tensors, 6 + self.settings.knows_steps, dtype=precise, device=device))

    def plan(self, state: State, steps: int | None) -> State:
        """See `Rule.plan`."""
        return planned(self, state, steps) if self.settings.knows_steps else state

    def forward(self, gradient: Tensor, state: State, segments: Segments | None = None) -> tuple[Tensor, State]:
        """One step for all coordinates; see `Rule.forward`."""
        segments = segments or Segments((gradient.shape[0],), device=gradient.device)
        means, *constants = (tensor.t() for tensor in state)  # each (width, N or tensors)
        squares, last, numbers = (tensor.detach() for tensor in constants)
        held = gradient.detach()
        numbers, features, begun, r = seen(held, means.detach(), last[0], numbers, segments)
        signal = self.signal(features, numbers)
        outputs = self.outputs(signal.to(gradient.dtype)).t()  # (8 or 13, tensors)
        matrices = segments.are_matrices if self.settings.direction == "muon" else None

        decays, others = with_rest(MOMENTA, gradient)
        rows = torch.cat((gradient[None], decays * means + others * gradient))  # (4, N): g and the momenta
        squares = SQUARES * squares + (1 - SQUARES) * held * held
        start = begun[len(MOMENTA) : len(MOMENTA) + 1]
        # 1 / s for each coordinate: sqrt(squares / start) + FLOOR r, with sqrt(start) taken into the coefficients
        floor = segments.spread((start.sqrt() * FLOOR * r)[0]).to(gradient.dtype)
        inverse = reciprocal(squares[0].sqrt() + floor)

        along, rate = outputs[:_DIRECTIONS], self.rate(outputs[_DIRECTIONS])
        if matrices is not None:
            rate = rate.where(~matrices, 0.0)
        corrected = torch.cat((torch.ones_like(start), begun[: len(MOMENTA)]))  # (4, tensors)
        over_s = along[: len(rows)] * rate * start.sqrt() / corrected  # (4, tensors)
        over_r = along[len(rows) :] * rate * reciprocal(r) / corrected[list(OVER_R)]  # (3, tensors)
        scaled = segments.combined(over_s.t().to(gradient.dtype), rows)
        if gradient.requires_grad:
            # Adds zero, and to d(g/s)/dg what the constant s leaves out: the factor 1 - (1 - b) / (1 - b^t).
            itself = over_s[:1] * (SQUARES - 1) / start
            scaled = scaled + segments.combined(itself.t().to(gradient.dtype), (gradient - held)[None])
        update = scaled * inverse + segments.combined(over_r.t().to(gradient.dtype), rows[list(OVER_R)])
        if matrices is not None:
            *muons, magnitude = outputs[OF_OTHERS:]
            whole = orthogonalized_tensors(segments.combined(torch.stack(muons, dim=1), rows), segments)
            whole = whole * segments.spread(self.rate(magnitude).where(matrices, 0.0))
            update = update - whole.where(squares[0] > 0, 0.0)  # what never had a gradient rests
        return update, (rows[1:].t(), squares.t(), update.detach()[:, None], numbers.t())

    def signal(self, features: Tensor, numbers: Tensor) -> Tensor:
        """What the network sees: (7, tensors), and the clock from numbers (6 or 7, tensors) -> (tensors, all)."""
        times = [elapsed(numbers[:1])]
        if self.settings.knows_steps:
            times.append(towards_the_end(numbers[:1], numbers[6:]))
        return torch.cat((features, *times)).t()

    def outputs(self, signal: Tensor) -> Tensor:
        """(tensors, features) -> (tensors, 8 or 13): coefficients of directions, then the logarithm of the rate; with
        Muon's direction, those of matrices after them."""
        for layer in self.layers:
            signal = functional.elu(layer(signal))
        outputs: Tensor = self.readout(signal)
        return outputs

    def rate(self, magnitude: Tensor) -> Tensor:
        """What an output means as a rate."""
        return self.settings.output_scale * bounded_exp(magnitude)

    def config(self) -> dict[str, object]:
        """`kind` and the settings."""
        return self.settings.plain()

    def initialise(self, generator: torch.Generator) -> None:
        """Hidden layers as PyTorch's own, U(-1/sqrt(inputs), 1/sqrt(inputs)); the read-out ignores them at first, so
        that every fresh rule is Adam with the learning rate `output_scale` and betas (0.9, 0.99). Where matrices have
        Muon's direction, it is torch.optim.Muon with that learning rate, `match_rms_adamw`, momentum 0.9 and no weight
        decay for them."""
        draw_hidden(self.layers, generator)
        self.readout.reset(_USUAL)
        if self.settings.direction == "muon":
            with torch.no_grad():
                for row, share in _MUONS.items():
                    self.readout.bias[OF_OTHERS + row] = share


class Seen(NamedTuple):
    """What a gradient tells of each tensor. R is the number of tensors.

    numbers: what is remembered of a tensor after it, (6, R), or (7, R) with the planned steps
    features: what the network sees, but for time, (7, R)
    begun: 1 - decay^t for each of `DECAYS`: what a running mean of ones would be, (6, R)
    r: the root of the running mean square, (1, R)
    """

    numbers: Tensor
    features: Tensor
    begun: Tensor
    r: Tensor


def seen(g: Tensor, means: Tensor, last: Tensor, numbers: Tensor, segments: Segments) -> Seen:
    """means, last, numbers: before this step, (momenta, N), (N,) and (6 or 7, R)."""
    rows = torch.cat((g[None], last[None], means[_ALIGNED]))  # (4, N): what the gradient is compared with
    sums = segments.sums(torch.cat((rows * rows, rows[1:] * g)))
    squared, products = sums[:4], sums[4:]
    norms = squared.sqrt()
    cosines = products / (norms[1:] * norms[:1] + _NO_NORM)

    lengths = segments.lengths(g)
    count = numbers[:1] + 1
    decays, others = with_rest((FAST, SLOW), numbers)
    mean_squares = decays * numbers[1:3] + others * (squared[:1] / lengths)
    alignments = ALIGNMENT * numbers[3:6] + (1 - ALIGNMENT) * cosines
    begun = 1 - column(DECAYS, numbers) ** count

    decays, others = with_rest(MOMENTA[1:], g)
    # |b m + (1 - b) g|^2 from the sums above; rounding may leave it a little below zero
    grown = decays * (decays * squared[2:] + 2 * others * products[1:]) + others * (others * squared[:1])
    momenta = (grown / lengths).clamp(min=0).sqrt() / begun[_ALIGNED]
    roots = (mean_squares / begun[len(MOMENTA) + 1 :]).sqrt()
    r = roots[1:]
    features = torch.cat((r.log() / 4 + 1, (torch.cat((roots[:1], momenta)) * reciprocal(r)).log(), 3 * alignments))
    return Seen(torch.cat((count, mean_squares, alignments, numbers[6:])), features.clamp(-4, 4), begun, r)


def reciprocal(size: Tensor) -> Tensor:
    """1 / size; 0 where the size is 0, so that what has had no gradient has neither a direction nor a derivative."""
    return torch.where(size == 0, size, 1 / size)


def with_rest(decays: tuple[float, ...], like: Tensor) -> tuple[Tensor, Tensor]:
    """Decays, and what each leaves to what is new: columns (n, 1)."""
    return column(decays, like), column(tuple(1 - decay for decay in decays), like)
