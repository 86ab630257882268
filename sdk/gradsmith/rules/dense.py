"""Dense layers, of which the networks of several kinds of rules are made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradsmith.rules.base import draw_uniform


@final
class Dense(nn.Module):
    """A layer whose weights (outputs, inputs) and biases are zero until somebody fills them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=torch.float32))

    def forward(self, signal: Tensor) -> Tensor:
        """(n, inputs) -> (n, outputs)."""
        return functional.linear(signal, self.weight, self.bias)

    def reset(self, usual: int) -> None:
        """Make a head's read-out that ignores its inputs: it goes against the direction `usual`, and no other."""
        with torch.no_grad():
            self.weight.zero_()
            self.bias.zero_()
            self.bias[usual] = -1.0


def draw_hidden(layers: Iterable[nn.Module], generator: torch.Generator) -> None:
    """Fill hidden layers as PyTorch does: U(-1/sqrt(inputs), 1/sqrt(inputs))."""
    for layer in layers:
        draw_uniform(layer, 1 / math.sqrt(layer.get_parameter("weight").shape[1]), generator)
