"""A preview tunes baselines on validation tasks, and its curves are what torch's own optimizer does there."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gradsmith.rules import build
from gradsmith.rules import weights as rule_weights
from models.errors import SplitHeldOut
from models.evaluation.evaluate import evaluate
from models.families import FAMILIES
from models.measured import MeasuringProgress, MeasuringResult
from models.memory import memory_estimate_bytes
from models.preview import preview
from models.spec import MetaTrainSpec, PreviewPlan, PreviewSpec, Resources, Split, overridden, with_tasks
from models.tasks.base import Family
from models.tasks.catalogue import open_for_training
from tests.models.test_baseline_runs import Shelf
from workshop.working import preview_result

FEW = {"horizon": 12, "tuning_tasks": 5, "bootstrap_samples": 100}


def preview_spec(family="quadratic", tasks=None, backend="auto", **plan):
    spec = FAMILIES[family]
    if tasks:
        spec = with_tasks(spec, overridden(spec.tasks, tasks))
    return PreviewSpec(family=spec, seed=3, evaluation=PreviewPlan(**FEW | plan), resources=Resources(backend=backend))


def result_of(spec):
    *progress, last = preview(spec)
    assert all(isinstance(event, MeasuringProgress) for event in progress)
    assert isinstance(last, MeasuringResult)
    assert progress[-1].step == progress[-1].total
    return last.result


def by_hand(make, spec, rate):
    """Mean losses (horizon + 1,) of torch's own optimizer, one task at a time, from the tasks' own matrices."""
    [tasks] = open_for_training(spec.family.tasks).sample(
        Split.VALIDATION, seed=3, trajectory=1, tasks=5, dtype=torch.float64
    )
    theta = torch.nn.Parameter(tasks.initial())
    optimizer = make([theta], rate)
    rows = []
    for step in range(spec.evaluation.horizon + 1):
        losses = tasks.losses(theta, step)
        rows.append(losses.detach().clone())
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("adam", lambda parameters, rate: torch.optim.Adam(parameters, lr=rate)),
        ("sgd", lambda parameters, rate: torch.optim.SGD(parameters, lr=rate)),
    ],
)
def test_the_curve_is_what_torchs_own_optimizer_does_at_the_best_rate(name, make):
    spec = preview_spec(tasks={"dimension": 3}, backend="reference", baselines=[name])
    result = result_of(spec)
    rates = result["tuning"][name]["learning_rate"]
    for criterion, curve in (("final", "curve"), ("area", "area_curve")):
        drawn = result["optimizers"][name].get(curve, result["optimizers"][name]["curve"])
        losses = by_hand(make, spec, rates[criterion])
        np.testing.assert_allclose(drawn["mean"], losses.mean(dim=1).numpy(), rtol=1e-9)
        np.testing.assert_allclose(drawn["median"], losses.median(dim=1).values.numpy(), rtol=1e-9)
    ends = {point["learning_rate"]: point["final"] for point in result["tuning"][name]["grid"]}
    for rate, end in ends.items():
        if end is not None:
            assert end == pytest.approx(float(by_hand(make, spec, rate)[-5:].mean()), rel=1e-6)
    known = {rate: end for rate, end in ends.items() if end is not None}
    assert min(known, key=known.get) == rates["final"]


def test_the_result_is_complete_plain_json():
    spec = preview_spec("rosenbrock")
    result = result_of(spec)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert (result["family"], result["seed"], result["horizon"], result["tuning_tasks"]) == ("rosenbrock", 3, 12, 5)
    assert set(result["optimizers"]) == set(result["tuning"]) == {"adam"}, "Adam alone where nothing is said"
    assert set(result["optimizers"]["adam"]["curve"]) == {"step", "mean", "median", "q10", "q90", "low", "high"}
    assert result["coordinates_per_task"] == spec.family.tasks.coordinates_per_task
    assert preview_result().keys() == result.keys(), "what other tests store"
    runs = result["tuning"]["adam"]["runs"] + len(set(result["tuning"]["adam"]["learning_rate"].values()))
    assert result["cost"]["gradient_evaluations"] == {"tuning": runs * 5 * 13}
    assert result["cost"]["seconds"] > 0
    training = MetaTrainSpec(
        family=spec.family,
        seed=0,
        recipe=spec.family.recipe,
        evaluate=False,
        evaluation=spec.family.evaluation,
        resources=Resources(),
    )
    assert result["training_memory_bytes"] == memory_estimate_bytes(training)


def test_no_test_task_is_ever_drawn_and_none_could_be(monkeypatch):
    opened, drawn = [], []
    original = Family.sample

    def recorded(self, split, **where):
        opened.append(self)
        drawn.append((split, where["trajectory"]))
        return original(self, split, **where)

    monkeypatch.setattr(Family, "sample", recorded)
    result_of(preview_spec(baselines=["adam", "sgd"]))
    assert set(drawn) == {(Split.VALIDATION, 1)}
    for family in opened:
        assert family.splits == {Split.VALIDATION}
    with pytest.raises(SplitHeldOut):
        original(opened[0], Split.TEST, seed=3, trajectory=1, tasks=1)


def test_what_an_evaluation_has_tuned_is_not_tuned_again(evaluation_spec):
    """The same tasks, horizon and schedules: the sweep is that of the evaluation, and the second preview has the curve
    too."""
    made = build({"kind": "lstm"})
    made.initialise(torch.Generator().manual_seed(0))
    shelf, one = Shelf(), {"horizon": 12, "tuning_tasks": 5, "baselines": ["adam"], "schedules": ["constant"]}
    for _ in evaluate(rule_weights.dumps(made), evaluation_spec(seed=3, **one, untuned=[]), store=shelf):
        pass
    shelf.job = "job_2"
    first, second = (list(preview(preview_spec(), store=shelf))[-1].result for _ in range(2))
    alone = result_of(preview_spec())
    for result in (first, second):
        assert {name: result[name] for name in ("optimizers", "tuning")} == {
            name: alone[name] for name in ("optimizers", "tuning")
        }
    assert first["stored"] == {"tuning": {"adam": "job_1"}}
    assert second["stored"] == {"tuning": {"adam": "job_2"}}
    assert second["cost"]["gradient_evaluations"]["tuning"] == 0


def test_one_seed_gives_one_result_and_another_seed_other_tasks():
    def comparable(seed):
        spec = preview_spec().model_copy(update={"seed": seed})
        return {name: result_of(spec)[name] for name in ("optimizers", "tuning")}

    assert comparable(1) == comparable(1)
    assert comparable(1) != comparable(2)


def test_what_a_preview_cannot_use_is_refused_with_the_next_step():
    for resources, words in (
        (Resources(processes=2), "runs in one process and this asks for 2; leave processes out"),
        (Resources(backend="native"), "has no rule for the backend native to compute; leave backend out"),
    ):
        with pytest.raises(ValueError, match=words):
            PreviewSpec(family=FAMILIES["quadratic"], seed=0, evaluation=PreviewPlan(), resources=resources)


def test_memory_is_predicted_without_a_rule_and_grows_with_what_a_preview_holds():
    small = memory_estimate_bytes(preview_spec())
    many = preview_spec(tuning_tasks=65_536, horizon=1000, baselines=["adam", "sgd"])
    assert memory_estimate_bytes(many) - small > 2 * 2 * 4 * 65_536 * 1001
    wide = preview_spec("digits-mlp", {"hidden": [256]}, tuning_tasks=1)
    assert memory_estimate_bytes(wide) > small
