"""The instruction sets that a kernel is compiled for, and those that this CPU has. No compiler is run here."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

from gradsmith.rules.kernels.sizes import WIDTHS


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
_AVX512 = ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mavx2", "-mfma")
TARGETS = (
    Target(
        "avx512", WIDTHS["avx512"], ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mavx2", "-mfma"), _X86
    ),
    Target("avx2", WIDTHS["avx2"], ("-mavx2", "-mfma"), _X86),
    Target("portable", WIDTHS["portable"], ()),
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
