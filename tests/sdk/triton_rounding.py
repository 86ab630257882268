"""A Triton program of one line for test_triton.py: Triton finds names in a program's module only."""

from __future__ import annotations

import triton
import triton.language as tl

from gradsmith.rules.kernels.triton.cell import rounded


@triton.jit
def rounding(numbers, COUNT: tl.constexpr):
    """Each of COUNT float32 numbers becomes the nearest bfloat16 number, by the interpreter's way."""
    at = numbers + tl.arange(0, COUNT)
    tl.store(at, rounded(tl.load(at), True))
