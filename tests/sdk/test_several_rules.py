"""LearnedOptimizer with several rules, and with one that is no LSTM."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

from gradsmith import LearnedOptimizer
from gradsmith.errors import StateMismatch, UnknownRule
from gradsmith.rules import Rule, Rules, RuleSet, Segments, State, build
from gradsmith.rules.weights import dumps, loads

torch.set_num_threads(1)


def make(config: dict[str, object]) -> Rule:
    rule = build(config)
    rule.initialise(torch.Generator().manual_seed(1))
    return rule


LSTM, MLP = make({"kind": "lstm", "hidden_size": 7}), make({"kind": "mlp", "input": "momenta"})
SET = RuleSet({"weight": LSTM, "bias": MLP})


def model() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> list[float]:
    inputs = torch.randn(32, 6, generator=torch.Generator().manual_seed(3))
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = network(inputs).square().sum(dim=1).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_each_rule_moves_what_it_would_move_alone() -> None:
    network = model()
    optimizer = LearnedOptimizer(network.parameters(), dumps(SET))
    twin = model()
    weights = [parameter for parameter in twin.parameters() if parameter.dim() > 1]
    biases = [parameter for parameter in twin.parameters() if parameter.dim() == 1]
    apart = [LearnedOptimizer(weights, LSTM), LearnedOptimizer(biases, MLP)]
    inputs = torch.randn(32, 6, generator=torch.Generator().manual_seed(3))
    for _ in range(4):
        for one, each in ((network, [optimizer]), (twin, apart)):
            one.zero_grad()
            one(inputs).square().sum(dim=1).mean().backward()
            for step in each:
                step.step()
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    widths = [[tensor.shape[1] for tensor in optimizer.state[p]["memory"]] for p in network.parameters()]
    assert widths == [[7, 7, 7, 7], [3, 1, 1]] * 2


def test_names_choose_where_they_are_known_and_the_repr_shows_it() -> None:
    network = model()
    rules = RuleSet({"*": MLP, "0.*": LSTM})
    optimizer = LearnedOptimizer(network.named_parameters(), rules)
    shown = repr(optimizer).split("\n'*': mlp(hidden_size=24, layers=2, output_scale=0.03)\n")[1]
    rest, own = shown.split("\n'0.*': lstm(hidden_size=7, layers=2, input=log_sign, p=10.0, output_scale=0.1)\n")
    assert rest.split("\n") == ["    2.weight (3, 5)", "    2.bias (3,)"]
    assert own.split("\n") == ["    0.weight (5, 6)", "    0.bias (5,)"]
    assert "sha256:" in repr(optimizer)
    nameless = LearnedOptimizer(network.parameters(), rules)
    assert repr(nameless).count("    without a name (") == 4, "a glob over names matches none of them"
    assert "'*'" not in repr(LearnedOptimizer(network.parameters(), LSTM))


def test_a_pattern_is_for_the_whole_name_and_not_for_its_beginning() -> None:
    rules = RuleSet({"layer1": LSTM, "layer1.w*t": make({"kind": "lstm", "hidden_size": 3}), "*": MLP})
    names = ["layer1", "layer1.weight", "layer1.weights", "layer10.weight"]
    optimizer = LearnedOptimizer([(name, nn.Parameter(torch.zeros(1))) for name in names], rules)
    rest, whole, glob = re.split(r"\n'.*': .*\n", repr(optimizer))[1:]
    assert rest.split("\n") == ["    layer1.weights (1,)", "    layer10.weight (1,)"]
    assert (whole, glob) == ("    layer1 (1,)", "    layer1.weight (1,)")


def test_a_parameter_without_a_rule_is_refused_before_anything_is_added() -> None:
    network = model()
    with pytest.raises(UnknownRule, match=r"no rule .* 0\.bias \(bias or vector\).*patterns are weight\."):
        LearnedOptimizer(network.named_parameters(), RuleSet({"weight": LSTM}))
    optimizer = LearnedOptimizer([network[0].weight], RuleSet({"weight": LSTM}))  # type: ignore[index, list-item]
    with pytest.raises(UnknownRule, match="a tensor without a name"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("again", [lambda rule: rule, copy.copy], ids=["the same", "a shallow copy"])
def test_rules_that_share_weights_are_refused_and_copies_are_not(again: Callable[[Rule], Rule]) -> None:
    with pytest.raises(UnknownRule, match=r"'bias' and 'weight' share weights \(.*copy\.deepcopy"):
        RuleSet({"weight": MLP, "*": LSTM, "bias": again(MLP)})
    read = loads(dumps(RuleSet({"weight": MLP, "bias": copy.deepcopy(MLP)})))
    assert isinstance(read, RuleSet)
    for _, rule in read.members():
        for ours, theirs in zip(rule.parameters(), MLP.parameters(), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("rule", [MLP, SET], ids=["mlp", "several"])
def test_a_saved_state_goes_on_bit_for_bit(rule: Rules) -> None:
    whole, halved = model(), model()
    expected = train(whole, LearnedOptimizer(whole.parameters(), rule), 8)
    optimizer = LearnedOptimizer(halved.parameters(), rule)
    found = train(halved, optimizer, 4)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again = LearnedOptimizer(halved.parameters(), rule)
    again.load_state_dict(torch.load(file))
    found += train(halved, again, 4)
    assert found == expected
    other = LearnedOptimizer(halved.parameters(), LSTM)
    with pytest.raises(StateMismatch, match="was saved with the rule"):
        other.load_state_dict(again.state_dict())


def test_a_fresh_mlp_is_adam_on_a_real_model() -> None:
    """Also for coordinates whose gradient is zero: Adam does not move them, and neither does the rule."""
    ours, theirs = model().double(), model().double()
    optimizer = LearnedOptimizer(ours.parameters(), make({"kind": "mlp", "input": "momenta"}))
    adam = torch.optim.Adam(theirs.parameters(), lr=0.03, betas=(0.9, 0.99), eps=1e-8)
    inputs = torch.randn(32, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    inputs[:, 2] = 0.0
    for _ in range(6):
        for network, each in ((ours, optimizer), (theirs, adam)):
            each.zero_grad()
            network(inputs).square().sum(dim=1).mean().backward()
            each.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


class Boundaries(Rule):
    """Moves each coordinate by the number of its tensor: what it is told of boundaries becomes visible."""

    kind = "boundaries"
    coordinatewise = False

    of_tensors = 1

    def initial_state(self, coordinates: int, *, tensors=1, dtype=torch.float32, device="cpu") -> State:  # type: ignore[no-untyped-def]
        return torch.zeros(coordinates, 1, dtype=dtype, device=device), torch.zeros(tensors, 2, device=device)

    def forward(self, gradient: torch.Tensor, state: State, segments: Segments | None = None):  # type: ignore[no-untyped-def]
        assert segments is not None
        assert not segments.tasks.any()
        assert state[1].shape[0] == segments.rows
        numbers = torch.arange(segments.rows).to(gradient.dtype)
        return segments.tensors.to(gradient.dtype), (state[0] + 1, state[1] + numbers[:, None])

    def config(self) -> dict[str, object]:
        return {"kind": self.kind}

    def initialise(self, generator: torch.Generator) -> None:
        """It has no weights."""


def test_a_rule_that_looks_across_coordinates_knows_where_tensors_end() -> None:
    parameters = [nn.Parameter(torch.zeros(size)) for size in (3, 1, 4)]
    optimizer = LearnedOptimizer(parameters, Boundaries())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert [parameter.tolist() for parameter in parameters] == [[0.0] * 3, [1.0], [2.0] * 4]
    parameters[1].grad = None  # what is remembered of a tensor follows it: now the last one is number 1
    optimizer.step()
    kept = [optimizer.state[parameter]["memory"][1].tolist() for parameter in parameters]
    assert kept == [[[0.0, 0.0]], [[1.0, 1.0]], [[3.0, 3.0]]]
