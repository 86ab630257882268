"""Steps of `LearnedOptimizer` with rules that look at tensors: the compiled axis against the plain one, through the
optimizer."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from gradsmith import LearnedOptimizer
from gradsmith.axes import Home, TorchAxis
from gradsmith.axes.tensors import TensorAxis
from gradsmith.rules import build
from gradsmith.rules import weights as rule_weights
from gradsmith.rules.hyper import HyperRule
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import tensor_kernel
from gradsmith.rules.kernels.tensor_truth import KernelRule, drawn
from gradsmith.rules.mlp import MLPRule
from tests.compiler import compiled, no_kernel

pytestmark = compiled

SIZES = (3, 0, 1, 31, 33, 500, 0, 2, 64)
HERE = Home(0, torch.device("cpu"), torch.float32)


PLANNED = 9
RULES: dict[str, dict[str, object]] = {
    "hyper": {"kind": "hyper"},
    "mlp": {"kind": "mlp"},
    "mlp of planned steps": {"kind": "mlp", "layers": 1, "hidden_size": 5, "input": "tensor_scale+fraction"},
}


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> KernelRule:
    made = build(RULES[request.param])
    assert isinstance(made, HyperRule | MLPRule)
    return drawn(made, 3).float().requires_grad_(False)


def make_axes(rule: KernelRule) -> tuple[TensorAxis, TorchAxis]:
    kernel = tensor_kernel(rule)
    if isinstance(kernel, Refusal):
        no_kernel(kernel.reason)
    return TensorAxis(HERE, SIZES, rule, kernel, 1, PLANNED), TorchAxis(HERE, torch.float32, SIZES, rule, PLANNED)


def gradients(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) for size in SIZES]


def test_steps_and_memory_are_those_of_the_plain_axis(rule: KernelRule) -> None:
    results = []
    for axis in make_axes(rule):
        parameters = [torch.ones(size) for size in SIZES]
        for step in range(5):
            for parameter, gradient in zip(parameters, gradients(step), strict=True):
                parameter.grad = gradient
            moving = [None if number == 4 and step == 2 else each for number, each in enumerate(parameters)]
            axis.step(moving, [0.5 if number == 3 else 1.0 for number in range(len(SIZES))])
        memory = [tensor for number in range(len(SIZES)) for tensor in axis.read(number)]
        results.append((parameters, memory))
    for found, expected in zip(*results, strict=True):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_memory_goes_from_one_axis_to_the_other(rule: KernelRule) -> None:
    compiled_axis, plain = make_axes(rule)
    parameters = [torch.ones(size) for size in SIZES]
    for parameter, gradient in zip(parameters, gradients(0), strict=True):
        parameter.grad = gradient
    plain.step(parameters, [1.0] * len(SIZES))
    for number in range(len(SIZES)):
        compiled_axis.write(number, plain.read(number))
        for one, other in zip(compiled_axis.read(number), plain.read(number), strict=True):
            assert torch.equal(one, other)


def test_the_optimizer_steps_any_layout_and_goes_on_from_its_state(rule: KernelRule) -> None:
    weights = rule_weights.dumps(rule)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
    model[0].weight = nn.Parameter(torch.randn(6, 4).t())  # not contiguous
    inputs, targets = torch.randn(16, 6), torch.randn(16, 2)
    double = copy.deepcopy(model).double()

    def train(which: nn.Module, optimizer: LearnedOptimizer, steps: int) -> None:
        dtype = next(which.parameters()).dtype
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.mse_loss(which(inputs.to(dtype)), targets.to(dtype)).backward()
            optimizer.step()

    optimizer = LearnedOptimizer(model.parameters(), weights, steps=PLANNED)
    train(model, optimizer, 4)
    train(
        double, LearnedOptimizer(double.parameters(), weights, steps=PLANNED), 4
    )  # in float64, which no kernel computes in
    for found, expected in zip(model.parameters(), double.parameters(), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)

    twin, buffer = copy.deepcopy(model), io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    train(model, optimizer, 3)
    again = LearnedOptimizer(twin.parameters(), weights, steps=PLANNED)
    again.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    train(twin, again, 3)
    assert all(map(torch.equal, model.parameters(), twin.parameters()))
