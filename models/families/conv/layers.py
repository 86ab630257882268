"""Layers of convolutional networks, several networks at once: forward, backward, and Pearlmutter's R operator.

Shapes: a signal is (batch, tasks * channels, height, width), channels last in memory, where convolutions and poolings
take half the time; a dense layer's has height and width 1. A task's channels lie side by side, so one grouped
convolution serves all tasks. Autograd checks every line in float64 (tests/models/test_conv.py).

What is normalized is z - mean, kept in z's place. ReLU, ELU, sigmoid and tanh rise, so they commute with the pooling
and run on a quarter of the numbers. A scale does where it is not negative; its sign is folded into the weights, or into
the pooling where channels are normalized together, and so the normalization too runs after the pooling. Its gradient is
then a constant and a multiple of z for each channel, plus what the pooled places scatter back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from models.families.conv import NORM_EPSILON, Activation, Norm


class Weights(NamedTuple):
    """The parameters of one layer, or how they move, or their gradients' places.

    weight: (tasks, out, in, 3, 3), or (tasks, in, out) of a dense layer; shift: (tasks, out), the bias where there is
    no norm; scale: (tasks, out), of a norm only
    """

    weight: Tensor
    shift: Tensor
    scale: Tensor | None


@dataclass(frozen=True)
class Nonlinearity:
    """An activation.

    back: (gradient, value) -> gradient times the derivative; bend: of a value, the second derivative over the first,
    None where it is zero wherever it exists
    """

    value: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]
    bend: Callable[[Tensor], Tensor] | None


_aten = torch.ops.aten
NONLINEARITIES: dict[Activation, Nonlinearity] = {
    "relu": Nonlinearity(torch.relu, lambda g, a: _aten.threshold_backward(g, a, 0), None),
    "sigmoid": Nonlinearity(torch.sigmoid, _aten.sigmoid_backward, lambda a: 1 - 2 * a),
    "tanh": Nonlinearity(torch.tanh, _aten.tanh_backward, lambda a: -2 * a),
    "elu": Nonlinearity(
        functional.elu,
        lambda g, a: _aten.elu_backward(g, 1.0, 1.0, 1.0, True, a),
        lambda a: (a <= 0).to(a.dtype),
    ),
}


@dataclass(frozen=True)
class Kept:
    """What a layer's forward leaves for its backward.

    below: its input; z: what its weights give, less the mean where there is a norm; inverse: one over the standard
    deviation; places: of each pooled number in its channel, (batch, pooled, channels), or None where nothing is pooled;
    unit: the normalized numbers, pooled; out: its output; sign: of the scales, (tasks, out), where the weights have it
    """

    below: Tensor
    z: Tensor
    places: Tensor | None
    out: Tensor
    inverse: Tensor | None = None
    unit: Tensor | None = None
    sign: Tensor | None = None


@dataclass(frozen=True)
class Moved:
    """How `Kept` moves along a direction. z: of what is in z's place; inverse: over the inverse itself."""

    below: Tensor | None
    z: Tensor
    out: Tensor
    inverse: Tensor | None = None
    unit: Tensor | None = None


@dataclass(frozen=True)
class Layer:
    """One layer with an activation, without its parameters: 3x3 convolution and 2x2 max-pooling, or dense.

    groups: channels of a task are normalized in so many groups where `norm` is "group"
    """

    norm: Norm
    activation: Activation
    groups: int
    dense: bool

    # --- forward ------------------------------------------------------------------------------------------------

    def forward(self, below: Tensor, weights: Weights) -> Kept:
        tasks = weights.shift.shape[0]
        activation = NONLINEARITIES[self.activation]
        if weights.scale is None:
            z = self._applied(below, weights.weight)
            pooled, places = self._pooled(z, None)
            return Kept(below, z, places, activation.value(pooled + _by_channel(weights.shift)))
        sign = _sign(weights.scale) if self.norm == "batch" and not self.dense else None
        z = self._applied(below, self._signed(weights.weight, sign))
        z -= self._mean(self._sums(z), z, tasks)
        inverse = torch.rsqrt(self._mean(self._sums(z * z), z, tasks) + NORM_EPSILON)
        pooled, places = self._pooled(z, weights.scale if sign is None else None)
        unit = pooled * inverse
        y = torch.addcmul(_by_channel(weights.shift), unit, _by_channel(_times(weights.scale, sign)))
        return Kept(below, z, places, activation.value(y), inverse, unit, sign)

    def along(self, kept: Kept, weights: Weights, below: Tensor | None, by: Weights) -> Moved:
        """How the layer moves where its input does as `below` says (None: not at all) and its parameters as `by`."""
        tasks = weights.shift.shape[0]
        z = self._applied(kept.below, self._signed(by.weight, kept.sign))
        if below is not None:
            z += self._applied(below, self._signed(weights.weight, kept.sign))
        back = NONLINEARITIES[self.activation].back
        if weights.scale is None or kept.inverse is None or kept.unit is None:
            y = self._at(z, kept.places, kept.out.shape) + _by_channel(by.shift)
            return Moved(below, z, back(y, kept.out))
        assert by.scale is not None
        z -= self._mean(self._sums(z), z, tasks)
        inverse = -self._mean(self._sums(kept.z * z), z, tasks) * kept.inverse.square()
        unit = torch.addcmul(self._at(z, kept.places, kept.out.shape) * kept.inverse, kept.unit, inverse)
        y = torch.addcmul(_by_channel(by.shift), unit, _by_channel(_times(weights.scale, kept.sign)))
        y.addcmul_(kept.unit, _by_channel(_times(by.scale, kept.sign)))
        return Moved(below, z, back(y, kept.out), inverse, unit)

    # --- backward -----------------------------------------------------------------------------------------------

    def backward(self, kept: Kept, weights: Weights, delta: Tensor, into: Weights, *, down: bool) -> Tensor | None:
        """Write the gradients of the parameters into `into`. delta: of the output; gives that of the input, if `down`
        asks for it."""
        delta = NONLINEARITIES[self.activation].back(delta, kept.out)
        sums = self._sums(delta)
        into.shift.copy_(sums.sum(dim=0).view_as(into.shift))
        if weights.scale is None or kept.unit is None:
            dz = self._scattered(torch.zeros_like(kept.z), kept.places, delta)
        else:
            assert into.scale is not None
            by_unit = self._sums(delta * kept.unit)
            into.scale.copy_(_times(by_unit.sum(dim=0).view_as(into.scale), kept.sign))
            dz, _ = self._of_normalized(kept, weights.scale, delta, (sums, by_unit))
        into.weight.copy_(self._signed(self._of_weight(kept.below, dz, weights.weight), kept.sign))
        return self._of_input(kept.below, dz, self._signed(weights.weight, kept.sign)) if down else None

    def _of_normalized(
        self, kept: Kept, scale: Tensor, delta: Tensor, sums: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The gradient of what is in z's place, and the multiple of z in it: with D = delta * size, where it was
        pooled, it is inverse * (D - mean(D) - unit * mean(D * unit)). sums: of delta, and of delta * unit"""
        assert kept.inverse is not None
        tasks, size = scale.shape[0], _times(scale, kept.sign).reshape(1, -1)
        constant = self._mean(sums[0] * size, kept.z, tasks) * -kept.inverse
        multiple = self._mean(sums[1] * size, kept.z, tasks) * -kept.inverse.square()
        pooled = delta * (kept.inverse * size[..., None, None])
        return self._scattered(torch.addcmul(constant, kept.z, multiple), kept.places, pooled), multiple

    def backward_along(
        self,
        kept: Kept,
        moved: Moved,
        weights: Weights,
        by: Weights,
        deltas: tuple[Tensor, Tensor],
        into: Weights,
        *,
        down: bool,
    ) -> tuple[Tensor, Tensor] | None:
        """Write how the gradients of the parameters move. deltas: the gradient of the output, and how it moves; gives
        those of the input, if `down` asks for them."""
        activation = NONLINEARITIES[self.activation]
        delta, change = (activation.back(each, kept.out) for each in deltas)
        if activation.bend is not None:  # `moved.out` has the slope in it already
            change.addcmul_(deltas[0] * activation.bend(kept.out), moved.out)
        sums = self._sums(change)
        into.shift.copy_(sums.sum(dim=0).view_as(into.shift))
        if weights.scale is None or kept.unit is None:
            dz = self._scattered(torch.zeros_like(kept.z), kept.places, delta)
            dz_along = self._scattered(torch.zeros_like(kept.z), kept.places, change)
        else:
            assert into.scale is not None
            assert by.scale is not None
            assert moved.unit is not None
            by_unit = self._sums(torch.addcmul(change * kept.unit, delta, moved.unit))
            into.scale.copy_(_times(by_unit.sum(dim=0).view_as(into.scale), kept.sign))
            scales = weights.scale, by.scale
            dz, dz_along = self._of_normalized_along(kept, moved, scales, (delta, change), (sums, by_unit))
        of_weight = self._of_weight(kept.below, dz_along, weights.weight)
        if moved.below is not None:
            of_weight = of_weight + self._of_weight(moved.below, dz, weights.weight)
        into.weight.copy_(self._signed(of_weight, kept.sign))
        if not down:
            return None
        weight = self._signed(weights.weight, kept.sign)
        back = self._of_input(kept.below, dz, weight)
        back_along = self._of_input(kept.below, dz_along, weight)
        back_along += self._of_input(kept.below, dz, self._signed(by.weight, kept.sign))
        return back, back_along

    def _of_normalized_along(
        self,
        kept: Kept,
        moved: Moved,
        scales: tuple[Tensor, Tensor],
        deltas: tuple[Tensor, Tensor],
        moved_sums: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """What `_of_normalized` gives and how it moves, term by term. moved_sums: how the two sums of it move"""
        assert kept.inverse is not None
        assert kept.unit is not None
        assert moved.inverse is not None
        tasks, (delta, change) = scales[0].shape[0], deltas
        sums = self._sums(delta), self._sums(delta * kept.unit)
        dz, multiple = self._of_normalized(kept, scales[0], delta, sums)
        size, size_along = (_times(each, kept.sign).reshape(1, -1) for each in scales)
        means = [
            self._mean(torch.addcmul(along * size, at, size_along), kept.z, tasks)
            for at, along in zip(sums, moved_sums, strict=True)
        ]
        dz_along = torch.addcmul(means[0] * -kept.inverse, dz, moved.inverse)
        dz_along.addcmul_(kept.z, torch.addcmul(-means[1] * kept.inverse.square(), multiple, moved.inverse))
        dz_along.addcmul_(moved.z, multiple)
        pooled = torch.addcmul(change * size[..., None, None], delta, size_along[..., None, None]) * kept.inverse
        return dz, self._scattered(dz_along, kept.places, pooled)

    # --- the product with the weights -----------------------------------------------------------------------------

    def _signed(self, weight: Tensor, sign: Tensor | None) -> Tensor:
        if sign is None:
            return weight
        return weight * (sign[:, None, :] if self.dense else sign[:, :, None, None, None])

    def _applied(self, below: Tensor, weight: Tensor) -> Tensor:
        if self.dense:
            return from_tasks(torch.bmm(to_tasks(below, weight.shape[0]), weight))
        return functional.conv2d(below, weight.flatten(0, 1), padding=1, groups=weight.shape[0])

    def _of_weight(self, below: Tensor, dz: Tensor, like: Tensor) -> Tensor:
        tasks = like.shape[0]
        if self.dense:
            return torch.bmm(to_tasks(below, tasks).transpose(1, 2), to_tasks(dz, tasks))
        return _convolution_backward(dz, below, like.flatten(0, 1), tasks, of_input=False).view(like.shape)

    def _of_input(self, below: Tensor, dz: Tensor, weight: Tensor) -> Tensor:
        tasks = weight.shape[0]
        if self.dense:
            return from_tasks(torch.bmm(to_tasks(dz, tasks), weight.transpose(1, 2))).view(below.shape)
        return _convolution_backward(dz, below, weight.flatten(0, 1), tasks, of_input=True)

    # --- means and poolings -----------------------------------------------------------------------------------------

    def _sums(self, x: Tensor) -> Tensor:
        """Over height and width, and over the batch where that is normalized together: (1 or batch, channels). A
        product with ones is ten times as fast as a sum over what lies apart in memory."""
        batch, channels, height, width = x.shape
        if self.norm == "group":
            places = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
            return x.flatten(1) if self.dense else torch.matmul(x.new_ones(1, height * width), places)[:, 0]
        rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
        return torch.mm(x.new_ones(1, rows.shape[0]), rows)

    def _mean(self, sums: Tensor, like: Tensor, tasks: int) -> Tensor:
        """The mean over what is normalized together, by its sums: (1 or batch, channels, 1, 1). like: what has as many
        numbers; those that were not summed are zero."""
        batch, channels, height, width = like.shape
        if self.norm == "batch":
            return (sums / (batch * height * width)).view(1, channels, 1, 1)
        each = channels // (tasks * self.groups)
        means = sums.view(batch, tasks * self.groups, each).sum(dim=2, keepdim=True) / (each * height * width)
        return means.expand(-1, -1, each).reshape(batch, channels, 1, 1)

    def _pooled(self, z: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The largest of each four, or the smallest where a scale is negative."""
        if self.dense:
            return z, None
        if scale is None:
            pooled, places = functional.max_pool2d_with_indices(z, [2, 2])
        else:
            sign = _by_channel(_sign(scale))
            pooled, places = functional.max_pool2d_with_indices(z * sign, [2, 2])
            pooled = pooled * sign
        return pooled, _by_place(places)

    @staticmethod
    def _at(x: Tensor, places: Tensor | None, shape: Sequence[int]) -> Tensor:
        """The numbers of x at these places."""
        if places is None:
            return x
        batch, channels, height, width = shape
        return _by_place(x).gather(1, places).view(batch, height, width, channels).permute(0, 3, 1, 2)

    @staticmethod
    def _scattered(x: Tensor, places: Tensor | None, pooled: Tensor) -> Tensor:
        """`x`, in place, with what the pooled numbers add to it."""
        if places is None:
            return x.add_(pooled)
        _by_place(x).scatter_add_(1, places, _by_place(pooled))
        return x


def _sign(scale: Tensor) -> Tensor:
    """1 or -1, never 0."""
    return torch.copysign(torch.ones_like(scale), scale)


def _times(x: Tensor, sign: Tensor | None) -> Tensor:
    return x if sign is None else x * sign


def _by_channel(x: Tensor) -> Tensor:
    """(tasks, channels) -> (1, tasks * channels, 1, 1)."""
    return x.reshape(1, -1, 1, 1)


def _by_place(x: Tensor) -> Tensor:
    """(batch, channels, height, width), channels last in memory -> a view (batch, height * width, channels)."""
    return x.permute(0, 2, 3, 1).view(x.shape[0], -1, x.shape[1])


def to_tasks(x: Tensor, tasks: int) -> Tensor:
    """(batch, tasks * channels, height, width) -> (tasks, batch, channels * height * width)."""
    return x.reshape(x.shape[0], tasks, -1).transpose(0, 1)


def from_tasks(x: Tensor) -> Tensor:
    """(tasks, batch, channels) -> (batch, tasks * channels, 1, 1), channels last."""
    flat = x.transpose(0, 1).reshape(x.shape[1], -1, 1, 1)
    return flat.contiguous(memory_format=torch.channels_last)


def _convolution_backward(dz: Tensor, below: Tensor, weight: Tensor, tasks: int, *, of_input: bool) -> Tensor:
    mask = [of_input, not of_input, False]
    found: Tensor = torch.ops.aten.convolution_backward(
        dz, below, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], tasks, mask
    )[0 if of_input else 1]
    return found
