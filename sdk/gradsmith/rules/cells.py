"""LSTM layers, of which the controllers of several kinds of rules are made, and cells that average over a task.

H is the hidden size, N the number of coordinates. Tensors are feature-major, (features, N).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from gradsmith.rules.segments import Segments


@final
class LSTMLayer(nn.Module):
    """One LSTM layer with one bias per gate. Rows of `weight` are the gates in torch's order (input, forget,
    candidate, output), its columns the layer's input and then its hidden state."""

    def __init__(self, width: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.weight = nn.Parameter(torch.zeros(4 * hidden_size, width + hidden_size, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size, dtype=torch.float32))

    def forward(self, signal: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """(width, N), (H, N), (H, N) -> the next hidden state and cell, (H, N) each."""
        gates = torch.addmm(self.bias[:, None], self.weight, torch.cat((signal, hidden)))  # (4H, N)
        write, forget, candidate, show = gates.chunk(4)
        cell = torch.addcmul(forget.sigmoid() * cell, write.sigmoid(), _tanh(candidate))
        return show.sigmoid() * _tanh(cell), cell

    def remember(self, forget_bias: float) -> None:
        """Add to the biases of the forget gates."""
        with torch.no_grad():
            self.bias[self.hidden_size : 2 * self.hidden_size] += forget_bias


def _tanh(x: Tensor) -> Tensor:
    """tanh(x) = 2 sigmoid(2x) - 1: torch's vectorised sigmoid is several times as fast on a CPU as its tanh."""
    return 2 * torch.sigmoid(2 * x) - 1


def averaged(hidden: Tensor, cells: int, segments: Segments | None) -> Tensor:
    """The hidden state with its first `cells` rows averaged over all coordinates of each task, (H, N) -> (H, N):
    global averaging cells (Andrychowicz et al. 2016, appendix on information sharing between coordinates).

    segments: which coordinates are a task; None: all are one
    """
    if not cells:
        return hidden
    tasks = 1 if segments is None else segments.count
    own = hidden[:cells].reshape(cells, tasks, -1)
    means = own.mean(dim=2, keepdim=True).expand_as(own).reshape(cells, -1)
    return torch.cat((means, hidden[cells:]))
