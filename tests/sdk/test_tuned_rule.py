"""Hand-made optimizers as rules: torch.optim's own, step by step, and torch's own schedulers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradsmith import LearnedOptimizer
from gradsmith.rules import MLPRule, Rule, RuleSet, ScheduleRule, build
from gradsmith.rules.configs import MLPConfig
from gradsmith.rules.weights import dumps, loads

torch.set_num_threads(1)

OPTIMIZERS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "nag": lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9, nesterov=True),
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
}
SCHEDULES: dict[str, Any] = {
    "constant": lambda optimizer, steps: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0, steps),
    "linear": lambda optimizer, steps: torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps),
    "cosine": torch.optim.lr_scheduler.CosineAnnealingLR,
}
SHAPES = ((4, 3), (4,), (2, 4))
STEPS = 7


def some_model(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(7)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in SHAPES]


def stepped(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
    optimizer.step()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_equals_torchs_own_optimizer_step_by_step(name: str, schedule: str) -> None:
    rule = loads(dumps(build({"kind": "tuned", "optimizer": name, "learning_rate": 0.05, "schedule": schedule})))
    ours, theirs = some_model(), some_model()
    optimizer, reference = LearnedOptimizer(ours, rule, steps=STEPS), OPTIMIZERS[name](theirs, lr=0.05)
    scheduler = SCHEDULES[schedule](reference, STEPS)
    for seed in range(STEPS):
        stepped(optimizer, ours, seed)
        stepped(reference, theirs, seed)
        scheduler.step()
        for mine, its in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-10, atol=1e-12)


def test_beyond_the_planned_steps_it_stays_where_it_arrived() -> None:
    parameters = some_model()
    rule = build({"kind": "tuned", "schedule": "cosine", "learning_rate": 0.1})
    optimizer = LearnedOptimizer(parameters, rule, steps=3)
    for seed in range(3):
        stepped(optimizer, parameters, seed)
    there = [parameter.detach().clone() for parameter in parameters]
    stepped(optimizer, parameters, 3)
    assert all(torch.allclose(one, other, atol=1e-15) for one, other in zip(parameters, there, strict=True))


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "tuned", "schedule": "linear"},
        {"kind": "schedule", "over": "fraction"},
        {"kind": "mlp", "input": "momenta+fraction"},
        {"kind": "lstm", "input": "tensor_scale+fraction"},
        {"kind": "hyper", "clock": "time+fraction"},
    ],
)
def test_a_rule_that_knows_how_long_a_run_is_asks_for_it_and_says_so(config: dict[str, str]) -> None:
    rule = build(config)
    assert "knows how many steps a run has" in rule.settings.in_words()
    for given in (rule, RuleSet({"*": rule})):
        with pytest.raises(ValueError, match="Pass steps=N to LearnedOptimizer"):
            LearnedOptimizer(some_model(), given)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        LearnedOptimizer(some_model(), rule, steps=0)
    LearnedOptimizer(some_model(), build({"kind": "tuned"}))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_its_state_goes_on_bit_for_bit_and_remembers_the_plan(name: str) -> None:
    rule = build({"kind": "tuned", "optimizer": name, "schedule": "linear", "learning_rate": 0.1})
    ours = some_model(torch.float32)
    optimizer = LearnedOptimizer(ours, rule, steps=STEPS)
    for seed in range(3):
        stepped(optimizer, ours, seed)
    others = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    other = LearnedOptimizer(others, rule, steps=1000)
    other.load_state_dict(optimizer.state_dict())
    assert other.state[others[0]]["memory"][-1].tolist() == [[3.0, STEPS]]
    for seed in (3, 4):
        stepped(optimizer, ours, seed)
        stepped(other, others, seed)
    assert all(map(torch.equal, ours, others))


def run(rule: Rule, gradients: Tensor, steps: int | None = None) -> Tensor:
    state = rule.plan(rule.initial_state(gradients.shape[1], dtype=torch.float64), steps)
    updates = []
    for gradient in gradients:
        update, state = rule(gradient, state)
        updates.append(update)
    return torch.stack(updates)


def some_gradients(steps: int = 12, coordinates: int = 5) -> Tensor:
    return torch.randn(steps, coordinates, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("direction", ["adam", "nag"])
def test_a_fresh_schedule_is_the_optimizer_itself(direction: str) -> None:
    rule = build({"kind": "schedule", "direction": direction, "output_scale": 0.03}).double()
    rule.initialise(torch.Generator())
    theirs = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    reference = OPTIMIZERS[direction]([theirs], lr=0.03)
    for gradient in some_gradients():
        theirs.grad = gradient
        reference.step()
    torch.testing.assert_close(run(rule, some_gradients()).sum(dim=0).detach(), theirs.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("over", ["time", "fraction"])
def test_its_curves_are_straight_between_knots(over: str) -> None:
    """Plain Python, step by step: Adam whose momentum changes, so that m is divided by 1 less the product of all."""
    rule = build({"kind": "schedule", "over": over, "knots": 4, "output_scale": 0.1}).double()
    assert isinstance(rule, ScheduleRule)
    rates, momenta = [0.0, 1.0, -1.0, 0.5], [0.3, -0.4, 0.0, 1.0]
    with torch.no_grad():
        rule.log_rate.copy_(torch.tensor(rates))
        rule.momentum.copy_(torch.tensor(momenta))

    def between(knots: list[float], at: float) -> float:
        left = min(int(at * 3), 2)
        return knots[left] + (at * 3 - left) * (knots[left + 1] - knots[left])

    gradients, m, v, product = some_gradients(coordinates=1), 0.0, 0.0, 1.0
    for t, (update, g) in enumerate(zip(run(rule, gradients, steps=12)[:, 0], gradients[:, 0].tolist(), strict=True)):
        at = t / 12 if over == "fraction" else math.log(t + 1) / math.log(1e5)
        b = 1 / (1 + math.exp(-(math.log(9) + between(momenta, at))))
        m, v, product = b * m + (1 - b) * g, 0.999 * v + 0.001 * g * g, product * b
        root = math.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8
        assert update.item() == pytest.approx(-0.1 * math.exp(between(rates, at)) * m / (1 - product) / root, rel=1e-6)


def test_its_gradient_is_the_finite_difference() -> None:
    rule, gradients = build({"kind": "schedule", "knots": 3}).double(), some_gradients(6)
    names = [name for name, _ in rule.named_parameters()]

    def loss(*values: Tensor) -> Tensor:
        state, total = rule.initial_state(5, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for gradient in gradients:
            update, state = torch.func.functional_call(rule, dict(zip(names, values, strict=True)), (gradient, state))
            total = total + update @ gradient
        return total

    inputs = tuple(torch.randn(3, generator=torch.Generator().manual_seed(n)).double().requires_grad_() for n in (1, 2))
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-8)


@pytest.mark.parametrize("input", ["momenta+fraction", "momenta+tensor_scale+fraction"])
def test_a_network_sees_how_much_of_the_run_is_done(input: str) -> None:  # noqa: A002
    """A first layer that passes the two features of `fraction` on, and no others."""
    rule = MLPRule(MLPConfig(input=input, hidden_size=1, layers=1)).double()
    rule.initialise(torch.Generator().manual_seed(0))
    seen: list[Tensor] = []
    rule.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, -2:]))
    run(rule, some_gradients(6), steps=4)
    expected = [[2 * min(t / 4, 1) - 1, math.tanh(max(4 - t, 0) / 10 - 1)] for t in range(6)]
    torch.testing.assert_close(torch.stack(seen), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-7)
