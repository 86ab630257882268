"""The checks of tensors whose addresses go to a compiled library, which trusts them."""

from __future__ import annotations

import torch
from torch import Tensor


def require(
    name: str,
    tensor: Tensor,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    *,
    contiguous: bool = False,
) -> None:
    """Raises ValueError unless the tensor is what its address is passed on for."""
    # A step of small tasks has a dozen of these: no tuple is made and no device looked up.
    if tensor.shape != shape or tensor.dtype is not dtype or not tensor.is_cpu:
        raise ValueError(
            f"{name} must be a {dtype} tensor of shape {tuple(shape)} on the CPU, not {tensor.dtype} of shape "
            f"{tuple(tensor.shape)} on {tensor.device}"
        )
    if contiguous and not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous, but has strides {tensor.stride()}; it is used in place")
