"""The instruction sets that a kernel is compiled for, and those that this CPU has. No compiler is run here."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

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
    Target("avx512", WIDTHS["avx512"], _AVX512, _X86),
    Target("avx2", WIDTHS["avx2"], ("-mavx2", "-mfma"), _X86),
    Target("portable", WIDTHS["portable"], ()),
)
"""Best first. `portable` needs nothing beyond what the platform guarantees: SSE2 on x86-64, NEON on 64-bit ARM."""


AVX512_BF16 = Target("avx512_bf16", WIDTHS["avx512"], (*_AVX512, "-mavx512bf16"), _X86)
"""For kernels whose products have factors in bfloat16, and for no other."""


def targets_of(machine: str | None, *, bfloat16: bool) -> tuple[Target, ...]:
    """What a kernel may be compiled for, best first. machine: on such a machine, as platform.machine() says; None: on
    any. bfloat16: whether its products have factors in that"""
    named = (AVX512_BF16, *TARGETS) if bfloat16 else TARGETS
    return tuple(target for target in named if machine is None or target.compiles_on(machine))


_CPU_FACTS = Path("/proc/cpuinfo")


def targets_here(at_most: str = "auto", *, bfloat16: bool = False) -> tuple[Target, ...]:
    """The targets that this CPU can run, best first, from `at_most` downwards. bfloat16: also what multiplies that.

    The CPU is asked through torch, so ATEN_CPU_CAPABILITY=default holds the kernels back together with torch's own.
    """
    has = {"AVX512": ("avx512", "avx2", "portable"), "AVX2": ("avx2", "portable")}
    names = has.get(torch.backends.cpu.get_cpu_capability(), ("portable",))
    able = [target for target in TARGETS if target.name in names and target.compiles_on(platform.machine())]
    if at_most == "auto":
        multiplies = bfloat16 and TARGETS[0] in able and has_avx512_bf16()
        return (AVX512_BF16, *able) if multiplies else tuple(able)
    order = [target.name for target in TARGETS]
    return tuple(target for target in able if order.index(target.name) >= order.index(at_most))


def has_avx512_bf16(facts: Path = _CPU_FACTS) -> bool:
    """Whether Linux says that the CPU multiplies pairs of bfloat16 numbers. False where it says nothing: a kernel that
    was made for those instructions asks the CPU itself before it runs."""
    try:
        lines = facts.read_text().splitlines()
    except OSError:
        return False
    return any("avx512_bf16" in line.partition(":")[2].split() for line in lines if line.startswith("flags"))
