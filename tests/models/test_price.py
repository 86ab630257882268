"""A price is counts times a pace: the counts are those that the code that trains and measures arrives at."""

from __future__ import annotations

import time

import pytest

from models.baselines import TUNED, UNTUNED
from models.calibration import calibrated
from models.evaluation.evaluate import evaluate
from models.evaluation.step_costs import ROUNDS
from models.families import FAMILIES
from models.families.autoencoder import AutoencoderSpec
from models.halving import tune_by_halving
from models.looks import looks
from models.meta_train import TrainingResult, Validated, meta_train
from models.price import (
    Calibration,
    FamilyCost,
    MeasuringPace,
    RunCost,
    TrainingPace,
    calibrated_measuring,
    calibrated_training,
    measuring_seconds,
    training_seconds,
    validations,
)
from models.rollout import Sample, run
from models.spec import EvaluationPlan, MetaTrainSpec, PreviewPlan, Resources, Split, overridden
from models.tasks.catalogue import open_for_tuning
from models.tasks.row_batch import RowBatch
from models.tuning import tune

RECIPE = {"meta_steps": 7, "tasks": 4, "validation_tasks": 4, "validation_interval": 3, "horizon": 20, "patience": None}
PLAN = EvaluationPlan(
    horizon=20, test_tasks=4, tuning_tasks=4, bootstrap_samples=100, baselines=("sgd",), untuned=("dog",),
    schedules=("constant",),
)  # fmt: skip


def spec(plan=PLAN, **recipe) -> MetaTrainSpec:
    family = FAMILIES["quadratic"]
    changed = overridden(family.recipe, RECIPE | recipe)
    return MetaTrainSpec(
        family=family, seed=1, recipe=changed, evaluate=True, evaluation=plan, resources=Resources(backend="torch")
    )


def ended(work):
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("changes", [{}, {"meta_steps": 6}, {"starts": 2, "start_steps": 2, "meta_steps": 8}])
def test_a_run_has_as_many_validations_as_are_counted(changes):
    wanted = spec(**changes)
    seen = sum(isinstance(event, Validated) for event in meta_train(wanted))
    counted = validations(wanted.recipe)
    assert counted - 1 <= seen <= counted, "the end of a start may fall on a validation that is due anyway"
    if not changes:
        assert seen == counted


def test_the_parts_of_a_price_add_up():
    paced = TrainingPace(meta_step=0.5, validation=2.0, besides=1.0, source="a clock")
    training = training_seconds(spec(), paced)
    assert (training.training, training.selection) == (1.0 + 7 * 0.5, 3 * 2.0)
    pace = MeasuringPace(learned=3.0, tuning={"sgd": 10.0}, test={"sgd": 4.0, "dog": 5.0}, besides=6.0, source="it")
    evaluation = spec().follow_up("opt_1")
    whole = measuring_seconds(evaluation, pace)
    assert (whole.tuning, whole.evaluation) == (10.0, 3.0 + 6.0 + 4.0 + 5.0)
    stored = measuring_seconds(evaluation, pace, {"sgd"})
    assert (stored.tuning, stored.evaluation) == (0.0, 3.0 + 6.0 + 5.0)
    assert stored.rests_on == ("evaluation: it (1 of 2 baselines are stored)",), "those without tuning count as well"
    assert measuring_seconds(evaluation, pace, {"sgd", "dog"}).rests_on[0].endswith("(2 of 2 baselines are stored)")
    both = training + whole
    assert both.total == pytest.approx(training.total + whole.total)
    assert both.rests_on == ("training: a clock", "evaluation: it")


def test_what_is_side_by_side_shares_a_steps_overhead():
    cost = RunCost(step=1.0, task=0.1, begins=0.01, chunk=10)
    assert cost.run(10, 4) == pytest.approx(10 * 0.01 + 5 * (1 * 1.0 + 10 * 0.1))
    assert cost.run(11, 4) == pytest.approx(11 * 0.01 + 5 * (2 * 1.0 + 11 * 0.1))


def test_held_out_losses_are_counted_as_often_as_they_are_measured(monkeypatch):
    looked = []
    measure = RowBatch.held_out
    monkeypatch.setattr(RowBatch, "held_out", lambda batch, theta: looked.append(batch.tasks) or measure(batch, theta))
    family = open_for_tuning(AutoencoderSpec(hidden=(2,), batch_size=4))
    sample = Sample(Split.VALIDATION, 1, 0, PLAN.tuning_tasks)
    cost = RunCost(step=0.0, task=0.0, begins=0.0, chunk=1000, look=1.0)
    families = (FamilyCost(weight=1.0, meta_step=0.0, learned=cost),)
    found = Calibration(families=families, baselines={"sgd": cost, "dog": cost}, begins=0.0, compares=0.0, meta_steps=6)
    for search, tuned in (("full", tune), ("halving", tune_by_halving)):
        plan = PLAN.model_copy(update={"on": "held_out", "search": search})
        ended(tuned(TUNED["sgd"], family, sample, plan.horizon, plan.schedules, on="held_out"))
        assert calibrated_measuring(plan, False, found).tuning["sgd"] == pytest.approx(sum(looked), rel=0.3)
        looked.clear()
    ended(run(UNTUNED["dog"], family, sample, plan.horizon, held_out=True, looks=looks(plan.horizon)))
    assert calibrated_measuring(plan, False, found).test["dog"] == sum(looked)
    training = spec()
    training = training.model_copy(update={"recipe": training.recipe.model_copy(update={"on": "held_out"})})
    assert calibrated_training(training, found).validation == len(looks(20)) * RECIPE["validation_tasks"]


def test_a_family_tier_costs_another_training():
    cost = RunCost(step=0.0, task=0.0, begins=1e-9, chunk=1)
    families = (FamilyCost(weight=1.0, meta_step=2.0, learned=cost),)
    found = Calibration(families=families, baselines={"sgd": cost, "dog": cost}, begins=0.0, compares=0.0, meta_steps=6)
    without, with_it = (
        calibrated_measuring(PLAN.model_copy(update={"family_tier": tier}), False, found, training=spec().recipe)
        for tier in (False, True)
    )
    assert with_it.besides - without.besides == pytest.approx(2.0 * RECIPE["meta_steps"])


def test_slow_steps_take_long_to_time():
    slow, quick = (RunCost(step=step, task=0.0, begins=1e-9, chunk=1) for step in (1.0, 0.0))
    found = [
        Calibration(
            families=(FamilyCost(weight=1.0, meta_step=0.0, learned=quick),),
            baselines={"sgd": quick, "dog": of_dog},
            begins=0.0,
            compares=0.0,
            meta_steps=6,
        )
        for of_dog in (quick, slow)
    ]
    before, after = (calibrated_measuring(PLAN, False, each).besides for each in found)
    assert after - before == pytest.approx(ROUNDS, rel=0.5), "one step of a task a round, and a few before"


def test_a_mixture_draws_each_family_by_its_weight():
    cost = RunCost(step=0.0, task=0.0, begins=0.0, chunk=1)
    families = tuple(FamilyCost(weight=w, meta_step=s, learned=cost) for w, s in ((1.0, 4.0), (3.0, 8.0)))
    found = Calibration(families=families, baselines={}, begins=0.0, compares=0.0, meta_steps=6)
    assert calibrated_training(spec(), found).meta_step == pytest.approx(0.25 * 4.0 + 0.75 * 8.0)


def test_a_calibration_times_all_that_a_training_and_its_evaluation_run():
    found = ended(calibrated(spec(), data_dir=None, threads=1))
    assert found.baselines.keys() == {"sgd", "dog"}
    assert len(found.families) == 1
    assert found.families[0].meta_step > 0
    assert Calibration.model_validate(found.model_dump()) == found, "it survives its record"
    pace = calibrated_measuring(PLAN, True, found)
    assert pace.tuning.keys() == {"sgd"}
    assert pace.test.keys() == {"sgd", "dog"}
    look = PreviewPlan(horizon=20, tuning_tasks=4, baselines=("sgd",), bootstrap_samples=100)
    assert calibrated_measuring(look, False, found).learned == 0.0
    longer = PLAN.model_copy(update={"horizon": 10 * PLAN.horizon})
    more = calibrated_measuring(longer, True, found)
    assert more.tuning["sgd"] > 3 * pace.tuning["sgd"], "some of it is the drawing of tasks, which the machine decides"
    steps_alone = dict.fromkeys(found.baselines, RunCost(step=1e-3, task=1e-4, begins=0.0, chunk=1000))
    known = found.model_copy(update={"baselines": steps_alone})
    short, long = (calibrated_measuring(plan, True, known).tuning["sgd"] for plan in (PLAN, longer))
    assert 9 * short < long < 11 * short
    two = calibrated_measuring(PLAN, True, found.model_copy(update={"processes": 2}))
    assert two.tuning == pytest.approx(pace.tuning), "one piece is not divided"
    assert sum(two.test.values()) == pytest.approx(max(*pace.test.values(), sum(pace.test.values()) / 2))
    forward = ended(calibrated(spec(), training=False))
    assert forward.families[0].meta_step == 0.0


def test_a_calibration_counts_what_opening_the_family_and_the_first_meta_step_wait_for():
    readings = 0

    def clock() -> float:
        """Readings 1 and 2 are around the opening, 3 and 4 around the first meta-step, which is 100 s late."""
        nonlocal readings
        readings += 1
        return time.perf_counter() + (100.0 if readings >= 4 else 0.0)

    late = ended(calibrated(spec(), clock=clock))
    assert late.begins == pytest.approx(100.0, abs=10.0)
    assert late.families[0].meta_step < 10.0, "only the first one waits"
    opened = ended(calibrated(spec(), opening=50.0))
    assert opened.begins == pytest.approx(50.0, abs=10.0)
    assert calibrated_training(spec(), opened).besides == opened.begins


def test_an_evaluation_records_the_seconds_of_its_parts():
    *_, trained = meta_train(spec())
    assert isinstance(trained, TrainingResult)
    *_, last = evaluate(trained.weights, spec().follow_up("opt_1"))
    cost = last.result["cost"]
    parts = cost["phases"]
    assert parts["tuning"].keys() == {"sgd"}
    assert parts["test"].keys() == {"sgd", "dog"}
    values = [parts["learned"], parts["besides"], *parts["tuning"].values(), *parts["test"].values()]
    assert all(value > 0 for value in values)
    assert sum(values) == pytest.approx(cost["seconds"])
