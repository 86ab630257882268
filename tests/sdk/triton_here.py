"""Whether Triton and a CUDA device are here: the marks of tests that need them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is not installed: pip install triton"
)
on_gpu = [
    pytest.mark.gpu,
    needs_triton,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]

Interpreted = Callable[..., Any]
"""What the fixture `interpreted` gives."""
