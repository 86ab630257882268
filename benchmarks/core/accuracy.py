"""Every backend that runs here against plain autograd in float64, on equal inputs: `python -m benchmarks.core.accuracy`
prints one JSON object. In a process of its own, because a kernel that is wrong may also crash.

Equal inputs: the gradients of a trajectory and the weights of its updates are computed once, in float64, and rounded to
float32, which every backend holds exactly. So what differs is a backend's arithmetic and nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import torch
from torch import Tensor

from benchmarks.core import reference
from benchmarks.core.environment import ROOT
from benchmarks.core.peers.base import Weights
from benchmarks.core.peers.ours import named, rule_with
from benchmarks.core.problem import MLP, QUADRATICS, Problem
from benchmarks.core.tasks import batch_of
from gradsmith.rules import LSTMRule
from models.adjoint import suffix_sums
from models.backends import Backend, TorchBackend, backend_for
from models.errors import ModelsError
from models.spec import BackendName
from models.unroll import advance, begin

ALLOWED = {"float64": 1e-12, "float32": 1e-5}
CANDIDATES: tuple[tuple[BackendName, torch.dtype, str], ...] = (
    ("torch", torch.float64, "cpu"),
    ("torch", torch.float32, "cpu"),
    ("native", torch.float32, "cpu"),
    ("triton", torch.float32, "cuda"),
)


def measured_apart() -> dict[str, Any]:
    """`measure` in a process of its own. Raises RuntimeError with its last words."""
    command = [sys.executable, "-m", "benchmarks.core.accuracy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[1:])} ended with {done.returncode}: {done.stderr[-500:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(problems: tuple[Problem, ...] = (MLP, QUADRATICS)) -> dict[str, Any]:
    """{"rows": [{"backend", "dtype", "problem", "allowed", "tensors": {name: difference}, "update": difference}],
    "missing": {backend: why}}.

    A difference is the largest absolute one over the largest absolute value of the reference: for each weight tensor of
    the window's gradient, and for what the window's steps have added to theta.
    """
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for problem in problems:
        G, D = window_inputs(problem)
        exact = rule_with(reference.starting_weights(), torch.float64)
        truth, moved = window(exact, TorchBackend(exact, fused=False), G, D)
        for wanted, dtype, device in CANDIDATES:
            precision = str(dtype).removeprefix("torch.")
            if device == "cuda" and not torch.cuda.is_available():
                missing[wanted] = "no CUDA device here; its tests run the same program in Triton's interpreter"
                continue
            try:
                rule = rule_with(reference.starting_weights(), dtype).to(device)
                backend = backend_for(rule, dtype, torch.device(device), 1, wanted=wanted)
            except ModelsError as error:
                missing[wanted] = str(error).split(". Send resources")[0]
                continue
            # A window's own backend may use what its steps have left; without it, they are computed again.
            own = backend.for_window(problem.coordinates, problem.unroll_steps)
            for one, how in ((backend, ""), (own, ", from what the steps left")):
                if one is backend and how:
                    continue  # it leaves nothing
                found, theirs = window(rule, one, G, D)
                rows.append(
                    {
                        "backend": backend.name + how,
                        "dtype": precision,
                        "problem": problem.title,
                        "allowed": ALLOWED[precision],
                        "tensors": {
                            name: reference.difference({name: found[name]}, {name: truth[name]}) for name in truth
                        },
                        "update": float((theirs - moved).abs().max() / moved.abs().max()),
                    }
                )
    return {"rows": rows, "missing": missing}


def window_inputs(problem: Problem) -> tuple[Tensor, Tensor]:
    """G, D of the problem's first window, in float32."""
    rule = rule_with(reference.starting_weights(), torch.float64)
    batch, backend = batch_of(problem, torch.float64), TorchBackend(rule)
    position = begin(batch, backend)
    gradients = [position.gradient]
    advance(
        batch, position, problem.unroll_steps, backend, lambda _theta, _losses, gradient: gradients.append(gradient)
    )
    G = torch.stack(gradients)
    return G[:-1].float(), (suffix_sums(G[1:]) / problem.tasks).float()


def window(rule: LSTMRule, backend: Backend, G: Tensor, D: Tensor) -> tuple[Weights, Tensor]:
    """The window's gradient, by tensor, and what its steps add to theta; both in float64. backend: the rule's"""
    G, D = (tensor.to(rule.readout_bias) for tensor in (G, D))
    coordinates = G.shape[1]
    snapshot = backend.initial_memory(coordinates)
    theta = torch.zeros_like(G[0])
    memory = backend.kept(snapshot)
    for gradient in G:
        memory = backend.step(theta, gradient, memory)
    gradient = backend.window_gradient(snapshot, G, D)
    return named(rule, gradient.double().cpu()), theta.double().cpu()


if __name__ == "__main__":
    print(json.dumps(measure()))
