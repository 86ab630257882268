"""The mlp rule against independent oracles: torch's own Adam, its update written out with NumPy, finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gradsmith import LearnedOptimizer
from gradsmith.errors import UnknownRule
from gradsmith.rules import MLPRule, RuleSet, Segments, build, weights
from gradsmith.rules.configs import MLPConfig

# Literals, not the module's own: a file of weights does not record the decays, so a change breaks every file there is.
MOMENTA, FAST, SLOW, TENSORS, ALIGNMENT = (0.5, 0.9, 0.97), 0.9, 0.99, 0.95, 0.7
HORIZONS = (1, 3, 10, 30, 100, 300, 1000)

torch.set_num_threads(1)


def make_rule(seed: int = 0, **settings: Any) -> MLPRule:
    """A rule whose read-out does something, in float64."""
    rule = MLPRule(MLPConfig(**settings)).double()
    generator = torch.Generator().manual_seed(seed)
    rule.initialise(generator)
    with torch.no_grad():
        for parameter in rule.readout.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return rule


def some_gradients(steps: int, coordinates: int) -> Tensor:
    generator = torch.Generator().manual_seed(steps)
    size = torch.exp(3 * torch.randn(coordinates, generator=generator, dtype=torch.float64))
    return size * torch.randn(steps, coordinates, generator=generator, dtype=torch.float64)


def written_out(rule: MLPRule, gradients: np.ndarray) -> np.ndarray:
    """Its updates for ONE tensor, step by step in NumPy. With the momenta alone, coordinates do not see one another."""
    learned = {name: value.numpy() for name, value in rule.state_dict().items()}
    looks_around = rule.settings.input != "momenta"
    n = gradients.shape[1]
    means = {b: np.zeros(n) for b in MOMENTA}
    fast, slow, last, mean_square, aligned = np.zeros(n), np.zeros(n), np.zeros(n), 0.0, 0.0
    updates = np.zeros_like(gradients)
    for t, g in enumerate(gradients, start=1):
        cosine = g @ last / (np.linalg.norm(g) * np.linalg.norm(last) + 1e-30)
        aligned = ALIGNMENT * aligned + (1 - ALIGNMENT) * cosine
        mean_square = TENSORS * mean_square + (1 - TENSORS) * (g @ g) / n
        fast, slow = FAST * fast + (1 - FAST) * g * g, SLOW * slow + (1 - SLOW) * g * g
        means = {b: b * m + (1 - b) * g for b, m in means.items()}
        hat = {b: m / (1 - b**t) for b, m in means.items()}
        root, late, r = (
            np.sqrt(slow / (1 - SLOW**t)),
            np.sqrt(fast / (1 - FAST**t)),
            np.sqrt(mean_square / (1 - TENSORS**t)),
        )
        s = root + (1e-3 * r if looks_around else 1e-8)
        directions = [g / s, *(hat[b] / s for b in MOMENTA)]
        features = list(directions)
        if looks_around:
            sizes = [np.log(root) / 4 + 1, np.log(late / root), 0.3 * np.log(np.abs(hat[0.9] / s) + 1e-4)]
            features += [g / late, *np.clip(sizes, -4, 4)]
            over_r = [g / r, hat[0.9] / r, hat[0.97] / r]
            directions += over_r
            features += [*over_r, np.full(n, np.log(r) / 4 + 1), np.clip(0.3 * np.log(root / r), -4, 4)]
            features += [np.full(n, x) for x in (3 * aligned, *(np.tanh(t / horizon - 1) for horizon in HORIZONS))]
        signal = np.stack(features)
        for level in range(rule.settings.layers):
            signal = learned[f"layers.{level}.weight"] @ signal + learned[f"layers.{level}.bias"][:, None]
            signal = np.where(signal > 0, signal, np.exp(signal) - 1)
        *coefficients, magnitude = learned["readout.weight"] @ signal + learned["readout.bias"][:, None]
        along = sum(c * d for c, d in zip(coefficients, directions, strict=True))
        last = updates[t - 1] = rule.settings.output_scale * np.exp(magnitude) * along
    return updates


@pytest.mark.parametrize(
    "settings", [{"input": "momenta"}, {}, {"hidden_size": 5, "layers": 3, "output_scale": 1.0}], ids=repr
)
def test_its_updates_are_those_written_out_by_hand(settings: dict[str, Any]) -> None:
    """Two tensors, each computed alone."""
    rule, sizes = make_rule(**settings), (5, 3)
    gradients = some_gradients(7, 8)
    expected = np.concatenate(
        [written_out(rule, each.numpy()) for each in torch.split(gradients, sizes, dim=1)], axis=1
    )
    state = rule.initial_state(8, tensors=2, dtype=torch.float64)
    for gradient, update_then in zip(gradients, expected, strict=True):
        update, state = rule(gradient, state, Segments(sizes))
        np.testing.assert_allclose(update.detach().numpy(), update_then, rtol=1e-9)


def test_what_it_remembers_is_24_bytes_a_coordinate_and_a_row_for_each_tensor() -> None:
    shapes = [tuple(tensor.shape) for tensor in build({"kind": "mlp"}).initial_state(5, tensors=2)]
    assert shapes == [(5, 3), (5, 2), (5, 1), (2, 3)]
    shapes = [tuple(tensor.shape) for tensor in build({"kind": "mlp", "input": "momenta"}).initial_state(5)]
    assert shapes == [(5, 3), (5, 1), (5, 1)]


def test_the_order_in_which_inputs_are_named_does_not_matter() -> None:
    rules = [make_rule(input=text) for text in ("rnnprop+momenta+time", "time+momenta+rnnprop")]
    gradient = some_gradients(1, 4)[0]
    updates = [rule(gradient, rule.initial_state(4, dtype=torch.float64))[0] for rule in rules]
    assert torch.equal(*updates)


@pytest.mark.parametrize("text", ["", "momenta+", "momenta+momenta", "momentum", "scales+time", 3])
def test_inputs_without_a_name_or_a_direction_are_refused(text: Any) -> None:
    with pytest.raises(UnknownRule, match=r"must be some of log_sign, raw|no direction"):
        build({"kind": "mlp", "input": text})


def test_a_file_from_before_there_were_other_inputs_has_the_momenta() -> None:
    rule = make_rule(input="momenta").float()
    data = weights.dumps(rule)
    assert b'{\\"hidden_size\\":24,\\"kind\\":\\"mlp\\",\\"layers\\":2,\\"output_scale\\":0.03}' in data
    assert weights.metadata(data)["rule"] == weights.loads(data).config() == rule.config()
    several = RuleSet({"*": rule, "bias": make_rule().float()})
    assert weights.loads(weights.dumps(several)).config() == several.config()


@pytest.mark.parametrize("input", ["momenta+scales+tensor_scale+alignment+time", "rnnprop", "raw"])
def test_what_never_had_a_gradient_does_not_move(input: str) -> None:  # noqa: A002
    rule, gradient = make_rule(input=input), some_gradients(1, 6)[0]
    gradient[[1, 3, 4, 5]] = 0
    state = rule.initial_state(6, tensors=2, dtype=torch.float64)
    for _ in range(2):
        update, state = rule(gradient, state, Segments((3, 3)))
        assert (update != 0).tolist() == [True, False, True, False, False, False]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_fresh_rule_is_adam(seed: int) -> None:
    rule = build({"kind": "mlp", "input": "momenta"}).double()
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
    rule, gradients = make_rule(hidden_size=3, input="momenta+time"), some_gradients(4, 3)
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
@pytest.mark.parametrize("config", [{"kind": "mlp"}, {"kind": "mlp", "input": "momenta"}, {"kind": "hyper"}], ids=repr)
def test_its_steps_are_counted_in_every_dtype(config: dict[str, object], dtype: torch.dtype) -> None:
    """bfloat16 has no 257, float16 no 2049."""
    rule = build({**config, "hidden_size": 1, "layers": 1}).to(dtype)
    state, begun = rule.initial_state(1, dtype=dtype), 2040
    state[-1][:, 0] = begun
    for _ in range(20):
        update, state = rule(torch.ones(1, dtype=dtype), state)
        assert update.dtype == dtype
    assert state[-1][0, 0].item() == begun + 20
    assert {tensor.dtype for tensor in state[:-1]} == {dtype}


def test_an_optimizer_with_memory_in_bfloat16_counts_on_and_through_a_saved_state() -> None:
    theta = torch.nn.Parameter(torch.zeros(2))

    def optimizer() -> LearnedOptimizer:
        return LearnedOptimizer([theta], build({"kind": "mlp", "input": "momenta"}), state_dtype=torch.bfloat16)

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
