"""Products in bfloat16 (`recipe.products`) against those in float32: the meta-gradient's error, and the speed.

`python -m benchmarks.core.bf16 ROUNDS` prints one JSON object; `measured_apart` runs it in a process of its own, bound
to one CPU. Both kernels see the same windows in turn, so that what disturbs one disturbs the other.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.core import reference, tasks
from benchmarks.core.accuracy import window, window_inputs
from benchmarks.core.ceilings import bound
from benchmarks.core.environment import ROOT
from benchmarks.core.peers.ours import Ours, rule_with
from benchmarks.core.problem import MLP, QUADRATICS, Problem, load
from models.backends import NativeBackend, TorchBackend, backend_for
from models.spec import Products

ALLOWED = 1e-2
"""How far the meta-gradient may lie from that of float32, as a share of its length."""
TURN_SECONDS = 0.3
BOTH: tuple[Products, Products] = ("float32", "bfloat16")


def measured_apart(rounds: int) -> dict[str, Any]:
    """`measure` in a process of its own. Raises RuntimeError with its last words."""
    command = [sys.executable, "-m", "benchmarks.core.bf16", str(rounds)]
    done = subprocess.run(bound(command, 1), capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[1:])} ended with {done.returncode}: {done.stderr[-500:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(rounds: int, problems: tuple[Problem, ...] = (MLP, QUADRATICS)) -> dict[str, Any]:
    """{"rows": [{"problem", "backends", "emulated", "off_float64", "off_float32", "window", "meta_step"}]}, where
    `backends`, `off_float64`, `window` and `meta_step` are by products: names, the largest difference over the largest
    value of a weight tensor's gradient, and seconds of the processor by round, of a window's steps and gradient alone
    and of a whole meta-step. `off_float32`: length of the difference between the two gradients over that of float32's.

    Raises BackendUnavailable where there is no native kernel.
    """
    torch.set_num_threads(1)
    return {"rows": [_row(problem, rounds) for problem in problems]}


def _row(problem: Problem, rounds: int) -> dict[str, Any]:
    rule, (G, D) = rule_with(reference.starting_weights()), window_inputs(problem)
    exact = rule_with(reference.starting_weights(), torch.float64)
    truth, _ = window(exact, TorchBackend(exact, fused=False), G, D)
    bound_to: dict[str, NativeBackend] = {}
    for products in BOTH:
        backend = backend_for(rule, torch.float32, torch.device("cpu"), wanted="native", products=products)
        assert isinstance(backend, NativeBackend)
        bound_to[products] = backend
    found = {products: window(rule, backend, G, D)[0] for products, backend in bound_to.items()}
    windows = {products: _window_of(backend, G, D) for products, backend in bound_to.items()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "problem.npz")
        tasks.export(problem, file)
        loaded, weights = load(file), reference.starting_weights()
        ours = {products: Ours(loaded, weights, 1, backend=backend) for products, backend in bound_to.items()}
    for each in ours.values():
        each.begin()
    flat = {p: torch.cat([torch.from_numpy(each).reshape(-1) for each in own.values()]) for p, own in found.items()}
    return {
        "problem": problem.title,
        "backends": {products: backend.name for products, backend in bound_to.items()},
        "emulated": bound_to["bfloat16"].kernel.emulates,
        "off_float64": {products: reference.difference(own, truth) for products, own in found.items()},
        "off_float32": float((flat["bfloat16"] - flat["float32"]).norm() / flat["float32"].norm()),
        "window": _in_turn(windows, rounds),
        "meta_step": _in_turn({products: lambda each=each: each.run(1) for products, each in ours.items()}, rounds),
    }


def _window_of(backend: NativeBackend, G: Tensor, D: Tensor) -> Callable[[], None]:
    """One window's steps and gradient, as the product computes them: with what the steps leave."""

    def run() -> None:
        own = backend.for_window(G.shape[1], G.shape[0])
        snapshot, theta = own.initial_memory(G.shape[1]), torch.zeros_like(G[0])
        memory = own.kept(snapshot)
        for gradient in G:
            memory = own.step(theta, gradient, memory)
        own.window_gradient(snapshot, G, D)

    return run


def _in_turn(calls: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of the processor that one call takes, by round, each call once a round for some tenths of a second."""
    repeats = {}
    for name, call in calls.items():
        call()  # the first makes the memory
        repeats[name] = max(1, math.ceil(TURN_SECONDS / _seconds(call, 1)))
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(_seconds(call, repeats[name]))
    return found


def _seconds(call: Callable[[], None], times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - started) / times


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
