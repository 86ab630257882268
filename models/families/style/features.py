"""The features of a pretrained network: forward, and forward along a direction. Weights are constants."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import load
from torch import Tensor
from torch.nn import functional

from models.families.style.networks import Conv, Fire, Network, Pool

Along = tuple[Tensor, Tensor]
"""A value, and its derivative along a direction; both (images, channels, height, width)."""


class Features:
    """Rectified outputs of some layers, each divided by its `scale`.

    weights: the network's tensors by name; taken: the names of the layers that are compared
    scales: what each layer's output is divided by; default 1
    """

    def __init__(
        self, network: Network, weights: Mapping[str, Tensor], taken: tuple[str, ...], scales: Mapping[str, float] = {}
    ) -> None:
        self._network = network
        self._layers = network.up_to(taken)
        self._weights = dict(weights)
        self._taken = frozenset(taken)
        self.scales = dict(scales)

    @classmethod
    def from_file(cls, network: Network, content: bytes, taken: tuple[str, ...]) -> Features:
        """content: a safetensors file."""
        return cls(network, load(content), taken)

    def to(self, dtype: torch.dtype, device: torch.device) -> Features:
        weights = {name: tensor.to(device, dtype) for name, tensor in self._weights.items()}
        return Features(self._network, weights, tuple(self._taken), self.scales)

    def scaled(self, images: Tensor) -> Features:
        """The same, divided by each layer's mean over these images, after Gatys et al. 2016 (section 2), who scale
        weights so that mean activations are 1. Four digits of it, so that machines agree."""
        with torch.no_grad():
            means = {name: float(value.mean()) for name, value in self.forward(images).items()}
        scales = {name: float(f"{max(mean, 1e-6):.4g}") for name, mean in means.items()}
        return Features(self._network, self._weights, tuple(self._taken), scales)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """images: RGB in [0, 1], (images, 3, height, width). Differentiable."""
        found, x = {}, self._given(images)
        for layer in self._layers:
            match layer:
                case Conv():
                    x = self._convolved(x, layer)
                    x = functional.relu(x) if layer.name else x
                case Pool():
                    x = functional.max_pool2d(x, layer.kernel, 2, ceil_mode=layer.ceil)
                case Fire():
                    squeezed = functional.relu(self._convolved(x, _squeeze(layer)))
                    sides = [functional.relu(self._convolved(squeezed, each)) for each in _expand(layer)]
                    x = torch.cat(sides, dim=1)
            if not isinstance(layer, Pool) and layer.name in self._taken:
                found[layer.name] = self._divided(x, layer.name)
        return found

    def along(self, images: Tensor, directions: Tensor) -> dict[str, Along]:
        """The features, differentiable, and their derivatives where the images move along `directions`, constants.

        The network is piecewise linear, so these derivatives are exact wherever it has any.
        """
        found, x, dx = {}, self._given(images), directions * self._network.scale
        for layer in self._layers:
            match layer:
                case Conv():
                    x, dx = self._convolved(x, layer), self._moved(dx, layer)
                    x, dx = _rectified(x, dx) if layer.name else (x, dx)
                case Pool():
                    x, where = functional.max_pool2d(x, layer.kernel, 2, ceil_mode=layer.ceil, return_indices=True)
                    dx = dx.flatten(2).gather(2, where.flatten(2)).view_as(x)
                case Fire():
                    squeeze = _squeeze(layer)
                    s, ds = _rectified(self._convolved(x, squeeze), self._moved(dx, squeeze))
                    sides = [_rectified(self._convolved(s, each), self._moved(ds, each)) for each in _expand(layer)]
                    x, dx = torch.cat([side[0] for side in sides], dim=1), torch.cat([side[1] for side in sides], dim=1)
            if not isinstance(layer, Pool) and layer.name in self._taken:
                found[layer.name] = self._divided(x, layer.name), self._divided(dx, layer.name)
        return found

    def _given(self, images: Tensor) -> Tensor:
        network = self._network
        if network.scale == 1.0 and not any(network.means):
            return images
        return images * network.scale - images.new_tensor(network.means).view(3, 1, 1)

    def _divided(self, x: Tensor, name: str) -> Tensor:
        return x / self.scales[name] if name in self.scales else x

    def _convolved(self, x: Tensor, layer: Conv) -> Tensor:
        return self._by(x, layer, self._weights[f"{layer.tensor}.bias"])

    @torch.no_grad()
    def _moved(self, dx: Tensor, layer: Conv) -> Tensor:
        return self._by(dx, layer, None)

    def _by(self, x: Tensor, layer: Conv, bias: Tensor | None) -> Tensor:
        padding = layer.padding
        if padding and layer.mode == "reflect":
            x, padding = functional.pad(x, (padding,) * 4, mode="reflect"), 0
        weight = self._weights[f"{layer.tensor}.weight"]
        return functional.conv2d(x, weight, bias, stride=layer.stride, padding=padding)


def _squeeze(layer: Fire) -> Conv:
    return Conv("", f"{layer.tensor}.squeeze", layer.squeeze, kernel=1, padding=0, mode="zeros")


def _expand(layer: Fire) -> tuple[Conv, Conv]:
    """1x1 and 3x3."""
    return (
        Conv("", f"{layer.tensor}.expand1x1", layer.expand, kernel=1, padding=0, mode="zeros"),
        Conv("", f"{layer.tensor}.expand3x3", layer.expand, mode="zeros"),
    )


def _rectified(x: Tensor, dx: Tensor) -> Along:
    with torch.no_grad():
        dx = dx * (x > 0)
    return functional.relu(x), dx
