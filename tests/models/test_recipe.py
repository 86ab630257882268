"""What each setting of a recipe does to a run, against its closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from gradsmith.rules import build
from gradsmith.rules import weights as rule_weights
from models import captured, meta_train
from models.meta_optimizer import AdamState
from models.meta_train import MetaStep, Restarted
from models.spec import Split
from models.tasks.base import Family

STANDS_STILL = {"meta_steps": 40, "validation_interval": 4, "plateau_patience": 3, "rule": {"output_scale": 1e-9}}
"""A rule whose output is scaled to nothing: it starts anew after meta-step 12, and then no more."""


@pytest.fixture
def updates(monkeypatch):
    """Every step of Adam on the rule: (memory, weights before, gradient, weights after)."""
    seen = []
    original = AdamState.updated

    def recorded(self, weights, gradient, learning_rate):
        after, memory = original(self, weights, gradient, learning_rate)
        seen.append((self, weights, gradient, after))
        return after, memory

    monkeypatch.setattr(AdamState, "updated", recorded)
    return seen


@pytest.fixture
def poisoned(monkeypatch):
    """Makes the meta-gradient NaN at those meta-steps (from 1) for which a function says so."""

    def poison(at):
        original = captured.unroll_window
        step = 0

        def window_of(*arguments):
            nonlocal step
            step += 1
            window, position = original(*arguments)
            if at(step):
                window.gradient.fill_(torch.nan)
            return window, position

        monkeypatch.setattr(captured, "unroll_window", window_of)

    return poison


def steps_of(spec):
    return [event for event in meta_train.meta_train(spec) if isinstance(event, MetaStep)]


def falling(base, ratio, total):
    """The cosine of Loshchilov and Hutter (2017), from `base` at the first of `total` steps to `ratio * base`."""
    shares = (index / (total - 1) for index in range(total))
    return [base * ratio + base * (1 - ratio) * (1 + math.cos(math.pi * share)) / 2 for share in shares]


def test_every_trajectory_is_one_of_fresh_tasks(training_spec, monkeypatch):
    drawn = []
    original = Family.sample

    def recorded(self, split, **where):
        if split is Split.TRAIN:
            drawn.append((where["seed"], where["trajectory"], where["tasks"]))
        return original(self, split, **where)

    monkeypatch.setattr(Family, "sample", recorded)
    steps_of(training_spec(seed=3))
    assert drawn == [(3, trajectory, 8) for trajectory in range(6)]


def test_adam_gets_the_clipped_gradient(training_spec, updates):
    steps = steps_of(training_spec(gradient_clip=0.01))
    assert all(step.gradient_norm > 0.01 for step in steps)
    norms = [float(gradient.norm()) for _, _, gradient, _ in updates]
    assert norms == pytest.approx([0.01] * 24, rel=1e-5)


def test_the_meta_learning_rate_falls_along_the_whole_run(training_spec):
    rates = [step.learning_rate for step in steps_of(training_spec(final_learning_rate_ratio=0.1))]
    assert rates == pytest.approx(falling(0.01, 0.1, 24), rel=1e-12)


def test_a_restart_begins_the_schedule_and_adam_anew(training_spec, updates):
    rates = [step.learning_rate for step in steps_of(training_spec(**STANDS_STILL, final_learning_rate_ratio=0.1))]
    assert rates == pytest.approx(falling(0.01, 0.1, 40)[:12] + falling(0.01, 0.1, 28), rel=1e-12)
    assert [memory.count for memory, *_ in updates] == [*range(12), *range(28)]
    for begun in (0, 12):
        memory = updates[begun][0]
        assert not memory.first.any()
        assert not memory.second.any()
    assert updates[11][0].first.any()


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95])
def test_what_is_kept_is_the_moving_average_of_the_weights(training_spec, updates, decay):
    *_, result = meta_train.meta_train(training_spec(averaging=decay, validation_interval=24))
    average = updates[0][1].double()
    for count, (*_, weights) in enumerate(updates, start=1):
        share = min(decay, count / (count + 10))
        average = share * average + (1 - share) * weights.double()
    kept = parameters_to_vector(rule_weights.loads(result.weights).parameters()).detach()
    torch.testing.assert_close(kept.double(), average, rtol=1e-5, atol=1e-7)
    assert torch.equal(kept, updates[-1][-1]) == (decay == 0)


def test_the_forget_bias_is_added_to_the_forget_gates_and_to_nothing_else(training_spec, updates):
    specs = [training_spec(meta_steps=1, rule={"forget_bias": by}) for by in (0.0, 2.5)]
    for spec in specs:
        steps_of(spec)
    rule = build(specs[0].recipe.rule.config)
    without, with_bias = (weights for _, weights, _, _ in updates)
    vector_to_parameters(with_bias - without, rule.parameters())
    for name, added in rule.named_parameters():
        expected = torch.zeros_like(added)
        if name.startswith("layers.") and name.endswith("bias"):
            expected[20:40] = 2.5  # of the gates in torch's order: input, forget, cell, output
        torch.testing.assert_close(added.detach(), expected, rtol=0, atol=1e-6)
    assert float((with_bias - without).sum()) == pytest.approx(2 * 20 * 2.5, rel=1e-4)


def test_a_good_step_begins_the_count_of_skipped_ones_anew(training_spec, poisoned):
    poisoned(lambda step: step % 25)
    steps = steps_of(training_spec(meta_steps=50, validation_interval=50))
    assert [step.step for step in steps if not step.skipped] == [25, 50]


def test_a_restart_begins_the_count_of_skipped_steps_anew(training_spec, poisoned):
    poisoned(lambda step: step <= 36)  # 12 before the restart and 24 after it: never 25 in a row of one rule
    events = list(meta_train.meta_train(training_spec(**STANDS_STILL)))
    assert [event.step for event in events if isinstance(event, Restarted)] == [12]
    assert events[-1].summary["skipped_steps"] == 36
