"""How a gradient enters a rule. Each function maps `(coordinates,)` to `(coordinates, features)`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def raw(gradient: Tensor, p: float) -> Tensor:  # noqa: ARG001  one signature for all features
    """The gradient as it is: (coordinates,) -> (coordinates, 1)."""
    return gradient[:, None]


def log_sign(gradient: Tensor, p: float) -> Tensor:
    """(log|g| / p, sign g) where |g| >= e^-p, and (-1, e^p g) elsewhere: (coordinates,) -> (coordinates, 2).

    Gradients span many orders of magnitude; this keeps both their scale and their sign within a few units
    (Andrychowicz et al. 2016, appendix A). Both columns meet at |g| = e^-p, so two clamps say all of it:
    log|g| / p reaches -1, and e^p g reaches +-1, exactly there. A zero gradient gives (-1, 0).
    """
    magnitude = (gradient.abs().log() / p).clamp(min=-1.0)
    direction = (gradient * math.exp(p)).clamp(-1.0, 1.0)
    # Stacked feature by feature, then seen as (coordinates, 2): the LSTM reads whole feature rows.
    return torch.stack((magnitude, direction)).t()


FEATURES: dict[str, tuple[int, Callable[[Tensor, float], Tensor]]] = {"log_sign": (2, log_sign), "raw": (1, raw)}
"""Name of the input -> number of features and the function."""
