"""The LSTM rule against independent oracles: torch.nn.LSTM, closed forms, finite differences."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from torch import Tensor, nn

from gradsmith.errors import UnknownRule
from gradsmith.rules import KINDS, LSTMRule, build
from gradsmith.rules.configs import CONFIGS
from gradsmith.rules.inputs import LogSign

torch.set_num_threads(1)


def log_sign(gradient: Tensor, p: float) -> Tensor:
    return LogSign(p).read(gradient, ())[0]


def make_rule(seed: int = 0, dtype: torch.dtype = torch.float64, **settings: object) -> LSTMRule:
    rule = build({"kind": "lstm", **settings})
    rule.initialise(torch.Generator().manual_seed(seed))
    assert isinstance(rule, LSTMRule)
    return rule.to(dtype)


def torch_twin(rule: LSTMRule) -> tuple[nn.LSTM, Tensor, Tensor]:
    """torch's own LSTM with the same weights; its second bias is zero."""
    features = rule.layers[0].weight.shape[1] - rule.hidden_size
    lstm = nn.LSTM(features, rule.hidden_size, len(rule.layers)).to(rule.readout_weight.dtype)
    with torch.no_grad():
        for number, layer in enumerate(rule.layers):
            width = layer.weight.shape[1] - rule.hidden_size
            getattr(lstm, f"weight_ih_l{number}").copy_(layer.weight[:, :width])
            getattr(lstm, f"weight_hh_l{number}").copy_(layer.weight[:, width:])
            getattr(lstm, f"bias_ih_l{number}").copy_(layer.bias)
            getattr(lstm, f"bias_hh_l{number}").zero_()
    return lstm, rule.readout_weight, rule.readout_bias


def unroll(rule: LSTMRule, gradients: Tensor) -> Tensor:
    state = rule.initial_state(gradients.shape[1], dtype=gradients.dtype)
    updates = []
    for gradient in gradients:
        update, state = rule(gradient, state)
        updates.append(update)
    return torch.stack(updates)


def count(rule: LSTMRule) -> int:
    return sum(parameter.numel() for parameter in rule.parameters())


def test_it_has_the_papers_number_of_weights() -> None:
    assert count(make_rule()) == 5141
    assert count(make_rule(input="raw")) == 5061


@pytest.mark.parametrize(
    "settings", [{}, {"input": "raw", "output_scale": 1.0}, {"layers": 3, "hidden_size": 7}, {"layers": 1, "p": 3.0}]
)
def test_it_equals_torchs_own_lstm(settings: dict[str, object]) -> None:
    rule = make_rule(**settings)
    lstm, weight, bias = torch_twin(rule)
    generator = torch.Generator().manual_seed(1)
    gradients = torch.randn(12, 33, generator=generator, dtype=torch.float64) * torch.logspace(-8, 3, 33).double()
    features = torch.stack([rule.features.read(g, ())[0] for g in gradients])
    hidden, _ = lstm(features)
    expected = rule.output_scale * (hidden @ weight + bias)
    torch.testing.assert_close(unroll(rule, gradients), expected, rtol=1e-12, atol=1e-13)


def test_float32_stays_near_float64() -> None:
    generator = torch.Generator().manual_seed(1)
    gradients = torch.randn(20, 50, generator=generator, dtype=torch.float64)
    single, double = make_rule(dtype=torch.float32), make_rule()
    torch.testing.assert_close(unroll(single, gradients.float()).double(), unroll(double, gradients), rtol=0, atol=1e-6)


def test_log_sign_has_its_closed_form() -> None:
    p = 10.0
    threshold = math.exp(-p)
    gradient = torch.tensor([1.0, -math.e, 1e4, threshold, -threshold, threshold / 2, -threshold / 4, 0.0]).double()
    expected = torch.tensor(
        [[0, 1], [0.1, -1], [math.log(1e4) / p, 1], [-1, 1], [-1, -1], [-1, 0.5], [-1, -0.25], [-1, 0]]
    ).double()
    torch.testing.assert_close(log_sign(gradient, p), expected, rtol=0, atol=1e-7)  # float32 literals


def test_log_sign_is_odd_in_its_direction_and_even_in_its_size() -> None:
    gradient = torch.logspace(-12, 6, 200, dtype=torch.float64)
    size, direction = log_sign(gradient, 10.0).t()
    mirrored_size, mirrored_direction = log_sign(-gradient, 10.0).t()
    assert torch.equal(size, mirrored_size)
    assert torch.equal(direction, -mirrored_direction)
    assert (size.diff() >= 0).all()


def test_meta_gradient_equals_finite_differences() -> None:
    rule = make_rule(hidden_size=3)
    generator = torch.Generator().manual_seed(2)
    gradients = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    weights = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    names = [name for name, _ in rule.named_parameters()]

    def loss(*values: Tensor) -> Tensor:
        state = rule.initial_state(4, dtype=torch.float64)
        total = torch.zeros((), dtype=torch.float64)
        for gradient, weight in zip(gradients, weights, strict=True):
            update, state = torch.func.functional_call(rule, dict(zip(names, values, strict=True)), (gradient, state))
            total = total + (weight * update).sum()
        return total

    inputs = tuple(parameter.detach().clone().requires_grad_() for parameter in rule.parameters())
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-8)


def test_any_block_of_coordinates_may_run_alone() -> None:
    rule = make_rule()
    gradients = torch.randn(6, 40, dtype=torch.float64)
    state, block = rule.initial_state(40, dtype=torch.float64), rule.initial_state(40, dtype=torch.float64)
    block = tuple(tensor[8:24] for tensor in block)
    for gradient in gradients:
        update, state = rule(gradient, state)
        part, block = rule(gradient[8:24], block)
        torch.testing.assert_close(part, update[8:24], rtol=0, atol=1e-14)
    assert all(tensor.shape == (40, 20) for tensor in state)


def test_the_bits_do_not_depend_on_the_layout_of_the_state() -> None:
    rule = make_rule(dtype=torch.float32)
    gradient = torch.randn(37)
    _, state = rule(gradient, rule.initial_state(37))
    rows = tuple(tensor.contiguous() for tensor in state)
    assert rows[0].stride() != state[0].stride()
    update, after = rule(gradient, state)
    same, same_after = rule(gradient, rows)
    assert torch.equal(update, same)
    assert all(torch.equal(a, b) for a, b in zip(after, same_after, strict=True))


def test_nothing_is_changed_in_place() -> None:
    rule = make_rule()
    gradient = torch.randn(5, dtype=torch.float64)
    _, state = rule(gradient, rule.initial_state(5, dtype=torch.float64))
    before = [tensor.clone() for tensor in (gradient, *state)]
    rule(gradient, state)
    assert all(torch.equal(a, b) for a, b in zip(before, (gradient, *state), strict=True))


def test_a_seed_gives_one_rule_on_every_dtype_and_another_seed_another() -> None:
    first, again, double = make_rule(3, torch.float32), make_rule(3, torch.float32), build({"kind": "lstm"}).double()
    double.initialise(torch.Generator().manual_seed(3))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert torch.equal(value, double.state_dict()[name].float())
    assert not torch.equal(first.readout_weight, make_rule(4, torch.float32).readout_weight)
    largest = max(parameter.abs().max().item() for parameter in make_rule(3, forget_bias=0.0).parameters())
    assert 0.95 / math.sqrt(20) < largest <= 1 / math.sqrt(20)


def test_the_weights_that_a_seed_begins_with_never_change() -> None:
    """A digest of numbers that no processor rounds in its own way: drawn, scaled and shifted, no sums."""
    rule = make_rule(0, torch.float32)
    numbers = b"".join(parameter.detach().numpy().tobytes() for parameter in rule.parameters())
    assert hashlib.sha256(numbers).hexdigest() == "e04ef92f3c1380dfb240adc65e95585473402e5146efaa7a33bb935967c6bc19"


def test_every_kind_has_its_settings_and_its_rule() -> None:
    assert KINDS.keys() == CONFIGS.keys()
    for kind, config in CONFIGS.items():
        rule = build(config())
        assert (rule.kind, config.kind, rule.settings) == (kind, kind, config())
        state = rule.initial_state(12, tensors=3)
        wide = len(state) - rule.of_tensors
        assert {each.shape[0] for each in state[:wide]} == {12}
        assert {each.shape[0] for each in state[wide:]} <= {3}
        assert sum(tensor.numel() for tensor in state) == pytest.approx(12 * config().costs(3 / 12).state, abs=12)
        assert sum(tensor.shape[1] for tensor in state[:wide]) == config().costs().state


def test_before_it_is_initialised_a_rule_moves_nothing() -> None:
    rule = build({"kind": "lstm"})
    update, _ = rule(torch.randn(4), rule.initial_state(4))
    assert torch.equal(update, torch.zeros(4))


def test_config_builds_the_same_rule() -> None:
    named = ["kind", "hidden_size", "layers", "input", "head", "p", "output_scale", "averaging"]
    config = dict(zip(named, ("lstm", 5, 3, "raw", "tanh", 7.0, 1.0, 2), strict=True))
    assert build(config).config() == config
    assert build({"kind": "lstm"}).config()["hidden_size"] == 20
    assert build(config | {"forget_bias": 3.0}).config() == config, "what matters for fresh weights alone is not in it"


def test_forget_gates_begin_open_and_nothing_else_is_shifted() -> None:
    rule, closed = make_rule(forget_bias=2.5), make_rule(forget_bias=0.0)
    for (name, value), without in zip(rule.named_parameters(), closed.parameters(), strict=True):
        expected = torch.zeros_like(value)
        if name.startswith("layers.") and name.endswith("bias"):
            expected[20:40] = 2.5  # the gates are in torch's order: input, forget, cell, output
        torch.testing.assert_close(value - without, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"kind": "transformer"}, "'transformer'.*lstm"),
        ({}, "None"),
        ({"kind": ["lstm"]}, r"\['lstm'\]"),
        ({"kind": "lstm", "depth": 3}, "depth"),
        ({"kind": "lstm", "hidden_size": 0}, "hidden_size.*0"),
        ({"kind": "lstm", "hidden_size": 10**9}, "hidden_size.*1000000000"),
        ({"kind": "lstm", "hidden_size": 20.5}, "hidden_size.*20.5"),
        ({"kind": "lstm", "layers": True}, "layers.*True"),
        ({"kind": "lstm", "p": math.nan}, "p of.*nan"),
        ({"kind": "lstm", "output_scale": "1"}, "output_scale.*'1'"),
        ({"kind": "lstm", "input": "adam"}, "input of.*log_sign.*'adam'"),
    ],
)
def test_a_configuration_that_fits_no_rule_is_named(config: dict[str, object], named: str) -> None:
    with pytest.raises(UnknownRule, match=named):
        build(config)
