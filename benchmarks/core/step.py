"""What a user waits for: one optimizer step of a model, ours against the same rule as plain nn.LSTM and against Adam.

Run as `python -m benchmarks.core.step PARAMETERS ROUNDS [THREADS]`; prints one JSON object. `measured_apart` runs it in
a process that is bound to as many CPUs as there are threads, and asks each optimizer's peak of memory from a process of
its own: `python -m benchmarks.core.step --peak NAME PARAMETERS`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.core import reference
from benchmarks.core.ceilings import bound
from benchmarks.core.environment import ROOT
from benchmarks.core.peers.base import Weights
from benchmarks.core.peers.ours import rule_with
from benchmarks.core.peers.plain_torch import log_sign
from benchmarks.core.problem import HIDDEN, OUTPUT_SCALE
from gradsmith import LearnedOptimizer

LAYERS = 20
OURS, HALF, PLAIN, ADAM = "ours", "ours, bfloat16 state", "plain", "adam"
BYTES_EACH = {OURS: 330, HALF: 170, PLAIN: 520, ADAM: 30}
"""Measured peak of resident memory for each parameter, by which a size is left out that would not fit."""


class PlainLearnedOptimizer:
    """The rule as one would write it: nn.LSTM over a sequence of one, tensor by tensor."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self._parameters = parameters
        self._lstm = nn.LSTM(2, HIDDEN, num_layers=2)
        self._readout = nn.Linear(HIDDEN, 1)
        self._memory: dict[Tensor, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Take the rule's weights, by the product's names."""
        for level, width in enumerate((2, HIDDEN)):
            weight = torch.from_numpy(weights[f"layers.{level}.weight"])
            self._lstm.get_parameter(f"weight_ih_l{level}").copy_(weight[:, :width])
            self._lstm.get_parameter(f"weight_hh_l{level}").copy_(weight[:, width:])
            self._lstm.get_parameter(f"bias_ih_l{level}").copy_(torch.from_numpy(weights[f"layers.{level}.bias"]))
            self._lstm.get_parameter(f"bias_hh_l{level}").zero_()
        self._readout.weight.copy_(torch.from_numpy(weights["readout_weight"])[None])
        self._readout.bias.copy_(torch.from_numpy(weights["readout_bias"]))

    @torch.no_grad()
    def step(self) -> None:
        for parameter in self._parameters:
            assert parameter.grad is not None
            signal = log_sign(parameter.grad.reshape(-1))[None]  # (1, coordinates, 2)
            output, self._memory[parameter] = self._lstm(signal, self._memory.get(parameter))
            parameter += OUTPUT_SCALE * self._readout(output[0]).view(parameter.shape)


def model(parameters: int) -> list[Tensor]:
    """Twenty weights and twenty biases a hundredth of their size, with gradients."""
    bias = max(1, parameters // (LAYERS * 101))
    weight = parameters // LAYERS - bias
    tensors = [torch.randn(size) * 0.1 for _ in range(LAYERS) for size in (weight, bias)]
    for tensor in tensors:
        tensor.requires_grad_()
        tensor.grad = torch.randn(tensor.shape) * 1e-2
    return tensors


def optimizers() -> dict[str, Callable[[list[Tensor]], Callable[[], None]]]:
    """Name -> what makes the step of an optimizer of these tensors. The learned ones run the same rule."""
    rule = rule_with(reference.starting_weights())

    def plain(tensors: list[Tensor]) -> Callable[[], None]:
        optimizer = PlainLearnedOptimizer(tensors)
        optimizer.load(reference.starting_weights())
        return optimizer.step

    return {
        ADAM: lambda tensors: torch.optim.Adam(tensors, foreach=True).step,
        OURS: lambda tensors: LearnedOptimizer(tensors, rule).step,
        HALF: lambda tensors: LearnedOptimizer(tensors, rule, state_dtype=torch.bfloat16).step,
        PLAIN: plain,
    }


def measure(parameters: int, rounds: int, threads: int = 1) -> dict[str, Any]:
    """{"seconds": {name: [...]}, "left_out": {name: why}, "coordinates": n, "threads": n}."""
    torch.set_num_threads(threads)
    steps: dict[str, Callable[[], None]] = {}
    left_out: dict[str, str] = {}
    room = _available_bytes() * 0.8
    for name, make in optimizers().items():
        need = parameters * BYTES_EACH[name]
        if need > room:
            left_out[name] = f"needs {need / 1e9:.0f} GB and {room / 1e9:.0f} are free"
            continue
        room -= need
        steps[name] = make(model(parameters))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()  # the first makes the memory
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    return {
        "coordinates": sum(tensor.numel() for tensor in model(parameters)),
        "threads": threads,
        "seconds": seconds,
        "left_out": left_out,
    }


def peak_bytes(name: str, parameters: int) -> int | None:
    """What two steps of an optimizer add to the peak of this process, which has the model with its gradients and has
    made a step of a small one. None where the system does not tell."""
    torch.set_num_threads(1)
    make = optimizers()[name]
    make(model(2_000))()  # a kernel is loaded, and whatever a first call takes
    tensors = model(parameters)
    # From here, not from the peak so far: making the model may have taken more than it keeps.
    before, step = _status("VmRSS"), make(tensors)
    step(), step()
    after = _status("VmHWM")
    return None if before is None or after is None else after - before


def measured_apart(parameters: int, rounds: int, threads: int = 1) -> dict[str, Any]:
    """`measure` in a process of its own, so that one size's memory is gone before the next begins; with
    {"peak_bytes": {name: for each parameter}} beside it."""
    found: dict[str, Any] = _apart([str(parameters), str(rounds), str(threads)], threads)
    found["peak_bytes"] = {}
    for name in found["seconds"]:
        peak = _apart(["--peak", name, str(parameters)], 1)
        if peak is not None:
            found["peak_bytes"][name] = peak / parameters
    return found


def _apart(arguments: list[str], threads: int) -> Any:
    command = [sys.executable, "-m", "benchmarks.core.step", *arguments]
    done = subprocess.run(bound(command, threads), capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError(f"the step {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def _status(field: str) -> int | None:
    file = Path("/proc/self/status")
    if not file.exists():
        return None
    fields = dict(line.split(":", 1) for line in file.read_text().splitlines())
    return int(fields[field].split()[0]) * 1024


def _available_bytes() -> float:
    file = Path("/proc/meminfo")
    if not file.exists():
        return 8e9
    fields = dict(line.split(":", 1) for line in file.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024.0


if __name__ == "__main__":
    if sys.argv[1] == "--peak":
        print(json.dumps(peak_bytes(sys.argv[2], int(sys.argv[3]))))
    else:
        print(json.dumps(measure(*map(int, sys.argv[1:]))))
