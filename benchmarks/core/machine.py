"""What was measured on: processor, not names."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.core.environment import ROOT
from benchmarks.core.fleet import cpu_count

_FLAGS = ("fma", "avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")


def described() -> dict[str, str]:
    """Model, cores, instruction sets that matter, versions, the commit, and how busy the machine was."""
    info = _processor()
    present = set(info.get("flags", info.get("Features", "")).split())
    return {
        "processor": info.get("model name") or platform.processor() or platform.machine(),
        "cores": f"{cpu_count()} of {os.cpu_count()}",
        "flags": " ".join(flag for flag in _FLAGS if flag in present) or "not told",
        "system": f"{platform.system()} {platform.machine()}",
        "python": sys.version.split()[0],
        "torch": f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}",
        "commit": _commit(),
        "load before": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not told",
    }


class Stolen:
    """How much of the machine's time went to other machines on the same host, since this was made."""

    def __init__(self) -> None:
        self._before = _processor_times()

    def share(self) -> float | None:
        """None where the system does not say."""
        if self._before is None or (now := _processor_times()) is None:
            return None
        stolen, total = (after - before for after, before in zip(now, self._before, strict=True))
        return stolen / total if total else 0.0


def _processor_times() -> tuple[int, int] | None:
    """(stolen, all) in the kernel's ticks, of all cores since the start."""
    file = Path("/proc/stat")
    if not file.exists():
        return None
    ticks = [int(field) for field in file.read_text().split("\n", 1)[0].split()[1:9]]  # user .. steal
    return ticks[7], sum(ticks)


def _processor() -> dict[str, str]:
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return {}
    lines = file.read_text().split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _commit() -> str:
    """Its short name, and where files differ from it a hash of how they do."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False).stdout.strip()

    name = git("rev-parse", "--short", "HEAD").decode()
    if not name:
        return "not a checkout"
    changes = git("diff", "HEAD")
    return name + (f" with changes {hashlib.sha256(changes).hexdigest()[:8]}" if changes else "")
