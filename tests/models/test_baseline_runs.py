"""Runs of baselines that an evaluation found in a store are those that it would have computed, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gradsmith.rules import build
from gradsmith.rules import weights as rule_weights
from models.baselines import TUNED
from models.evaluation import baseline_runs
from models.evaluation.baseline_runs import Stored
from models.evaluation.evaluate import evaluate
from models.evaluation.sharing import helpers_for

FEW = {"baselines": ["adam", "sgd"], "untuned": ["dog"], "schedules": ["constant"]}
MEASURED_ANEW = ("seconds", "break_even", "cost", "stored", "time_to_target", "runtime")


class Shelf:
    """A store in memory. job: under whose name it keeps what it is given"""

    def __init__(self):
        self.job = "job_1"
        self.kept = {}
        self.asked = []

    def get(self, key):
        self.asked.append(key)
        return self.kept.get(key)

    def put(self, key, baseline, content):
        assert key not in self.kept, f"{baseline} was computed although it is stored"
        self.kept[key] = Stored(content, self.job)


@pytest.fixture(scope="module")
def rule():
    made = build({"kind": "lstm"})
    made.initialise(torch.Generator().manual_seed(0))
    return rule_weights.dumps(made)


def result_of(rule, spec, store, helpers=0):
    *progress, last = evaluate(rule, spec, store=store, helpers=helpers)
    assert progress[-1].step == progress[-1].total
    return last.result, [event.message for event in progress]


@pytest.mark.parametrize("family", ["quadratic", "digits-mlp"])
def test_what_is_stored_is_what_would_have_been_computed_bit_for_bit(rule, evaluation_spec, family):
    spec = evaluation_spec(family, horizon=6, test_tasks=3, tuning_tasks=2, **FEW)
    shelf = Shelf()
    alone, _ = result_of(rule, spec, None)
    computed, _ = result_of(rule, spec, shelf, helpers=helpers_for(2, torch.device("cpu")))
    stored, messages = result_of(rule, spec, shelf)
    for result in (computed, stored):
        for part in result.keys() - set(MEASURED_ANEW):
            assert result[part] == alone[part], part
        for part in ("targets", "steps", "problems"):
            assert result["time_to_target"][part] == alone["time_to_target"][part]
    assert alone["stored"] == computed["stored"] == {"tuning": {}, "test": {}, "targets": {}}
    everyone = dict.fromkeys(("adam", "sgd", "dog"), "job_1")
    assert stored["stored"]["tuning"] == {"adam": "job_1", "sgd": "job_1"}
    assert stored["stored"]["test"] == everyone
    assert list(stored["stored"]["targets"].values()) == ["job_1"]
    assert {"sgd, tuning: stored, by job job_1", "dog, test: stored, by job job_1"} <= set(messages)
    assert computed["cost"]["gradient_evaluations"] == alone["cost"]["gradient_evaluations"]
    learned_alone = {"tuning": 0, "test": 3 * 7}
    assert stored["cost"]["gradient_evaluations"] == learned_alone
    assert ("held_out" in stored) is (family == "digits-mlp")


def test_another_optimizer_of_the_family_finds_them_and_a_new_baseline_is_computed(rule, evaluation_spec):
    shelf = Shelf()
    result_of(rule, evaluation_spec(**FEW), shelf)
    other = build({"kind": "lstm"})
    other.initialise(torch.Generator().manual_seed(1))
    shelf.job = "job_2"
    more = FEW | {"baselines": ["adam", "nag"], "untuned": ["prodigy", "dog"]}
    result, _ = result_of(rule_weights.dumps(other), evaluation_spec(**more), shelf)
    assert result["stored"]["tuning"] == {"adam": "job_1"}
    assert result["stored"]["test"] == {"adam": "job_1", "dog": "job_1"}
    assert {kept.job for kept in shelf.kept.values()} == {"job_1", "job_2"}


CHANGES = (
    {"plan": {"horizon": 19}},
    {"plan": {"tuning_tasks": 7}},
    {"plan": {"schedules": ["linear"]}},
    {"plan": {"search": "halving"}},
    {"seed": 1},
    {"family": "quadratic-uniform"},
    {"version": 2},
    {"threads": 2},
)


def test_whatever_changes_a_run_changes_its_key(rule, evaluation_spec, monkeypatch):
    """The first run that is asked for is a sweep."""

    def first_key(family="quadratic", seed=0, plan=None, version=1, threads=1):
        monkeypatch.setitem(TUNED, "adam", replace(TUNED["adam"], version=version))
        torch.set_num_threads(threads)
        shelf = Shelf()
        events = evaluate(rule, evaluation_spec(family, seed=seed, **FEW | (plan or {})), store=shelf)
        while not shelf.asked:
            next(events)
        torch.set_num_threads(1)
        return shelf.asked[0]

    usual = first_key()
    assert usual == first_key(plan={"test_tasks": 12}), "a sweep has no test tasks"
    others = [first_key(**change) for change in CHANGES]
    assert [change for change, key in zip(CHANGES, others, strict=True) if key == usual] == []
    assert first_key("digits-mlp") != first_key("digits-mlp", plan={"on": "held_out"})
    monkeypatch.setattr(baseline_runs, "FORMAT", 0)
    assert first_key() != usual
