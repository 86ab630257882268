"""The machine's ceilings on one core, and the limit that they set to coordinate-steps."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.core.environment import ROOT
from benchmarks.core.fleet import cpus

FLOP = 29_600
"""Floating-point operations of one coordinate-step: 10.0 k forward and 19.6 k backward (shared by every method)."""
FORWARD_FLOP = 10_000
FLOP_WITH_RECOMPUTE = 39_500
ACTIVATIONS = 200
"""Sigmoids and hyperbolic tangents of one coordinate-step: two layers of 80 gates and 20 cells."""

SOURCE = Path(__file__).with_name("ceilings.c")


def measure(folder: Path) -> dict[str, Any]:
    """fma_flops and sigmoids a second, from compiled C where there is a compiler; sgemm_flops and torch_sigmoids."""
    found = _in_own_process("torch_rates")
    compiled = _compiled(folder)
    if compiled is not None:
        done = subprocess.run(bound([str(compiled)]), capture_output=True, text=True, check=True)
        found |= json.loads(done.stdout)
    return found


def limit(found: dict[str, Any], flop: int = FLOP) -> float:
    """Coordinate-steps a second that one core cannot exceed in float32: products in the registers, activations in the
    first cache and in the fastest of their forms, nothing else. Without a compiler the products are torch's sgemm and
    the activations torch's sigmoid."""
    return 1.0 / seconds(found, flop, ACTIVATIONS)


def seconds(found: dict[str, Any], flop: float, activations: float) -> float:
    """What so many operations and activations take one core at the least."""
    flops = found.get("fma_flops", found["sgemm_flops"])
    sigmoids = max(found.get(f"sigmoids_{form}", 0.0) for form in ("by_division", "by_estimate", "as_kernel"))
    return float(flop / flops + activations / (sigmoids or found["torch_sigmoids"]))


def torch_rates() -> dict[str, float]:
    """Run in a process bound to one CPU."""
    import torch

    torch.set_num_threads(1)
    a, b, c = torch.rand(512, 512), torch.rand(512, 512), torch.empty(512, 512)
    weight, signal, gates = torch.rand(80, 40), torch.rand(40, 1280), torch.empty(80, 1280)
    x = torch.rand(4096)
    return {
        "sgemm_flops": 2 * 512**3 / _best(lambda: torch.mm(a, b, out=c), 100),
        "gate_sgemm_flops": 2 * 80 * 40 * 1280 / _best(lambda: torch.mm(weight, signal, out=gates), 500),
        "torch_sigmoids": 4096 / _best(lambda: torch.sigmoid(x, out=x), 1000),
    }


def _best(call: Callable[[], object], times: int) -> float:
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best


def _in_own_process(function: str) -> dict[str, Any]:
    code = f"import json; from benchmarks.core import ceilings; print(json.dumps(ceilings.{function}()))"
    done = subprocess.run(bound([sys.executable, "-c", code]), capture_output=True, text=True, check=True, cwd=ROOT)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def bound(command: list[str], threads: int = 1) -> list[str]:
    return ["taskset", "-c", cpus(threads), *command] if shutil.which("taskset") else command


def _compiled(folder: Path) -> Path | None:
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        return None
    target = folder / "ceilings"
    for native in ("-march=native", "-mcpu=native"):
        flags = ["-O3", native, "-ffp-contract=fast", "-fno-math-errno"]
        done = subprocess.run([compiler, *flags, "-o", str(target), str(SOURCE)], capture_output=True, check=False)
        if done.returncode == 0:
            return target
    return None
