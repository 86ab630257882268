"""Sizes of a compiled kernel, and what memory follows from them. Needs no torch: the prediction of a job's memory asks.

The kernel's source (`native/*.h`) has the same sizes as constants. `Library` refuses a kernel that says otherwise, so
what is told here is true of every kernel that runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from gradsmith.rules.pieces import PIECES, Combination

MOST_HIDDEN, MOST_LAYERS = 128, 4
"""Larger rules have no kernel: compilation takes minutes and a block no longer fits a cache; torch serves them well."""

INPUTS = {"raw": 1, "log_sign": 2}
"""Inputs that the kernel knows, and their number of features."""

WIDTHS = {"avx512": 16, "avx2": 8, "portable": 4}
"""float32 numbers in a vector, by instruction set, best first."""

_FLOAT_BYTES = 4
_PAIR, _RECALLED = 2, 4  # steps that the gradient takes at once, and whose h and tanh(c) it has at hand


class Program(Protocol):
    """What is compiled into one kernel; its text is the beginning of the file's name.

    source: the file beside `native/build.py`, or an absolute path; defines: its compile-time constants, but for WIDTH
    bfloat16: whether its products have factors in bfloat16
    """

    source: ClassVar[str]

    @property
    def bfloat16(self) -> bool: ...

    @property
    def defines(self) -> Mapping[str, int]: ...


@dataclass(frozen=True)
class HyperProgram:
    """The kernel of hyper rules of one clock and direction: the sizes of their networks are arguments.

    fraction: `time+fraction`; muon: the direction `muon`
    """

    source: ClassVar[str] = "hyper.cpp"
    bfloat16: ClassVar[bool] = False

    fraction: bool = False
    muon: bool = False

    @property
    def defines(self) -> Mapping[str, int]:
        return {"WITH_FRACTION": int(self.fraction), "WITH_MUON": int(self.muon)}

    def __str__(self) -> str:
        return f"hyper{'-fraction' if self.fraction else ''}{'-muon' if self.muon else ''}"


@dataclass(frozen=True)
class MLPProgram:
    """The kernel of mlp rules of these sizes, with these inputs in the order of `pieces.PIECES`."""

    source: ClassVar[str] = "mlp.cpp"
    bfloat16: ClassVar[bool] = False
    known: ClassVar[tuple[str, ...]] = ("momenta", "scales", "tensor_scale", "alignment", "time", "fraction")

    hidden: int
    layers: int
    names: tuple[str, ...]

    @classmethod
    def fitting(cls, hidden_size: int, layers: int, input: str) -> MLPProgram | None:  # noqa: A002  the rule's word
        """The kernel for an mlp rule with these settings. None where none can be made for it."""
        own = Combination.of(input)
        fits = own.of_tensors and set(own.names) <= set(cls.known)
        return cls(hidden_size, layers, own.names) if fits and hidden_size <= MOST_HIDDEN else None

    @property
    def input(self) -> str:
        """The rule's setting."""
        return "+".join(self.names)

    def left(self, tensors: float) -> int:
        """Numbers that a step leaves of a coordinate for a window's gradient: its own features and 1 / s, and of a
        tensor one block that is not full, and what its coordinates share. tensors: how many there are for one
        coordinate."""
        shared = {"alignment", "time", "fraction"}
        own = 1 + sum(PIECES[name].width for name in self.names if name not in shared)
        of_tensor = 2 * WIDTHS["avx2"] * own + self.hidden + Combination(self.names).width
        return math.ceil(own + of_tensor * tensors)

    def outputs(self, tensors: float) -> int:
        """The network's outputs at a coordinate, and at those of one block that is not full of each tensor."""
        return math.ceil((Combination(self.names).directions + 1) * (1 + 2 * WIDTHS["avx2"] * tensors))

    @property
    def defines(self) -> Mapping[str, int]:
        inputs = {f"WITH_{name.upper()}": int(name in self.names) for name in self.known}
        return {"HIDDEN": self.hidden, "LAYERS": self.layers, **inputs}

    def __str__(self) -> str:
        initials = "".join(name[0] if name in self.names else "" for name in self.known)
        return f"mlp-{self.layers}x{self.hidden}-{initials}"


@dataclass(frozen=True)
class Sizes:
    """The constants of a compiled LSTM kernel. inputs: 2 features for log_sign, 1 for raw."""

    source: ClassVar[str] = "kernel.cpp"

    hidden: int
    layers: int
    inputs: int
    bfloat16: bool = False

    @classmethod
    def fitting(cls, hidden_size: int, layers: int, input: str) -> Sizes | None:  # noqa: A002  the rule's word
        """The sizes for an LSTM rule with these settings. None where no kernel can be made for it."""
        fits = input in INPUTS and hidden_size <= MOST_HIDDEN and layers <= MOST_LAYERS
        return cls(hidden_size, layers, INPUTS[input]) if fits else None

    @property
    def defines(self) -> Mapping[str, int]:
        sizes = {"HIDDEN": self.hidden, "LAYERS": self.layers, "INPUTS": self.inputs}
        return {**sizes, "BFLOAT16": int(self.bfloat16)}

    @property
    def weights(self) -> int:
        """Number of weights, biases included."""
        first = self.inputs + self.hidden + 1
        return 4 * self.hidden * (first + (self.layers - 1) * (2 * self.hidden + 1)) + self.hidden + 1

    @property
    def state_rows(self) -> int:
        """Numbers of state a coordinate."""
        return 2 * self.layers * self.hidden

    @property
    def record_rows(self) -> int:
        """Numbers that the gradient needs of one coordinate, step and layer: four gates and c."""
        return 5 * self.hidden

    def workspace_bytes(self, steps: int, width: int) -> int:
        """Bytes that each thread takes while it differentiates a window: `Workspace` and `steps` times `Step` of
        native/window.h. width: float32 numbers in a vector."""
        H, L, gates, block = self.hidden, self.layers, 4 * self.hidden, 2 * width
        columns = max(self.inputs + H, 2 * H if L > 1 else 0)
        padded = -(-columns // width) * width
        area = H * block
        sums = L * gates * (padded + width) + (H + 1) * width
        products = _PAIR * block * (gates + padded)
        per_layer = 2 * _RECALLED * area + 4 * area  # tanh(c) and h; replayed h, what goes down and back, c's gradient
        step = (self.inputs + 2) * block + L * self.record_rows * block
        return _FLOAT_BYTES * (sums + products + L * per_layer + _PAIR * area + steps * step)

    def __str__(self) -> str:
        return f"lstm-{self.layers}x{self.hidden}-in{self.inputs}{'-bfloat16' if self.bfloat16 else ''}"


USUAL = (
    HyperProgram(),
    HyperProgram(fraction=True),
    HyperProgram(muon=True),
    HyperProgram(fraction=True, muon=True),
    MLPProgram(hidden=24, layers=2, names=("momenta", "scales", "tensor_scale", "alignment", "time")),
    Sizes(hidden=20, layers=2, inputs=2),
    Sizes(hidden=20, layers=2, inputs=1),
)
"""What an image has kernels of: the rules of the built-in families unless a job says otherwise, and the usual mlp."""
