"""What a user waits for: one optimizer step of a model, ours against the same rule as plain nn.LSTM and against Adam.

Run as `python -m benchmarks.core.step PARAMETERS ROUNDS`, in a process bound to one CPU; prints one JSON object.
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
BYTES_EACH = {"ours": 1_250, "plain": 500, "adam": 90}
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


def measure(parameters: int, rounds: int) -> dict[str, Any]:
    """{"seconds": {name: [...]}, "left_out": {name: why}, "coordinates": n}; names are ours, plain and adam."""
    torch.set_num_threads(1)
    rule = rule_with(reference.starting_weights())
    steps: dict[str, Callable[[], None]] = {}
    left_out: dict[str, str] = {}
    makers: dict[str, Callable[[list[Tensor]], Callable[[], None]]] = {
        "adam": lambda tensors: torch.optim.Adam(tensors, foreach=True).step,
        "ours": lambda tensors: LearnedOptimizer(tensors, rule).step,
        "plain": lambda tensors: PlainLearnedOptimizer(tensors).step,
    }
    room = _available_bytes() * 0.8
    for name, make in makers.items():
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
        "seconds": seconds,
        "left_out": left_out,
    }


def measured_apart(parameters: int, rounds: int) -> dict[str, Any]:
    """`measure` in a process of its own, so that one size's memory is gone before the next begins."""
    command = [sys.executable, "-m", "benchmarks.core.step", str(parameters), str(rounds)]
    done = subprocess.run(bound(command), capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError(f"the step of {parameters} parameters ended with {done.returncode}: {done.stderr[-500:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _available_bytes() -> float:
    file = Path("/proc/meminfo")
    if not file.exists():
        return 8e9
    fields = dict(line.split(":", 1) for line in file.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024.0


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
