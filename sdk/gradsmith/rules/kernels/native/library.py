"""The compiled functions, as Python sees them."""

from __future__ import annotations

import ctypes
from pathlib import Path

from gradsmith.rules.kernels.native.build import BuildFailed
from gradsmith.rules.kernels.sizes import Sizes

_STEPS_ASKED = (1, 20)  # windows by which the sizes of the workspace are compared


class Unloadable(BuildFailed):
    """The file is damaged, or was made by a machine too unlike this one."""


class NeedsAnotherCPU(BuildFailed):
    """The file is sound, and its instructions are not those of this CPU."""


class Library:
    """One compiled kernel. Its functions trust their pointers; `NativeKernel` checks what it passes.

    block: coordinates a block; prepared_bytes: of a set of weights made ready
    Raises Unloadable when the file does not load or is not for these sizes, NeedsAnotherCPU when not for this CPU.
    """

    def __init__(self, path: Path, sizes: Sizes) -> None:
        try:
            loaded = ctypes.CDLL(str(path))
            ask = {
                name: getattr(loaded, f"gradsmith_{name}")
                for name in ("supported", "block", "state_rows", "weights", "prepared_bytes", "workspace_bytes")
            }
            self.prepare, self.step = loaded.gradsmith_prepare, loaded.gradsmith_step
            self.step_axis = loaded.gradsmith_step_axis
            self.window_gradient = loaded.gradsmith_window_gradient
        except (OSError, AttributeError) as error:
            raise Unloadable(f"the compiled kernel {path} does not load ({error})") from error
        if not ask["supported"]():
            raise NeedsAnotherCPU(f"the compiled kernel {path} needs instructions that this CPU lacks")
        size, pointer, real = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
        for function in ask.values():
            function.restype = size
        ask["workspace_bytes"].argtypes = [size]
        self.prepare.argtypes, self.prepare.restype = [pointer, real, real, pointer], None
        # prepared, coordinates, gradient, state, theta, then the tape: data, blocks, first layer; its row, threads
        tape = (pointer, size, size)
        self.step.argtypes = [pointer, size, pointer, pointer, pointer, *tape, size, size]
        # prepared, tensors, ends, gradients, values, rates, memory, whether it is bfloat16, threads
        self.step_axis.argtypes = [pointer, size, pointer, pointer, pointer, pointer, pointer, size, size]
        # prepared, coordinates, steps, G and its stride, D and its stride, snapshot, the tape, out, threads
        problem = (pointer, size, size, pointer, size, pointer, size, pointer)
        self.window_gradient.argtypes = [*problem, *tape, pointer, size]
        self.workspace_bytes = ask["workspace_bytes"]
        self.sizes = sizes
        self.block = int(ask["block"]())
        self.prepared_bytes = int(ask["prepared_bytes"]())
        said = (ask["weights"](), ask["state_rows"](), *map(self.workspace_bytes, _STEPS_ASKED))
        told = (sizes.workspace_bytes(steps, self.block // 2) for steps in _STEPS_ASKED)
        if said != (sizes.weights, sizes.state_rows, *told):
            raise Unloadable(f"the compiled kernel {path} is not for {sizes}")
