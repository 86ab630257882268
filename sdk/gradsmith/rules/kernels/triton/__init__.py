"""The LSTM rule as two Triton programs for CUDA devices, and a step of a hyper or mlp rule as three. Triton itself is
imported when a kernel is asked for.

GRADSMITH_TRITON, read when a kernel is asked for: auto (default), off, or bf16 for products of bfloat16 numbers in the
LSTM rule's programs.
"""

from gradsmith.rules.kernels.triton.choose import choice_from_environment, triton_kernel, triton_tensor_kernel
from gradsmith.rules.kernels.triton.layout import Layout

__all__ = ["Layout", "choice_from_environment", "triton_kernel", "triton_tensor_kernel"]
