"""How far a run is, as features that stay within one unit."""

from __future__ import annotations

import torch
from torch import Tensor

from gradsmith.rules.columns import column

HORIZONS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Steps after which each feature of time changes its sign."""


def elapsed(count: Tensor) -> Tensor:
    """tanh(count / horizon - 1) for each of `HORIZONS`: (1, n) steps -> (7, n)."""
    return torch.tanh(count / column(HORIZONS, count) - 1)


def towards_the_end(count: Tensor, steps: Tensor) -> Tensor:
    """How much of a run is done before this step, from -1 to 1, and how near its end is: (1, n), (1, n) -> (2, n).

    count: this step's number, from 1; steps: how many are planned
    """
    done = count - 1
    share = (done / steps.clamp(min=1)).clamp(max=1)
    left = (steps - done).clamp(min=0)
    return torch.cat((2 * share - 1, torch.tanh(left / 10 - 1)))
