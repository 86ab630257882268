"""How a rule is run and differentiated: one interface, and the backends that compute it.

`backend_for` chooses: for an LSTM rule in float32 the native kernel on the CPU and Triton's on a CUDA device, where
there is one; plain torch for everything else. A job can force one (`resources.backend`), a worker can leave out the
kernels (GRADSMITH_NATIVE=off, GRADSMITH_TRITON=off).
A job's record and card name what ran.
"""

from __future__ import annotations

import torch

from gradsmith.rules import Rule
from gradsmith.rules.kernels.native import native_kernel
from gradsmith.rules.kernels.triton import triton_kernel
from models.backends.base import Backend, Memory
from models.backends.native import NativeBackend
from models.backends.plain_torch import TorchBackend
from models.backends.triton import TritonBackend
from models.errors import BackendUnavailable
from models.spec import BackendName

__all__ = ["Backend", "Memory", "NativeBackend", "TorchBackend", "TritonBackend", "backend_for", "dtype_for"]


def backend_for(
    rule: Rule, dtype: torch.dtype, device: torch.device, threads: int = 1, *, wanted: BackendName = "auto"
) -> Backend:
    """The fastest backend that can run this rule here, or the one that is wanted.

    Raises BackendUnavailable when the wanted one cannot run it here; the message says what is missing.
    """
    if wanted == "reference":
        return TorchBackend(fused=False)
    if wanted in ("auto", "native") and dtype == torch.float32 and device.type == "cpu":
        kernel = native_kernel(rule, threads=threads)
        if kernel is not None:
            return NativeBackend(kernel)
    if wanted in ("auto", "triton") and dtype == torch.float32 and device.type == "cuda":
        on_cuda = triton_kernel(rule, device)
        if on_cuda is not None:
            return TritonBackend(on_cuda)
    if wanted in ("auto", "torch"):
        return TorchBackend()
    raise BackendUnavailable(_why_not(wanted, rule, dtype, device))


def dtype_for(wanted: BackendName, given: torch.dtype = torch.float32) -> torch.dtype:
    """The precision that a job runs in, from its start to its result. given: where the backend leaves the choice, that
    of the weights."""
    return {"reference": torch.float64, "native": torch.float32, "triton": torch.float32}.get(wanted, given)


def _why_not(wanted: BackendName, rule: Rule, dtype: torch.dtype, device: torch.device) -> str:
    needs = {
        "native": "an LSTM rule of at most 4 layers of 128 in float32, the CPU, a C++ compiler on the worker (or "
        "kernels compiled beforehand: GRADSMITH_KERNELS), and a worker that was not started with GRADSMITH_NATIVE=off",
        "triton": "an LSTM rule of at most 4 layers of 32 in float32, a CUDA device, the package triton and a C "
        "compiler on the worker, and a worker that was not started with GRADSMITH_TRITON=off",
    }
    what = f"{rule.config()} in {str(dtype).removeprefix('torch.')} on {device.type}"
    return (
        f"The job forces the backend {wanted}, and this worker has none for {what}. It needs {needs[wanted]}. "
        f"Send resources.backend auto to run it on what there is; the worker's log may say more."
    )
