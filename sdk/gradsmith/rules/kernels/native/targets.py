"""What a kernel is compiled for: the sizes of a rule and the instructions of a CPU. No compiler is run here."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

from gradsmith.rules.lstm import LSTMRule

MOST_HIDDEN, MOST_LAYERS = 128, 4
"""Larger rules have no kernel: compilation takes minutes and a block no longer fits a cache; torch serves them well."""

INPUTS = {"raw": 1, "log_sign": 2}
"""Inputs that the kernel knows, and their number of features."""


@dataclass(frozen=True)
class Sizes:
    """The sizes that are constants of a compiled kernel. inputs: 2 features for log_sign, 1 for raw."""

    hidden: int
    layers: int
    inputs: int

    @classmethod
    def of(cls, rule: LSTMRule) -> Sizes | None:
        """None where no kernel can be made for the rule."""
        sizes = cls(rule.hidden_size, len(rule.layers), INPUTS.get(rule.input, 0))
        fits = sizes.inputs and sizes.hidden <= MOST_HIDDEN and sizes.layers <= MOST_LAYERS
        return sizes if fits else None

    @property
    def weights(self) -> int:
        """Number of weights, biases included."""
        first = self.inputs + self.hidden + 1
        return 4 * self.hidden * (first + (self.layers - 1) * (2 * self.hidden + 1)) + self.hidden + 1

    @property
    def state_rows(self) -> int:
        """Numbers of state a coordinate."""
        return 2 * self.layers * self.hidden

    def __str__(self) -> str:
        return f"lstm-{self.layers}x{self.hidden}-in{self.inputs}"


@dataclass(frozen=True)
class Target:
    """A set of instructions. width: float32 numbers in a vector; flags: for the compiler."""

    name: str
    width: int
    flags: tuple[str, ...]
    machines: tuple[str, ...] = ()  # as platform.machine() says; none: any

    def compiles_on(self, machine: str) -> bool:
        return not self.machines or machine in self.machines


_X86 = ("x86_64", "AMD64")
TARGETS = (
    Target("avx512", 16, ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mavx2", "-mfma"), _X86),
    Target("avx2", 8, ("-mavx2", "-mfma"), _X86),
    Target("portable", 4, ()),
)
"""Best first. `portable` needs nothing beyond what the platform guarantees: SSE2 on x86-64, NEON on 64-bit ARM."""


def targets_here(at_most: str = "auto") -> tuple[Target, ...]:
    """The targets that this CPU can run, best first, from `at_most` downwards.

    The CPU is asked through torch, so ATEN_CPU_CAPABILITY=default holds the kernels back together with torch's own.
    """
    has = {"AVX512": ("avx512", "avx2", "portable"), "AVX2": ("avx2", "portable")}
    names = has.get(torch.backends.cpu.get_cpu_capability(), ("portable",))
    able = [target for target in TARGETS if target.name in names and target.compiles_on(platform.machine())]
    if at_most == "auto":
        return tuple(able)
    order = [target.name for target in TARGETS]
    return tuple(target for target in able if order.index(target.name) >= order.index(at_most))
