"""The family tier: a learned schedule and a learned starting point, with the budget of the optimizer's training."""

from __future__ import annotations

import html
import json
import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from app.report.claims import validation_sentence
from app.report.family import family_section, schedule_sentence, start_sentence
from app.report.page import evaluation_page
from gradsmith.cli import show
from gradsmith.rules import build
from gradsmith.rules import weights as rule_weights
from gradsmith.types import Report
from models.backends import TorchBackend
from models.baselines import TUNED
from models.evaluation.by_validation import Made
from models.evaluation.evaluate import evaluate
from models.evaluation.family_tier import Tie, not_taken
from models.evaluation.learned_schedule import LearnedSchedule, Trained
from models.evaluation.starting_point import TASKS, dumped, loaded, starting_point, validated_rounds
from models.evaluation.statistics import Bootstrap, compare
from models.families import FAMILIES
from models.measured import BestSchedule
from models.memory import memory_estimate_bytes
from models.meta_train import meta_train
from models.rollout import Learned, Sample, curves, run
from models.spec import EvaluateSpec, Split, overridden
from models.spec.family_tier import DIRECTIONS, WAYS, rules_of, training_of, trial_of
from models.tasks.catalogue import open_for_testing, open_for_training, open_for_tuning
from models.tuning import Tuned
from tests.models.test_baseline_runs import Shelf

CPU = torch.device("cpu")
RECIPE = {
    "meta_steps": 16, "horizon": 10, "unroll_steps": 5, "tasks": 4, "validation_tasks": 8, "validation_interval": 5,
    "pool": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def spec(evaluation_spec):
    """A fresh rule against NAG and Adam, over ten steps."""
    plan = {
        "horizon": 10,
        "baselines": ["nag", "adam"],
        "schedules": ["constant"],
        "untuned": [],
        "bootstrap_samples": 100,
    }
    made = evaluation_spec(**plan)
    recipe = overridden(made.family.recipe, RECIPE)
    family_tier = made.evaluation.model_copy(update={"family_tier": True})
    return made.model_copy(update={"rule": recipe.rule, "evaluation": family_tier, "training": recipe})


@pytest.fixture(scope="module")
def measured(spec):
    """The events of two evaluations that share a store with one that was killed in the last of its trainings."""
    torch.set_num_threads(1)
    rule = build({"kind": "hyper"})
    rule.initialise(torch.Generator().manual_seed(0))
    made, shelf, weights = Made(None, spec.training, 30.0), Shelf(), rule_weights.dumps(rule)
    killed = evaluate(weights, spec, made=made, store=shelf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.measured.PROGRESS_INTERVAL_SECONDS", 0.0)  # else a fast machine tells nothing of it
        while next(killed).message != "training the family's schedule":
            pass
    killed.close()
    shelf.job = "job_2"
    return [list(evaluate(weights, spec, made=made, store=shelf)) for _ in range(2)]


def test_the_schedule_and_the_start_are_a_tier_of_their_own(spec, measured):
    *progress, last = measured[0]
    result = last.result
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["tiers"]["family"] == ["schedule", "start"]
    assert "schedule" in result["time_to_target"]["steps"]
    assert "schedule" in result["seconds"]["step"]
    assert result["comparisons"]["best_baseline"]["final"]["baseline"] in ("nag", "adam"), "the verdict is as it was"
    assert progress[-1].step == progress[-1].total
    schedule = result["family_tier"]["schedule"]
    assert schedule["meta_steps"] == spec.training.meta_steps, "no more than the optimizer's own training had"
    assert len(schedule["tried"]) == len(WAYS) + 1
    assert schedule["criterion"] == spec.training.criterion


def test_the_schedule_is_measured_as_users_run_it(spec, measured):
    """On the test tasks, by the weights that go into the registry."""
    last = measured[0][-1]
    assert isinstance(last.found, BestSchedule)
    rule, family = rule_weights.loads(last.found.weights), open_for_testing(spec.family.tasks)
    contender = Learned(TorchBackend(rule, parts=spec.family.tasks.parts()), horizon=10)
    found = curves(run(contender, family, Sample(Split.TEST, spec.seed, 0, 16), 10))
    described = last.result["optimizers"]["schedule"]
    assert described["final"]["mean"] == pytest.approx(float(found.final.double().mean()), rel=1e-6)
    assert described["area"]["mean"] == pytest.approx(float(found.area.double().mean()), rel=1e-6)


def test_a_schedule_that_is_as_good_takes_the_optimizers_place(spec, measured):
    """A fresh rule is no match for a schedule that begins at tuned rates."""
    last = measured[0][-1]
    tier = last.result["family_tier"]["schedule"]
    assert (tier["as_good"], tier["best"], tier["why_not"]) == (True, True, None)
    assert tier["fresh_tasks"]["verdict"] == "loses"
    assert last.found.stands_for == spec.optimizer
    assert last.found.score <= last.result["validation"]["tuned"]
    assert "so `best` takes the schedule" in schedule_sentence(last.result)
    assert validation_sentence(last.result) is not None


def test_a_second_evaluation_computes_none_of_it_anew(measured):
    first, second = (each[-1] for each in measured)
    assert second.found.weights == first.found.weights
    tiers = [each.result["family_tier"] for each in (first, second)]
    stored = [[each["stored"] for each in tier["schedule"]["tried"]] for tier in tiers]
    assert stored[0] == ["job_1"] * len(WAYS) + [None], "what the killed one had finished"
    assert stored[1] == ["job_1"] * len(WAYS) + ["job_2"]
    assert (tiers[0]["start"]["stored"], tiers[1]["start"]["stored"]) == (None, "job_2")
    for name in ("schedule", "start"):
        assert second.result["optimizers"][name] == first.result["optimizers"][name]


def test_the_schedule_has_the_bits_of_a_training_that_nobody_killed(spec, measured):
    last = measured[0][-1]
    tuned = {name: last.result["tuning"][name]["grid"] for name in DIRECTIONS}
    rates = {name: min(grid, key=_both)["learning_rate"] for name, grid in tuned.items()}
    tried = last.result["family_tier"]["schedule"]["tried"]
    scores = [each["score"] for each in tried[: len(WAYS)]]
    best = rules_of(rates)[scores.index(min(scores))]
    *_, trained = meta_train(training_of(spec, best))
    assert trained.validation_score == tried[-1]["score"]
    assert trained.weights == last.found.weights


def _both(point):
    """The score of a tuning by the objective `both`."""
    return math.inf if point["final"] is None else math.sqrt(point["final"] * point["area"])


def test_reports_say_it(measured, capsys):
    result = measured[0][-1].result
    page = evaluation_page(result, job="job_1", optimizer="opt_1")
    assert family_section(result) in page
    assert html.escape(start_sentence(result)) in family_section(result)
    assert "Learned schedule" in page
    assert "NAG from the learned start" in page or "Adam from the learned start" in page
    assert schedule_sentence(result).endswith("against it.")
    show.verdict(Report.from_json(result))
    assert "against a learned schedule of 64 numbers" in capsys.readouterr().out


def test_without_a_recipe_there_is_no_budget(spec):
    with pytest.raises(ValidationError, match="family_tier has the budget"):
        EvaluateSpec.model_validate(dict(spec) | {"training": None})
    without = spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"family_tier": False})})
    assert memory_estimate_bytes(spec) >= memory_estimate_bytes(without)


def test_trainings_have_the_optimizers_objective_and_data():
    family = FAMILIES["digits-mlp"]
    recipe = overridden(family.recipe, {"on": "held_out", "objective": "final", "meta_steps": 100, "starts": 2,
                                        "start_steps": 20})  # fmt: skip
    made = EvaluateSpec(
        optimizer="opt_1", rule=recipe.rule, family=family, seed=3, training=recipe, resources={},
        evaluation=family.evaluation.model_copy(update={"family_tier": True}),
    )  # fmt: skip
    rule = next(each for each in rules_of({"nag": 0.3, "adam": 0.02}) if each.model_dump()["direction"] == "adam")
    assert (rule.kind, rule.output_scale) == ("schedule", 0.02)
    for training in (trial_of(made, rule), training_of(made, rule)):
        assert (training.recipe.on, training.recipe.objective) == ("held_out", "final")
        assert training.recipe.criterion == recipe.criterion
        assert training.recipe.tasks == recipe.tasks
    assert len(WAYS) * trial_of(made, rule).total + training_of(made, rule).total == 100


def _tie(ratio):
    """A comparison in which the optimizer has so many times the schedule's losses, give or take a tenth."""
    noise = torch.linspace(0.9, 1.1, 64).double().numpy()
    return Tie(64, compare(ratio * noise, noise[::-1].copy(), Bootstrap(64, 200, 0)))


@pytest.mark.parametrize(
    ("ratio", "changes", "tuned", "expected"),
    [
        (1.0, {}, None, None),
        (2.0, {}, 0.6, None),
        (0.5, {}, None, "worse"),
        (1.0, {}, 0.4, "tuned_is_better"),
        (1.0, {"recipe": None}, None, "other_criterion"),
        (1.0, {"score": None}, None, "other_criterion"),
        (1.0, {"rule": {"kind": "schedule"}}, None, "no_network"),
    ],
)
def test_best_takes_a_schedule_that_ties_and_never_what_is_worse_than_a_tuned_baseline(
    spec, ratio, changes, tuned, expected
):
    made = replace(Made(None, spec.training, 0.5), **{name: each for name, each in changes.items() if name != "rule"})
    if "rule" in changes:
        spec = EvaluateSpec.model_validate(spec.model_dump() | changes)
    rule = rules_of({"nag": 0.1, "adam": 0.1})[0]
    chosen = Trained(rule, 0.5, 1.0, b"weights", 10, 10, 1.0)
    learned = LearnedSchedule(chosen, training_of(spec, rule).recipe, ())
    assert not_taken(spec, learned, _tie(ratio), made, tuned) == expected


def test_the_first_starting_point_is_the_mean_of_where_runs_end():
    """The reference takes its gradients from autograd, task by task."""
    family = FAMILIES["quadratic"]
    recipe = overridden(family.recipe, RECIPE | {"meta_steps": 1, "horizon": 10})
    tuned = Tuned(TUNED["sgd"], 0.005, "constant", 10)
    families = open_for_training(family.tasks), open_for_tuning(family.tasks)
    work = starting_point(recipe, tuned, families, 0, torch.float64, CPU)
    while True:
        try:
            next(work)
        except StopIteration as end:
            found = end.value
            break
    [tasks] = families[0].sample(Split.TRAIN, seed=0, trajectory=0, tasks=TASKS, dtype=torch.float64)
    theta = tasks.initial()
    for step in range(10):
        [gradient] = torch.autograd.grad(tasks.losses(theta.requires_grad_(), step).sum(), theta)
        theta = theta.detach() - 0.005 * gradient
    torch.testing.assert_close(found.theta, theta.view(TASKS, -1).mean(dim=0), rtol=1e-9, atol=1e-12)
    assert found.rounds == found.all_rounds == 1
    assert loaded(dumped(found)).score == found.score
    assert validated_rounds(11) == [1, 2, 4, 8, 11]
