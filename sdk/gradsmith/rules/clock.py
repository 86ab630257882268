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
