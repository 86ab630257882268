"""LSTM rules with other inputs and heads than the paper's, against torch's own LSTM and Adam."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradsmith.errors import UnknownRule
from gradsmith.rules import LSTMRule, Segments, build
from gradsmith.rules.configs import LSTMConfig
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import native_kernel
from gradsmith.rules.weights import dumps, loads

torch.set_num_threads(1)

EVERYTHING = "log_sign+raw+rnnprop+momenta+scales+tensor_scale+alignment+time"


def some_gradients(steps: int, coordinates: int) -> Tensor:
    return torch.randn(steps, coordinates, generator=torch.Generator().manual_seed(steps), dtype=torch.float64)


def make_rule(**settings: object) -> LSTMRule:
    rule = LSTMRule(LSTMConfig(**settings)).double()  # type: ignore[arg-type]
    rule.initialise(torch.Generator().manual_seed(1))
    return rule


def run(rule: LSTMRule, gradients: Tensor) -> Tensor:
    state, updates = rule.initial_state(gradients.shape[1], dtype=torch.float64), []
    for gradient in gradients:
        update, state = rule(gradient, state)
        updates.append(update.detach())
    return torch.stack(updates)


def test_rnnprop_is_that_of_its_paper_through_torchs_own_lstm() -> None:
    """Lv, Jiang and Li 2017: m and g over the root of v, decays 0.95; tanh of the output times 0.1."""
    rule, gradients = make_rule(input="rnnprop", head="tanh", hidden_size=6, layers=1), some_gradients(5, 4)
    m, v, inputs = torch.zeros(4).double(), torch.zeros(4).double(), []
    for t, g in enumerate(gradients, start=1):
        m, v = 0.95 * m + 0.05 * g, 0.95 * v + 0.05 * g * g
        root = (v / (1 - 0.95**t)).sqrt()
        inputs.append(torch.stack((g / root, m / (1 - 0.95**t) / root), dim=1))
    theirs = nn.LSTM(2, 6, dtype=torch.float64)
    with torch.no_grad():
        weight = rule.layers[0].get_parameter("weight")
        theirs.weight_ih_l0.copy_(weight[:, :2])
        theirs.weight_hh_l0.copy_(weight[:, 2:])
        theirs.bias_ih_l0.copy_(rule.layers[0].get_parameter("bias"))
        theirs.bias_hh_l0.zero_()
        hidden, _ = theirs(torch.stack(inputs))
        expected = 0.1 * (hidden @ rule.readout_weight + rule.readout_bias).tanh()
    torch.testing.assert_close(run(rule, gradients), expected, rtol=1e-9, atol=1e-12)


def test_with_directions_a_fresh_rule_is_adam() -> None:
    rule = make_rule(input="momenta+time", head="direction_magnitude", output_scale=0.03)
    theirs = torch.zeros(9, dtype=torch.float64, requires_grad=True)
    adam, gradients = torch.optim.Adam([theirs], lr=0.03, betas=(0.9, 0.99)), some_gradients(12, 9)
    for gradient in gradients:
        theirs.grad = gradient
        adam.step()
    torch.testing.assert_close(run(rule, gradients).sum(dim=0), theirs.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("input", ["raw", EVERYTHING])
def test_with_everything_it_steps_and_is_read_back_the_same(input: str) -> None:  # noqa: A002
    rule = make_rule(input=input, head="direction_magnitude", hidden_size=3)
    with torch.no_grad():
        rule.readout_weight.normal_(generator=torch.Generator().manual_seed(2))
    state = rule.initial_state(12, tensors=3, dtype=torch.float64)
    wide = len(state) - rule.of_tensors
    assert sum(tensor.shape[1] for tensor in state[:wide]) == rule.settings.costs().state
    back = loads(dumps(rule))
    gradient = some_gradients(1, 12)[0]
    updates = [each(gradient, state, Segments((4, 4, 4)))[0] for each in (rule, back)]
    assert torch.equal(*updates)
    assert updates[0].isfinite().all()
    assert back.config() == rule.config() == build(rule.config()).config()


def test_the_compiled_kernel_says_that_it_has_none_of_these() -> None:
    for settings in ({"input": "rnnprop"}, {"head": "tanh"}):
        refusal = native_kernel(build({"kind": "lstm", **settings}))
        assert isinstance(refusal, Refusal)
        assert "log_sign" in refusal.reason or "off" in refusal.reason


def test_a_head_along_directions_needs_one() -> None:
    with pytest.raises(UnknownRule, match="no direction to go along; add one of raw, rnnprop, momenta"):
        build({"kind": "lstm", "head": "direction_magnitude"})
