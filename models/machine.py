"""What a process may use of the machine that it runs on, a container's limits included. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cpus(cgroup: Path = _CGROUP) -> int:
    """CPUs that this process is bound to, and no more than its container's quota pays for; at least 1."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = (cgroup / "cpu.max").read_text().split()
        return max(1, min(bound, int(allowed) // int(period)))
    except (OSError, ValueError):  # no such limit, or the word "max"
        return bound


def usable_memory_bytes(cgroup: Path = _CGROUP) -> int:
    """The machine's memory, and no more than its container's limit."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # the second version of cgroups, and the first
        try:
            return min(installed, int((cgroup / name).read_text()))
        except (OSError, ValueError):
            continue
    return installed


def peak_memory_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """The largest resident memory of this process so far; None where there is no /proc. (getrusage would do, but counts
    what the parent had before exec.)"""
    try:
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024
