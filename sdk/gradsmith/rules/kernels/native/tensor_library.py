"""The compiled functions of rules that look at tensors, as Python sees them."""

from __future__ import annotations

import ctypes
from pathlib import Path

from gradsmith.rules.kernels.native.library import NeedsAnotherCPU, Unloadable


class TensorLibrary:
    """The compiled kernel of hyper rules of one clock, or of mlp rules of one configuration. Its functions trust their
    pointers; `TensorKernel` checks what it passes.

    Raises Unloadable when the file does not load, NeedsAnotherCPU when it is not for this CPU.
    """

    def __init__(self, path: Path) -> None:
        try:
            loaded = ctypes.CDLL(str(path))
            supported, self.weights = loaded.gradsmith_supported, loaded.gradsmith_weights
            self.record_floats = loaded.gradsmith_record_floats
            self.step, self.step_tasks = loaded.gradsmith_step, loaded.gradsmith_step_tasks
            self.back = loaded.gradsmith_back
            # Only mlp rules have it: their network runs for each coordinate.
            self.outputs_floats = getattr(loaded, "gradsmith_outputs_floats", None)
            self.back_sampled = getattr(loaded, "gradsmith_back_sampled", None)
        except (OSError, AttributeError) as error:
            raise Unloadable(f"the compiled kernel {path} does not load ({error})") from error
        if not supported():
            raise NeedsAnotherCPU(f"the compiled kernel {path} needs instructions that this CPU lacks")
        size, pointer, real = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
        rule = (pointer, size, size, real, size, pointer)  # weights, hidden, layers, scale; tensors and their sizes
        memory = (pointer, pointer, pointer, pointer)  # means, squares, last, numbers
        self.weights.argtypes, self.weights.restype = [size, size], size
        self.record_floats.argtypes, self.record_floats.restype = [size, size, size, size], size
        # gradients, values, rates; memory, record, outputs, threads
        self.step.argtypes = [*rule, pointer, pointer, pointer, *memory, pointer, pointer, size]
        # gradient, theta; memory, record, outputs, threads
        self.step_tasks.argtypes = [*rule, pointer, pointer, *memory, pointer, pointer, size]
        # record, worth, worths, q, total, threads
        self.back.argtypes = [*rule, pointer, pointer, pointer, pointer, pointer, size]
        if self.outputs_floats is not None and self.back_sampled is not None:
            self.outputs_floats.argtypes, self.outputs_floats.restype = [size, size], size
            # record, outputs, worth, worths, q; chosen of each tensor, places, counts, total, threads
            self.back_sampled.argtypes = [*rule, *[pointer] * 9, size]
