"""Where the programs find the rule's weights: padded matrices, flat in one tensor. No Triton is needed here."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from gradsmith.rules.base import Rule
from gradsmith.rules.lstm import LSTMRule

MOST_HIDDEN, MOST_LAYERS = 32, 4
"""Larger rules have no kernel: their weights' gradient no longer fits the registers, and compiling takes minutes; torch
serves them well."""

INPUTS = ("raw", "log_sign")
"""Inputs that the programs know."""


@final
class Layout:
    """The padded layout of one configuration of the LSTM rule. H hidden units become `padded`, the next power of two
    that is at least 16.

    For each layer four gates' matrices of the input, (4 padded, padded), four of the hidden state, and (4 padded,)
    biases; then the read-out, (padded,), and its bias in another (padded,). `size` numbers in all, zeros between them.
    """

    def __init__(self, rule: LSTMRule) -> None:
        self.hidden, self.layers = rule.hidden_size, len(rule.layers)
        self.padded = max(16, 1 << (self.hidden - 1).bit_length())
        self._matrix = 4 * self.padded**2
        self._layer = 2 * self._matrix + 4 * self.padded
        self.size = self.layers * self._layer + 2 * self.padded
        self.names = [name for name, _ in rule.named_parameters()]
        width = rule.features.width
        places: dict[str, Tensor] = {}
        for level in range(self.layers):
            places[f"layers.{level}.weight"] = self._of_layer(level, width)
            places[f"layers.{level}.bias"] = level * self._layer + 2 * self._matrix + self._gate_rows()
            width = self.hidden
        places["readout_weight"] = self.layers * self._layer + torch.arange(self.hidden, device="cpu")
        places["readout_bias"] = torch.tensor([self.layers * self._layer + self.padded], device="cpu")
        self._places = torch.cat([places[name].reshape(-1) for name in self.names])

    @classmethod
    def of(cls, rule: LSTMRule) -> Layout | None:
        """None where the programs cannot run the rule."""
        fits = rule.settings.input in INPUTS and rule.hidden_size <= MOST_HIDDEN and len(rule.layers) <= MOST_LAYERS
        return cls(rule) if fits else None

    def to(self, device: torch.device) -> None:
        """Keep the index of the weights on `device`."""
        self._places = self._places.to(device)

    def padded_weights(self, rule: Rule) -> Tensor:
        """The rule's present weights, float32, (size,), on the device that `to` named."""
        named = dict(rule.named_parameters())
        flat = torch.cat([named[name].detach().reshape(-1) for name in self.names])
        flat = flat.to(self._places.device, torch.float32)
        return flat.new_zeros(self.size).index_copy_(0, self._places, flat)

    def unpadded(self, padded: Tensor) -> Tensor:
        """Numbers for each weight, (size,) -> (weights,), in the order of `rule.parameters()`."""
        return padded[self._places]

    def _gate_rows(self) -> Tensor:
        first = torch.arange(4, device="cpu")[:, None] * self.padded
        return (first + torch.arange(self.hidden, device="cpu")).reshape(-1)

    def _of_layer(self, level: int, width: int) -> Tensor:
        # (4 H, width + H): columns are the layer's input, then its own hidden state
        columns = torch.cat([torch.arange(width, device="cpu"), self._matrix + torch.arange(self.hidden, device="cpu")])
        return level * self._layer + self._gate_rows()[:, None] * self.padded + columns
