"""What a file says of its optimizer, told without torch, and what LearnedOptimizer makes of it."""

from __future__ import annotations

import copy
import hashlib
import pickle
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradsmith
from gradsmith.errors import CorruptWeights, UnknownRule
from gradsmith.rules import assembled, build
from gradsmith.rules.configs import CONFIGS, RuleConfig
from gradsmith.rules.weight_shapes import weight_shapes
from gradsmith.rules.weights import dumps, loads
from gradsmith.rules.weights_file import checked, metadata, split, with_card


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Any rule that can be built, with small layers; sometimes several."""
    kind: type[RuleConfig] = draw(st.sampled_from(list(CONFIGS.values())))
    given: dict[str, Any] = {"kind": kind.kind}
    for name, default, bounds in kind.settings():
        if bounds.choices:
            given[name] = draw(st.sampled_from(bounds.choices))
        elif bounds.names:
            given[name] = "+".join(draw(st.lists(st.sampled_from(bounds.names), min_size=1, unique=True)))
        elif isinstance(default, int):
            given[name] = draw(st.integers(int(bounds.at_least or 0), min(7, int(bounds.at_most or 7))))
    return given


@given(configurations())
@settings(max_examples=60, deadline=None)
def test_shapes_are_told_as_the_rules_have_them(config: dict[str, Any]) -> None:
    try:
        with torch.device("meta"):
            rule = build(config)
    except UnknownRule:
        return  # what one setting's bounds cannot say, such as an input without a direction
    assert weight_shapes(config) == {name: tuple(value.shape) for name, value in rule.state_dict().items()}
    several = {"kind": "several", "rules": {"weight": config, "*": {"kind": "lstm", "hidden_size": 2}}}
    with torch.device("meta"):
        both = assembled(several)
    assert weight_shapes(several) == {name: tuple(value.shape) for name, value in both.state_dict().items()}


def rule_bytes(**extra: str) -> bytes:
    rule = build({"kind": "mlp", "hidden_size": 4, "layers": 1, "input": "momenta"})
    rule.initialise(torch.Generator().manual_seed(0))
    return dumps(rule, extra)


def test_a_card_goes_in_and_out_and_changes_no_weight() -> None:
    bare = rule_bytes(family="quadratic")
    card = {"family": "quadratic", "note": 'a "quoted" line\nand ü \u2028', "recipe": {"rule": {"kind": "mlp"}}}
    full = with_card(bare, card)
    assert split(full) == (bare, card | {"sha256": hashlib.sha256(bare).hexdigest()})
    assert with_card(split(full)[0], card) == full
    assert split(bare) == (bare, None)
    found = checked(full)
    assert (found.content, found.rule, found.extra) == (bare, metadata(bare)["rule"], {"family": "quadratic"})
    rule = loads(full)
    assert dumps(rule, {"family": "quadratic"}) == bare
    assert rule.origin is not None
    assert rule.origin.family == "quadratic"
    other = dumps(build({"kind": "mlp", "hidden_size": 4, "layers": 1, "input": "momenta"}), {})
    exchanged = with_card(other, {}).replace(hashlib.sha256(other).hexdigest().encode(), b"0" * 64)
    with pytest.raises(CorruptWeights, match="that of other weights"):
        loads(exchanged)


LOSES = {"family": "quadratic", "verdict": {"final": "loses", "area": "wins"}, "best_baseline": {"final": "nag"}}
CARD = {"reference": "quadratic@3", "family": "quadratic", "horizon": 5, "coordinates": 10, "objective": "area"}


def run(optimizer: torch.optim.Optimizer, model: nn.Module, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).square().mean().backward()
        optimizer.step()


def caught(card: dict[str, Any], made: int, width: int = 2, **given: Any) -> list[str]:
    """What it warns of in a run. made: the steps that are made"""
    model = nn.Linear(4, width)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        run(gradsmith.LearnedOptimizer(model.parameters(), with_card(rule_bytes(), card), **given), model, made)
    assert all(each.category is gradsmith.OutsideTrainingWarning for each in found)
    return [str(each.message) for each in found]


def test_within_its_range_it_is_silent() -> None:
    assert caught(CARD, 10) == []
    assert caught(CARD | {"evaluations": [LOSES]}, 10) == [], "it was selected by the area, which it wins"
    assert caught(CARD, 3, width=200, steps=10) == []
    assert caught({}, 50) == [], "who knows nothing says nothing"


def test_a_run_that_is_far_too_long_warns_once() -> None:
    [told] = caught(CARD, 25)
    assert "quadratic@3: it was trained for 5 steps, and this run has had 11" in told
    [told] = caught(CARD, 25, steps=1000)
    assert "is to have 1,000" in told


def test_a_model_that_is_far_too_large_warns_once() -> None:
    [told] = caught(CARD, 3, width=201)
    assert "trained on 10 parameters, and this model has 1,005" in told


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"objective": "final", "evaluations": [LOSES]}, "nag at the end of a run on quadratic did better"),
        ({"objective": "both", "evaluations": [LOSES]}, "nag at the end of a run"),
        ({"automatic": False}, "parameters that never move did better"),
    ],
)
def test_a_verdict_that_it_loses_warns_once(more: dict[str, Any], said: str) -> None:
    [told] = caught(CARD | more, 3)
    assert said in told


def test_an_own_evaluation_counts_before_others() -> None:
    elsewhere = LOSES | {"family": "digits-mlp"}
    won = LOSES | {"verdict": {"final": "wins"}}
    assert caught(CARD | {"objective": "final", "evaluations": [elsewhere, won]}, 1) == []


@pytest.mark.parametrize(
    "more",
    [
        {"evaluations": 5}, {"evaluations": {"verdict": "loses"}}, {"evaluations": [7, LOSES | {"verdict": "loses"}]},
        {"evaluations": [LOSES | {"overrides": [1, 2]}, LOSES | {"best_baseline": []}]}, {"overrides": [1, 2]},
        {"objective": ["area"]}, {"horizon": 10**400}, {"reference": {}},
    ],
)  # fmt: skip
def test_a_card_that_somebody_else_wrote_breaks_nothing(more: dict[str, Any]) -> None:
    assert loads(with_card(rule_bytes(), CARD | more)).origin is not None


@pytest.mark.parametrize("other", [False, None, "yes", 1])
def test_the_evaluation_that_decides_counts_before_what_is_newer(other: object) -> None:
    newer, older = LOSES | {"decides": other}, LOSES | {"decides": True, "verdict": {"final": "wins"}}
    assert caught(CARD | {"objective": "final", "evaluations": [newer, older]}, 1) == []
    assert len(caught(CARD | {"objective": "final", "evaluations": [newer, older | {"decides": other}]}, 1)) == 1


def test_it_can_be_silenced_and_copies_remember() -> None:
    model = nn.Linear(4, 2)
    optimizer = gradsmith.LearnedOptimizer(model.parameters(), with_card(rule_bytes(), CARD))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", gradsmith.OutsideTrainingWarning)
        run(optimizer, model, 11)
    assert found == []
    run(pickle.loads(pickle.dumps(optimizer)), model, 3)  # warnings are errors here
    run(copy.deepcopy(optimizer), model, 3)


def test_a_bare_file_knows_what_its_writer_put_there() -> None:
    rule = loads(rule_bytes(family="quadratic", horizon="100", coordinates="10", criterion="area of 8 tasks"))
    assert rule.origin == type(rule.origin)(
        "an optimizer of quadratic", "quadratic", horizon=100, coordinates=10, criterion="area of 8 tasks"
    )
