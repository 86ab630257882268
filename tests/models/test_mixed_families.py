"""Kinds `mixture` and `augmented`: what they are drawn from, trained on and measured on."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from models.evaluation.evaluate import evaluate
from models.families import FAMILIES, usual_recipe
from models.families.augmented import AugmentedSpec
from models.families.mixture import MixtureSpec
from models.families.mixture.spread import Range, combinations
from models.families.mlp import MLPSpec
from models.families.quadratic import QuadraticSpec
from models.measured import MeasuringResult
from models.meta_train import TrainingResult, meta_train
from models.rule_spec import RULE_SPECS
from models.spec import Component, EvaluationPlan, FamilySpec, MetaTrainSpec, Resources, Split, overridden, unfitting
from models.task_spec import TaskSpec
from models.tasks.catalogue import open_for_training
from models.tasks.conformance import CHECKS, Subject

SMALL: dict[str, Any] = {"kind": "mlp", "dataset": "wine", "batch_size": 8}
VARIED = MixtureSpec.model_validate(
    {
        "families": [
            {"family": "wines", "tasks": SMALL, "vary": {"width": {"low": 2, "high": 6}, "depth": [1, 2]}},
            {"family": "bowls", "tasks": {"kind": "quadratic", "dimension": 3}, "weight": 3, "scaling": 4, "convex": 2},
        ],
        "draws": 3,
    }
)
BOTH = (QuadraticSpec(dimension=3), MLPSpec(dataset="wine", hidden=(3,), batch_size=8))


def family_of(tasks: TaskSpec) -> FamilySpec:
    recipe = overridden(
        usual_recipe(tasks),
        {
            "rule": RULE_SPECS["hyper"].model_validate({"hidden_size": 4}).model_dump(),
            "meta_steps": 6, "horizon": 8, "unroll_steps": 4, "tasks": 2, "pool": 2, "validation_tasks": 4,
            "validation_interval": 3, "patience": None, "rollback": None, "starts": 1,
        },
    )  # fmt: skip
    plan = EvaluationPlan(horizon=4, test_tasks=6, tuning_tasks=2, bootstrap_samples=100, schedules=("constant",))
    return FamilySpec(
        name="mixed",
        title="",
        description="",
        tasks=tasks,
        recipe=recipe,
        evaluation=plan.model_copy(update={"baselines": ("adam",), "untuned": ()}),
    )


def training(family: FamilySpec, **recipe: Any) -> MetaTrainSpec:
    return MetaTrainSpec(
        family=family,
        seed=1,
        recipe=family.recipe.model_copy(update=recipe),
        evaluate=True,
        evaluation=family.evaluation,
        resources=Resources(backend="torch"),
    )


def test_what_varies_is_spread_evenly_whatever_the_order_of_the_fields() -> None:
    vary = {"width": Range(low=16, high=64), "scale": Range(low=0.0, high=8.0, log=False), "activation": ("a", "b")}
    found = combinations(vary, 8, 0)
    assert found == combinations(dict(reversed(vary.items())), 8, 0)
    assert found != combinations(vary, 8, 1)
    assert Counter(each["activation"] for each in found) == {"a": 4, "b": 4}
    assert sorted(int(each["scale"]) for each in found) == list(range(8))
    widths = sorted(each["width"] for each in found)
    assert all(isinstance(width, int) and 16 <= width <= 64 for width in widths)
    shares = [math.log(width / 15.5) / math.log(64.5 / 15.5) for width in widths]
    assert all(abs(share - (place + 0.5) / 8) < 0.12 for place, share in enumerate(shares))
    ends = {Range(low=1, high=3).at(share) for share in (0.0, 0.6, 0.999)}
    assert ends == {1, 2, 3}


def test_a_mixture_is_of_points_with_their_weights() -> None:
    names = Counter(point.name for point in VARIED.weighted_points)
    assert names == {"wines": 3, "bowls": 1}
    assert sum(point.weight for point in VARIED.weighted_points if point.name == "wines") == pytest.approx(1)
    augmented = VARIED.weighted_points[-1].tasks
    assert isinstance(augmented, AugmentedSpec)
    assert [part.name for part in augmented.parts()] == ["theta", "convex"]
    twice = MixtureSpec.model_validate({"families": [{"tasks": SMALL, "vary": {"depth": [1, 1]}}], "draws": 4})
    assert len(twice.weighted_points) == 1  # equal ones count once
    assert twice.weighted_points[0].weight == pytest.approx(1)
    assert MixtureSpec.model_validate_json(VARIED.model_dump_json()) == VARIED


@pytest.mark.parametrize("promise", ["size", "gradient", "hessian", "company", "splits", "seeds", "graphs"])
def test_a_mixture_keeps_what_families_promise(promise: str) -> None:
    CHECKS[promise](Subject(VARIED))


def test_tasks_are_drawn_by_weight() -> None:
    batches = open_for_training(VARIED).sample(Split.TRAIN, seed=0, trajectory=0, tasks=2000)
    assert sum(batch.tasks for batch in batches) == 2000
    bowls = sum(batch.tasks for batch in batches if batch.coordinates_per_task == 5)
    assert bowls / 2000 == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 2000))
    assert all(sum(part.size for part in batch.parts) == batch.coordinates_per_task for batch in batches)


def weights_of(spec: MetaTrainSpec) -> TrainingResult:
    *_, last = meta_train(spec, threads=1)
    assert isinstance(last, TrainingResult)
    return last


def test_training_on_a_mixture_is_training_on_its_families_bit_for_bit() -> None:
    """The same two families, as one family's recipe names the other."""
    members = [{"family": "mixed", "tasks": each.model_dump()} for each in BOTH]
    mixed = MixtureSpec.model_validate({"families": members})
    recipe = family_of(mixed).recipe
    first = family_of(BOTH[0]).model_copy(update={"recipe": recipe})
    beside = (Component(family="mixed", tasks=BOTH[1], weight=1.0),)
    ours, theirs = weights_of(training(family_of(mixed))), weights_of(training(first, mixture=beside))
    assert ours.validation_score == theirs.validation_score
    assert ours.weights == theirs.weights


def test_a_rule_that_looks_at_tensors_is_measured_on_tasks_of_every_shape() -> None:
    spec = training(family_of(VARIED))
    trained = weights_of(spec)
    follow_up = spec.follow_up("opt")
    assert follow_up is not None
    *_, last = evaluate(trained.weights, follow_up, threads=1)
    assert isinstance(last, MeasuringResult)
    assert last.result["comparisons"].keys() == {"best_baseline", "adam"}
    assert math.isfinite(last.result["comparisons"]["adam"]["final"]["ratio_of_means"])
    found = unfitting(EvaluationPlan(family_tier=True), VARIED, "mixed")
    assert found is not None
    assert found[0] == "family_tier"


def test_an_augmented_task_is_the_task_in_other_coordinates() -> None:
    spec = AugmentedSpec(tasks=QuadraticSpec(dimension=3), scaling=10.0, convex=4)
    where: dict[str, Any] = {"seed": 0, "trajectory": 0, "tasks": 300, "dtype": torch.float64}
    [tasks] = open_for_training(spec).sample(Split.TRAIN, **where)
    buffers = tasks.buffers()
    scale, point = buffers["scale"], buffers["point"]
    shares = scale.log() / math.log(10)
    assert float(shares.abs().max()) <= 1
    assert float(shares.square().mean()) == pytest.approx(1 / 3, abs=0.05)
    phi = tasks.initial().view(300, 7)
    W, y, start = (buffers[f"inner {name}"] for name in ("W", "y", "start"))
    torch.testing.assert_close(phi[:, :3] * scale, start)
    residual = torch.bmm(W, (phi[:, :3] * scale).unsqueeze(2)) - y
    truth = residual.square().sum((1, 2)) + (phi[:, 3:] - point).square().mean(1)
    torch.testing.assert_close(tasks.losses(tasks.initial(), 0), truth)


@pytest.mark.parametrize("promise", ["gradient", "hessian", "parted", "company", "graphs", "seeds"])
def test_augmented_tasks_keep_what_families_promise(promise: str) -> None:
    CHECKS[promise](Subject(AugmentedSpec(tasks=MLPSpec.model_validate(SMALL | {"hidden": [3]}), scaling=3, convex=2)))


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ({"vary": {"widht": [1]}}, "has no field 'widht'"),
        ({"vary": {"width": [0]}}, "do not fit: Input should be greater than or equal to 1"),
        ({"vary": {"depth": [9]}}, "do not fit: Tuple should have at most 8 items"),
        ({"vary": {"width": [2], "hidden": [[3]]}}, "either those or hidden"),
        ({"vary": {"width": {"low": 5, "high": 5}}}, "low 5 is to be less than high 5"),
        ({"vary": {"width": {"low": 0, "high": 5}}}, "low 0 is to be above 0"),
        ({"tasks": {"kind": "mixture", "families": [{"tasks": SMALL}]}}, "cannot be within another"),
        ({"tasks": {"kind": "augmented", "tasks": SMALL}, "scaling": 2}, "takes no vary, scaling or convex"),
        ({"tasks": {"kind": "augmented", "tasks": {"kind": "augmented", "tasks": SMALL}}}, "cannot be augmented"),
        ({"tasks": {"kind": "nothing"}}, "no kind of family 'nothing'"),
    ],
)
def test_what_cannot_be_mixed_is_refused(member: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MixtureSpec.model_validate({"families": [{"tasks": SMALL} | member]})


def test_too_many_points_are_refused() -> None:
    member = {"tasks": SMALL, "vary": {"width": {"low": 1, "high": 4000, "log": False}}}
    with pytest.raises(ValidationError, match="make 96 distributions, and at most 64 fit"):
        MixtureSpec.model_validate({"families": [member | {"scaling": scaling} for scaling in (1, 2, 3)], "draws": 32})


def test_every_family_here_can_be_augmented_or_says_why_not() -> None:
    for family in FAMILIES.values():
        assert AugmentedSpec(tasks=family.tasks, convex=1).coordinates_per_task == family.tasks.coordinates_per_task + 1
