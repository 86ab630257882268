"""The evaluation's result, and the promise that what was trained is what users run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import gradsmith
from app.report.claims import validation_sentence
from gradsmith.rules import build
from gradsmith.rules import weights as rule_weights
from models import rollout
from models.backends import TorchBackend, backend_for
from models.baselines import DEFAULT_UNTUNED, TUNED, usual_tuned
from models.evaluation import record
from models.evaluation.break_even import Spent
from models.evaluation.by_validation import Made
from models.evaluation.evaluate import evaluate
from models.evaluation.runs import EvaluationRuns
from models.evaluation.step_costs import Seconds, StepCosts
from models.families.mlp import MLPSpec
from models.families.quadratic import QuadraticSpec
from models.measured import CRITERIA, MeasuringProgress, MeasuringResult
from models.meta_train import TrainingResult, meta_train
from models.rollout import Learned, Sample, curves, run
from models.spec import Split, overridden
from models.tasks import randomness
from models.tasks.base import Family
from models.tasks.catalogue import open_for_testing, open_for_training
from models.training.rule import load_weights
from models.training.trainer import Trainer
from models.tuning import Tuned
from models.tuning_budget import runs_of
from workshop.working import evaluation_result

USUAL = usual_tuned(QuadraticSpec())  # L-BFGS among them


@pytest.fixture(scope="module")
def rule():
    made = build({"kind": "lstm"})
    made.initialise(torch.Generator().manual_seed(0))
    return made


def shape(result):
    """The keys of a result, and those of what it has in one place only."""
    parts = (
        "criteria",
        "seconds",
        "time_to_target",
        "paired",
        "validation",
        "break_even",
        "cost",
        "verdict",
        "anatomy",
    )
    found = {part: set(result[part]) for part in (*parts, "anatomy")}
    for part in ("final", "area"):
        found[part] = set(result["comparisons"]["adam"][part]), set(result["seconds"]["comparisons"]["adam"][part])
    return found | {"": set(result), "adam": set(result["seconds"]["comparisons"]["adam"])}


def result_of(weights, spec, **made):
    *progress, last = evaluate(weights, spec, **made)
    assert all(isinstance(event, MeasuringProgress) for event in progress)
    assert isinstance(last, MeasuringResult)
    return last.result, progress


@pytest.fixture(scope="module")
def whole(rule, evaluation_spec):
    """An evaluation that leaves baselines and schedules at their defaults: its spec, result and progress."""
    spec = evaluation_spec()
    small = {"validation_tasks": 8, "objective": "area", "validation_horizons": [], "horizon": 100}
    made = Made(Spent(2.0, 1.0), overridden(spec.family.recipe, small), score=5.0)
    return spec, *result_of(rule_weights.dumps(rule), spec, made=made)


def test_the_result_is_complete_plain_json(whole):
    spec, result, progress = whole
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["format"] == 3
    assert shape(evaluation_result(horizon=20)) == shape(result), "what other tests store"
    assert result["criteria"]["final"] == "mean loss of the last 5 steps"
    assert set(result["optimizers"]) == {"learned", *USUAL, *DEFAULT_UNTUNED}
    assert set(result["comparisons"]) == {"best_baseline", *USUAL, *DEFAULT_UNTUNED}
    assert result["tiers"] == {"tuned": list(USUAL), "untuned": list(DEFAULT_UNTUNED)}
    for described in result["optimizers"].values():
        assert described["curve"]["step"] == list(range(21))
        for curve in (described["curve"], described.get("area_curve", described["curve"])):
            assert all(len(row) == 21 for row in curve.values())
        assert set(described["final"]) == {"mean", "median", "q10", "q90", "interval"}
    assert "held_out" not in result
    assert {tuned["runs"] for tuned in result["tuning"].values()} == {runs_of(spec.evaluation.schedules)}
    runs = sum(tuned["runs"] for tuned in result["tuning"].values())
    assert result["cost"]["gradient_evaluations"]["tuning"] == (runs + 1) * 8 * 21, "and the run that sets the targets"
    assert result["verdict"]["final"] in {"wins", "ties", "loses"}
    assert progress[-1].step == progress[-1].total


def test_the_best_tuned_baseline_is_scored_on_the_tasks_that_selected_the_optimizer(whole):
    """The mean loss of 100 steps, by torch's own rollout, on the 8 validation tasks of trajectory 0 and seed 0."""
    spec, result, _ = whole
    found = result["validation"]
    points = [
        (point["area"], name, point["learning_rate"], point["schedule"])
        for name, tuning in result["tuning"].items()
        for point in tuning["grid"]
        if point["area"] is not None
    ]
    chosen = (found["baseline"], found["learning_rate"], found["schedule"])
    assert chosen == min(points)[1:], "tuned by the recipe's objective, the area"
    tuned = Tuned(TUNED[chosen[0]], *chosen[1:], steps=100)
    family = open_for_training(spec.family.tasks)
    expected = curves(run(tuned, family, Sample(Split.VALIDATION, 0, 0, 8), 100)).area.double().mean()
    assert found["tuned"] == pytest.approx(float(expected), rel=1e-6)
    assert (found["learned"], found["better"]) == (5.0, "learned" if expected >= 5.0 else "tuned")
    assert found["criterion"] == "area of 8 tasks after 100 steps"


def test_where_a_baseline_on_matrices_or_curvature_is_best_it_is_the_optimizer_that_best_can_name(
    rule, evaluation_spec
):
    """On quadratics L-BFGS leaves every other one behind; what is registered has its loss on the validation tasks."""
    spec = evaluation_spec(baselines=["sgd", "lbfgs"], schedules=["constant"], untuned=[])
    recipe = overridden(spec.family.recipe, {"validation_tasks": 4, "objective": "final", "validation_horizons": [20]})
    *_, last = evaluate(rule_weights.dumps(rule), spec, made=Made(None, recipe, score=1e9))
    found, tuning = last.result["validation"], last.result["tuning"]["lbfgs"]
    assert (found["baseline"], found["better"]) == ("lbfgs", "tuned")
    assert found["learning_rate"] == tuning["learning_rate"]["final"]
    named = rule_weights.loads(last.found.weights)
    backend = backend_for(named, torch.float32, torch.device("cpu"), parts=spec.family.tasks.parts())
    family = open_for_training(spec.family.tasks)
    learned = Learned(backend, rests=True, horizon=20)
    score = curves(run(learned, family, Sample(Split.VALIDATION, 0, 0, 4), 20)).final.double().mean()
    assert float(score) == pytest.approx(found["tuned"], rel=1e-3)
    assert "a tuned baseline is better, so that `best` names that one" in validation_sentence(last.result)


def test_every_optimizer_starts_at_the_same_losses(whole):
    _, result, _ = whole
    starts = {described["curve"]["mean"][0] for described in result["optimizers"].values()}
    assert len(starts) == 1


def test_each_criterion_is_compared_with_the_run_that_was_tuned_for_it(rule, whole):
    spec, result, _ = whole
    family = open_for_testing(spec.family.tasks)
    sample = Sample(Split.TEST, spec.seed, 0, 16)
    learned = curves(run(Learned(backend_for(rule, torch.float32, torch.device("cpu"))), family, sample, 20))
    for name in USUAL:
        rates, schedules = (result["tuning"][name][field] for field in ("learning_rate", "schedule"))
        for criterion in ("final", "area"):
            usable = [point for point in result["tuning"][name]["grid"] if point[criterion] is not None]
            best = min(usable, key=lambda point: point[criterion])
            assert (rates[criterion], schedules[criterion]) == (best["learning_rate"], best["schedule"])
            contender = Tuned(TUNED[name], rates[criterion], schedules[criterion], 20)
            tuned = curves(run(contender, family, sample, 20))
            expected = getattr(learned, criterion).double().mean() / getattr(tuned, criterion).double().mean()
            assert result["comparisons"][name][criterion]["ratio_of_means"] == pytest.approx(float(expected))
    for criterion in ("final", "area"):
        best = result["comparisons"]["best_baseline"][criterion]
        means = {name: result["optimizers"][name][criterion]["mean"] for name in USUAL}
        assert best["baseline"] == min(means, key=means.get)


def test_every_task_has_a_pair_of_losses(whole):
    """From which means and the share of tasks won come out as they were told."""
    _, result, _ = whole
    for criterion in CRITERIA:
        pairs, best = result["paired"][criterion], result["comparisons"]["best_baseline"][criterion]
        learned, tuned = np.array(pairs["learned"]), np.array(pairs["best_baseline"])
        assert learned.shape == tuned.shape == (16,)
        assert pairs["baseline"] == best["baseline"]
        assert np.mean(learned < tuned) == best["share_won"]
        assert learned.mean() == pytest.approx(result["optimizers"]["learned"][criterion]["mean"], rel=1e-5)
        assert learned.mean() / tuned.mean() == pytest.approx(best["ratio_of_means"], rel=1e-5)


def test_each_criterion_has_the_curve_of_the_run_that_stands_for_it(whole):
    _, result, _ = whole
    two = 0
    for name, measured in result["optimizers"].items():
        tuned = result["tuning"].get(name, {"learning_rate": {}, "schedule": {}})
        final, area = ((tuned["learning_rate"].get(each), tuned["schedule"].get(each)) for each in CRITERIA)
        assert ("area_curve" in measured) is (final != area)
        two += "area_curve" in measured
        assert np.mean(measured["curve"]["mean"][-5:]) == pytest.approx(measured["final"]["mean"], rel=1e-5)
        area = measured.get("area_curve", measured["curve"])["mean"]
        assert np.mean(area[1:]) == pytest.approx(measured["area"]["mean"], rel=1e-5)
    assert two > 0, "some baseline needs another learning rate for each criterion"


def test_networks_report_loss_and_accuracy_on_test_images(rule, evaluation_spec):
    few = {"test_tasks": 3, "tuning_tasks": 2, "horizon": 10, "schedules": ["constant"]}
    spec = evaluation_spec("digits-mlp", baselines=["adam", "sgd"], untuned=["dog"], **few)
    result, _ = result_of(rule_weights.dumps(rule), spec)
    assert set(result["held_out"]) == {"learned", "adam", "sgd", "dog"}
    for found in result["held_out"].values():
        assert found["loss"] > 0
        assert 0 <= found["accuracy"] <= 1


def test_tuning_sees_validation_tasks_only_and_the_measurement_test_tasks_only(rule, evaluation_spec, monkeypatch):
    drawn = []
    original = randomness.task_seeds

    def recorded(split, *rest):
        drawn.append((evaluation_stage[0], split))
        return original(split, *rest)

    evaluation_stage = ["tuning"]

    def marking(tested):
        def marked(self, *arguments, **settings):
            evaluation_stage[0] = "testing"
            found = yield from tested(self, *arguments, **settings)
            evaluation_stage[0] = "tuning"
            return found

        return marked

    monkeypatch.setattr("models.tasks.base.task_seeds", recorded)
    for name in ("tested_learned", "tested"):
        monkeypatch.setattr(EvaluationRuns, name, marking(getattr(EvaluationRuns, name)))
    first = EvaluationRuns.first_test_task

    def looked_at(self):
        evaluation_stage[0] = "testing"
        task = first(self)
        evaluation_stage[0] = "tuning"
        return task

    monkeypatch.setattr(EvaluationRuns, "first_test_task", looked_at)
    result_of(rule_weights.dumps(rule), evaluation_spec(baselines=["adam"], schedules=["linear"]))
    assert set(drawn) == {("tuning", Split.VALIDATION), ("testing", Split.TEST)}


@pytest.mark.parametrize("seed", [0, 5])
def test_every_stage_draws_the_tasks_of_its_own_split_seed_and_trajectory(rule, evaluation_spec, monkeypatch, seed):
    drawn = []
    original = Family.sample

    def recorded(self, split, **where):
        once = (split, where["seed"], where["trajectory"], where["tasks"])
        drawn.extend([once] * where.get("repeats", 1))  # settings that run side by side
        return original(self, split, **where)

    monkeypatch.setattr(Family, "sample", recorded)
    result, _ = result_of(rule_weights.dumps(rule), evaluation_spec(seed=seed, baselines=["adam"], untuned=["dog"]))
    # Trajectory 0 of the validation split, with seed 0, selected the rule: tuning keeps off it whatever the seed.
    tuning, testing = (Split.VALIDATION, seed, 1, 8), (Split.TEST, seed, 0, 16)
    runs = result["tuning"]["adam"]["runs"]
    best = result["tuning"]["adam"]
    tested = len({(best["learning_rate"][criterion], best["schedule"][criterion]) for criterion in CRITERIA})
    # The targets and the timing of a step have tasks that nothing was selected, tuned or measured on.
    fresh, timed = ((Split.VALIDATION, seed, 2, count) for count in (8, 1))
    looked_at = (Split.TEST, seed, 0, 1)  # the first test task, once more
    assert drawn == [testing] + [tuning] * runs + [testing] * (tested + 1) + [fresh, timed, looked_at]


def test_in_equal_time_a_rule_that_knows_its_steps_plans_those_that_it_has_time_for(evaluation_spec, monkeypatch):
    """A learned step is made to cost as much as the gradient and the baseline's step together: half the steps fit."""
    made = build({"kind": "hyper", "clock": "time+fraction", "hidden_size": 4})
    made.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.readout.weight.normal_(generator=torch.Generator().manual_seed(1))
    one, timing = Seconds(1.0, 1.0, 1.0), Seconds(3.0, 3.0, 3.0)

    def timed(contenders, tasks):
        yield
        return StepCosts(one, {name: timing if name == "learned" else one for name in contenders}, tasks.coordinates)

    monkeypatch.setattr("models.evaluation.evaluate.step_costs", timed)
    spec = evaluation_spec(baselines=["adam"], schedules=["linear"], untuned=[])
    result, _ = result_of(rule_weights.dumps(made), spec)
    backend = backend_for(made, torch.float32, torch.device("cpu"), parts=spec.family.tasks.parts())
    family, sample = open_for_testing(spec.family.tasks), Sample(Split.TEST, spec.seed, 0, 16)
    planned, cut = (
        curves(run(Learned(backend, rests=True, horizon=horizon), family, sample, horizon)).cut(10)
        for horizon in (10, 20)
    )
    found = result["seconds"]["comparisons"]["adam"]
    assert found["learned_steps"] == {"median": 10, "low": 10, "high": 10}
    for criterion in ("final", "area"):
        mean = result["optimizers"]["adam"][criterion]["mean"]  # with all its steps, by which its rate falls to zero
        ours, others = (float(getattr(each, criterion).double().mean()) / mean for each in (planned, cut))
        assert found[criterion]["ratio_of_means"] == pytest.approx(ours, rel=1e-5)
        assert others != pytest.approx(ours, rel=1e-5), "it runs otherwise with another plan, or nothing is tested"


def test_the_bootstrap_draws_with_the_jobs_own_seed(rule, evaluation_spec, monkeypatch):
    drawn = []
    original = record.Bootstrap

    def recorded(*arguments):
        drawn.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(record, "Bootstrap", recorded)
    for seed in (1, 2, 1):
        result_of(rule_weights.dumps(rule), evaluation_spec(seed=seed, baselines=["sgd"]))
    assert [arguments[:2] for arguments in drawn] == [(16, 200)] * 3
    first, other, again = (arguments[2] for arguments in drawn)
    assert first == again != other


def test_one_seed_gives_one_result_and_another_seed_other_tasks(rule, evaluation_spec):
    def comparable(seed):
        result, _ = result_of(rule_weights.dumps(rule), evaluation_spec(seed=seed, baselines=["sgd"]))
        return {name: result[name] for name in ("optimizers", "comparisons", "tuning")}

    assert comparable(1) == comparable(1)
    assert comparable(1) != comparable(2)


def test_a_diverged_optimizer_is_a_result_and_not_a_crash(evaluation_spec):
    wild = build({"kind": "lstm", "output_scale": 100})
    wild.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        wild.readout_bias.fill_(1e34)
    result, _ = result_of(rule_weights.dumps(wild), evaluation_spec(baselines=["adam"]))
    assert result["optimizers"]["learned"]["diverged"] == 16
    assert result["optimizers"]["learned"]["final"]["mean"] is None
    assert result["comparisons"]["best_baseline"]["final"]["verdict"] == "loses"
    json.dumps(result, allow_nan=False)


def test_what_was_trained_is_what_is_saved_bit_for_bit(training_spec, monkeypatch):
    """The rule in the trainer's memory against the one that a user loads: whole curves."""
    spec = training_spec()
    family = open_for_testing(spec.family.tasks)

    def losses(rule):
        learned = Learned(backend_for(rule, torch.float32, torch.device("cpu")))
        return curves(run(learned, family, Sample(Split.TEST, 0, 0, 8), 30)).losses

    in_memory = []
    original = Trainer.result

    def kept(self, progress):
        result = original(self, progress)
        load_weights(self._rule, progress.best_weights)
        in_memory.append(losses(self._rule))
        return result

    monkeypatch.setattr(Trainer, "result", kept)
    *_, result = meta_train(spec)
    assert isinstance(result, TrainingResult)
    assert torch.equal(losses(rule_weights.loads(result.weights)), in_memory[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_users_run_twenty_steps_that_are_the_trainers_own(rule, dtype, tmp_path):
    """gradsmith.LearnedOptimizer on one parameter against the trainer's loop: equal bits at equal coordinate count."""
    [tasks] = open_for_training(QuadraticSpec(dimension=23)).sample(
        Split.TRAIN, seed=0, trajectory=0, tasks=3, dtype=dtype
    )
    for step, (theirs, ours, gradient) in enumerate(side_by_side(rule, tasks, dtype, tmp_path, steps=20)):
        assert bool((gradient != 0).all()), "a quadratic has no coordinate without a gradient"
        assert torch.equal(theirs, ours), f"step {step}"
    assert np.isfinite(ours.numpy()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_never_had_a_gradient_rests_for_users_and_in_evaluation(rule, dtype, tmp_path):
    """Some pixels are lit late, some never: their weights wait, and begin without a memory, to the last bit."""
    family = open_for_training(MLPSpec(hidden=(6,), batch_size=4))
    [tasks] = family.sample(Split.TRAIN, seed=0, trajectory=0, tasks=3, dtype=dtype)
    resting = torch.ones(tasks.coordinates, dtype=torch.bool)
    counts = []
    for step, (users, measured, gradient) in enumerate(
        side_by_side(rule, tasks, dtype, tmp_path, steps=15, rests=True)
    ):
        resting &= gradient == 0
        counts.append(int(resting.sum()))
        assert torch.equal(measured, users), f"step {step}"
        assert torch.equal(measured[resting], tasks.initial()[resting])
    assert counts[0] > counts[5] > counts[-1] > 0, "some woke late, some never"


@pytest.mark.parametrize("kind", ["hyper", "mlp", "tuned"])
def test_a_rule_that_rests_by_itself_is_left_to_it(kind):
    """Its run is the one in which what rests is put back after each step, and without that cost."""
    made = build({"kind": kind})
    made.initialise(torch.Generator().manual_seed(0))
    spec = MLPSpec(hidden=(6,), batch_size=4)
    [tasks] = open_for_training(spec).sample(Split.TRAIN, seed=0, trajectory=0, tasks=2, dtype=torch.float64)
    backend = TorchBackend(made.double(), parts=spec.parts())
    own, put_back = (Learned(backend, rests=rests).start(tasks) for rests in (True, False))
    put_back = rollout._RestingRun(put_back)
    assert not isinstance(own, rollout._RestingRun)
    thetas = tasks.initial(), tasks.initial()
    for step in range(8):
        for theta, stepper in zip(thetas, (own, put_back), strict=True):
            stepper.step(theta, tasks.losses_and_gradient(theta, step)[1])
        assert torch.equal(*thetas), f"step {step}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_never_had_a_gradient_rests_for_users_and_the_rest_are_the_trainers_own(rule, dtype, tmp_path):
    """Pixels that no image of the minibatch lights: the trainer moves their weights, on which no loss depends."""
    family = open_for_training(MLPSpec(hidden=(6,), batch_size=16))
    [tasks] = family.sample(Split.TRAIN, seed=0, trajectory=0, tasks=3, dtype=dtype)
    [(theirs, ours, gradient)] = side_by_side(rule, tasks, dtype, tmp_path, steps=1)
    unlit = gradient == 0
    assert 0 < int(unlit.sum()) < unlit.numel()
    assert torch.equal(theirs[~unlit], ours[~unlit])
    assert torch.equal(theirs[unlit], tasks.initial()[unlit])


def side_by_side(rule, tasks, dtype, folder, *, steps, rests=False):
    """Yield, for each step, theta in a user's loop and in the trainer's, and the gradient that the user's loop had."""
    path = folder / "rule.safetensors"
    path.write_bytes(rule_weights.dumps(rule.to(dtype)))
    theta = torch.nn.Parameter(tasks.initial())
    optimizer = gradsmith.LearnedOptimizer([theta], path)
    ours = tasks.initial()
    stepper = Learned(backend_for(rule, dtype, torch.device("cpu")), rests).start(tasks)
    for step in range(steps):
        _, gradient = tasks.losses_and_gradient(ours, step)
        stepper.step(ours, gradient)
        theta.grad = tasks.losses_and_gradient(theta.detach(), step)[1]
        optimizer.step()
        yield theta.detach(), ours, theta.grad
    rule.to(torch.float32)
