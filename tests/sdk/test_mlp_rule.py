"""The mlp rule against independent oracles: torch's own Adam, its update written out with NumPy, finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gradsmith import LearnedOptimizer
from gradsmith.rules import MLPRule, build

# Literals, not the module's own: a file of weights does not record the decays, so a change breaks every file there is.
DECAYS, DECAY_OF_SQUARES = (0.5, 0.9, 0.97), 0.99

torch.set_num_threads(1)


def make_rule(seed: int = 0, **settings: object) -> MLPRule:
    """A rule whose read-out does something, in float64."""
    rule = build({"kind": "mlp", **settings}).double()
    generator = torch.Generator().manual_seed(seed)
    rule.initialise(generator)
    assert isinstance(rule, MLPRule)
    with torch.no_grad():
        for parameter in rule.readout.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return rule


def some_gradients(steps: int, coordinates: int) -> Tensor:
    generator = torch.Generator().manual_seed(steps)
    size = torch.exp(3 * torch.randn(coordinates, generator=generator, dtype=torch.float64))
    return size * torch.randn(steps, coordinates, generator=generator, dtype=torch.float64)


def written_out(rule: MLPRule, gradients: np.ndarray) -> np.ndarray:
    """Its updates, coordinate by coordinate and in plain NumPy."""
    weights = {name: value.numpy() for name, value in rule.state_dict().items()}
    updates = np.zeros_like(gradients)
    for place in range(gradients.shape[1]):
        averages, square = [0.0] * len(DECAYS), 0.0
        for t, g in enumerate(gradients[:, place], start=1):
            square = DECAY_OF_SQUARES * square + (1 - DECAY_OF_SQUARES) * g * g
            averages = [b * m + (1 - b) * g for b, m in zip(DECAYS, averages, strict=True)]
            size = np.sqrt(square / (1 - DECAY_OF_SQUARES**t)) + 1e-8
            directions = np.array([g, *(m / (1 - b**t) for b, m in zip(DECAYS, averages, strict=True))]) / size
            signal = directions
            for level in range(rule.settings.layers):
                signal = weights[f"layers.{level}.weight"] @ signal + weights[f"layers.{level}.bias"]
                signal = np.where(signal > 0, signal, np.exp(signal) - 1)
            *coefficients, magnitude = weights["readout.weight"] @ signal + weights["readout.bias"]
            updates[t - 1, place] = rule.settings.output_scale * np.exp(magnitude) * (coefficients @ directions)
    return updates


@pytest.mark.parametrize("settings", [{}, {"hidden_size": 5, "layers": 3, "output_scale": 1.0}])
def test_its_updates_are_those_written_out_by_hand(settings: dict[str, object]) -> None:
    rule, gradients = make_rule(**settings), some_gradients(7, 5)
    state = rule.initial_state(5, dtype=torch.float64)
    for gradient, expected in zip(gradients, written_out(rule, gradients.numpy()), strict=True):
        update, state = rule(gradient, state)
        np.testing.assert_allclose(update.detach().numpy(), expected, rtol=1e-11)
    assert [tuple(tensor.shape) for tensor in state] == [(5, 3), (5, 1), (5, 1)]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_fresh_rule_is_adam(seed: int) -> None:
    rule = build({"kind": "mlp"}).double()
    rule.initialise(torch.Generator().manual_seed(seed))
    theirs = torch.zeros(9, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([theirs], lr=0.03, betas=(0.9, 0.99), eps=1e-8)
    ours, state = torch.zeros(9, dtype=torch.float64), rule.initial_state(9, dtype=torch.float64)
    for gradient in some_gradients(12, 9):
        theirs.grad = gradient
        adam.step()
        update, state = rule(gradient, state)
        ours = ours + update.detach()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-10, atol=1e-12)


def test_before_it_is_initialised_it_moves_nothing() -> None:
    rule = build({"kind": "mlp"})
    update, _ = rule(torch.randn(4), rule.initial_state(4))
    assert torch.equal(update, torch.zeros(4))


def test_seeds_give_different_hidden_layers_whatever_the_dtype() -> None:
    made = [build({"kind": "mlp"}), build({"kind": "mlp"}), build({"kind": "mlp"}).double()]
    for rule, seed in zip(made, (0, 1, 0), strict=True):
        rule.initialise(torch.Generator().manual_seed(seed))
    first, other, double = (rule.state_dict()["layers.0.weight"] for rule in made)
    assert not torch.equal(first, other)
    assert torch.equal(first, double.float())


def test_its_gradient_is_the_finite_difference() -> None:
    rule, gradients = make_rule(hidden_size=3), some_gradients(4, 3)
    names = [name for name, _ in rule.named_parameters()]
    weigh = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def loss(*values: Tensor) -> Tensor:
        state, total = rule.initial_state(3, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for gradient, weight in zip(gradients, weigh, strict=True):
            update, state = torch.func.functional_call(rule, dict(zip(names, values, strict=True)), (gradient, state))
            total = total + update @ weight
        return total

    inputs = tuple(parameter.detach().clone().requires_grad_() for parameter in rule.parameters())
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_its_steps_are_counted_in_every_dtype(dtype: torch.dtype) -> None:
    """bfloat16 has no 257, float16 no 2049."""
    rule = build({"kind": "mlp", "hidden_size": 1, "layers": 1}).to(dtype)
    state, begun = rule.initial_state(1, dtype=dtype), 2040
    state = (*state[:-1], state[-1] + begun)
    for _ in range(20):
        update, state = rule(torch.ones(1, dtype=dtype), state)
        assert update.dtype == dtype
    assert state[-1].item() == begun + 20
    assert {tensor.dtype for tensor in state[:-1]} == {dtype}


def test_an_optimizer_with_memory_in_bfloat16_counts_on_and_through_a_saved_state() -> None:
    theta = torch.nn.Parameter(torch.zeros(2))

    def optimizer() -> LearnedOptimizer:
        return LearnedOptimizer([theta], build({"kind": "mlp"}), state_dtype=torch.bfloat16)

    one = optimizer()
    theta.grad = torch.ones(2)
    for _ in range(300):
        one.step()
    other = optimizer()
    other.load_state_dict(one.state_dict())
    assert other.state[theta]["memory"][-1].tolist() == [[300.0], [300.0]]
    other.step()
    assert [tensor.dtype for tensor in other.state[theta]["memory"]] == [torch.bfloat16] * 2 + [torch.float32]
    assert other.state[theta]["memory"][-1].tolist() == [[301.0], [301.0]]
