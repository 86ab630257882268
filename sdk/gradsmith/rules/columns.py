"""Constants as tensors, made once: in a small rule's step each new tensor would cost as much as a sum."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def column(numbers: tuple[float, ...], like: Tensor) -> Tensor:
    """(n, 1), with the dtype and device of `like`; not to be changed in place."""
    return _made(numbers, like.dtype, like.device)


@lru_cache(maxsize=256)
def _made(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # autograd may save it, whoever asked first
        return torch.tensor(numbers, dtype=dtype, device=device)[:, None]
