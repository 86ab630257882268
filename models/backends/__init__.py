"""How a rule is run and differentiated: one interface, and the backends that compute it.

`backend_for` chooses: the native kernel for an LSTM rule in float32 on the CPU where there is one, plain torch for
everything else. GRADSMITH_NATIVE=off forces torch. A job's record and card name what ran.
"""

from __future__ import annotations

import torch

from gradsmith.rules import Rule
from gradsmith.rules.kernels.native import native_kernel
from models.backends.base import Backend, Memory
from models.backends.native import NativeBackend
from models.backends.plain_torch import TorchBackend

__all__ = ["Backend", "Memory", "NativeBackend", "TorchBackend", "backend_for"]


def backend_for(rule: Rule, dtype: torch.dtype, device: torch.device, threads: int = 1) -> Backend:
    """The fastest backend that can run this rule here."""
    if dtype == torch.float32 and device.type == "cpu":
        kernel = native_kernel(rule, threads=threads)
        if kernel is not None:
            return NativeBackend(kernel)
    return TorchBackend()
