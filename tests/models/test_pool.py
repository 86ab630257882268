"""Trajectories at different phases, horizons that are drawn, and what a validation changes about a run."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from gradsmith.rules import weights as rule_weights
from models import groups
from models.backends import backend_for
from models.meta_optimizer import AdamState
from models.meta_train import (
    MetaStep,
    RolledBack,
    StartEnded,
    StoppedEarly,
    TrainingResult,
    TrajectoryEnd,
    Validated,
    meta_train,
)
from models.rollout import Learned, Sample, curves, run
from models.spec import Split
from models.tasks.catalogue import open_for_training
from models.training import trainer
from models.training.pool import Pool, drawn_by_weight, horizon_of
from models.training.selection import geometric_mean, stuck
from models.training.validation import VALIDATION_SEED
from tests.compiler import no_kernel


def of_kind(events, kind):
    return [event for event in events if isinstance(event, kind)]


def told(spec, resume=None):
    """What a run says, and its checkpoints by meta-step, each taken when it is offered."""
    events, checkpoints = [], {}
    for event in meta_train(spec, resume=resume):
        events.append(event)
        if isinstance(event, TrajectoryEnd):
            checkpoints[event.step] = event.checkpoint()
    return events, checkpoints


def goes_on_bit_for_bit(spec, places=slice(None)):
    """Checks that runs resumed at these places say what the whole one does from there on; returns its events."""
    whole, checkpoints = told(spec)
    kinds = (MetaStep, Validated, RolledBack, StartEnded, StoppedEarly)
    assert checkpoints
    for step, content in list(checkpoints.items())[places]:
        resumed, later = told(spec, content)
        expected = [event for event in whole if isinstance(event, kinds) and event.step > step]
        assert [event for event in resumed if isinstance(event, kinds)] == expected
        assert resumed[-1].weights == whole[-1].weights
        assert later.keys() == {place for place in checkpoints if place > step}
        old, new = (events[-1].summary | {"cost": None} for events in (whole, resumed))
        assert old == new
        spent = [events[-1].summary["cost"]["training"]["gradient_evaluations"] for events in (whole, resumed)]
        assert spent[0] == spent[1]
    return whole


@pytest.fixture
def moves(monkeypatch):
    """(trajectory, inner steps done) of each meta-step."""
    seen = []
    original = Pool.unrolled

    def recorded(self, live):
        window, moved = original(self, live)
        seen.append((moved.number, moved.step))
        return window, moved

    monkeypatch.setattr(Pool, "unrolled", recorded)
    return seen


def test_a_pool_has_trajectories_at_different_phases(training_spec, moves):
    told(training_spec(meta_steps=60, pool=4, validation_interval=60))
    steps = {}
    for number, step in moves:
        steps.setdefault(number, []).append(step)
    assert list(steps) == list(range(len(steps)))  # begun in order, each with tasks of its own
    assert all(found == list(range(5, 21, 5))[: len(found)] for found in steps.values())  # no window is left out
    under_way, most, phases = {}, 0, set()
    for number, step in moves:
        under_way[number] = step
        most = max(most, len(under_way))
        phases.add(tuple(sorted(set(under_way.values()))))
        if step == 20:
            del under_way[number]
    assert most == 4
    assert any(len(phase) >= 3 for phase in phases)


def test_a_pool_of_one_is_a_trajectory_after_the_other(training_spec, moves):
    told(training_spec(meta_steps=10))
    assert moves == [(number, step) for number in range(3) for step in (5, 10, 15, 20)][:10]


@pytest.mark.parametrize("family", ["quadratic", "digits-mlp"])
def test_a_pool_resumes_bit_for_bit_at_the_end_of_each_trajectory(training_spec, family):
    recipe = {"meta_steps": 20, "tasks": 2, "validation_tasks": 2, "validation_interval": 10}
    places = slice(None) if family == "quadratic" else slice(3, 4)
    whole = goes_on_bit_for_bit(training_spec(family, **recipe, pool=4, shortest_horizon=5), places)
    assert whole[-1].summary["trajectories"] > 6


RULES = [
    {"kind": "hyper"},
    {"kind": "mlp"},
    {"kind": "lstm", "input": "momenta+tensor_scale+alignment", "head": "direction_magnitude"},
    {"kind": "schedule"},
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["kind"])
def test_the_memory_of_every_kind_of_rule_resumes_bit_for_bit(training_spec, rule):
    spec = training_spec(
        "digits-mlp", rule=rule, pool=3, meta_gradient="exact", meta_steps=9, horizon=6, unroll_steps=2, tasks=2,
        validation_tasks=4, validation_interval=9,
    )  # fmt: skip
    goes_on_bit_for_bit(spec, slice(1))


SAMPLED = [
    {"rule": {"kind": "mlp"}, "meta_gradient": "exact"},
    {"rule": {"kind": "mlp", "input": "momenta"}, "meta_gradient": "detached"},
    {"rule": {"kind": "lstm"}, "meta_gradient": "detached"},
]


@pytest.mark.parametrize("recipe", SAMPLED, ids=["mlp exact", "mlp detached", "lstm"])
def test_a_run_that_samples_coordinates_resumes_bit_for_bit_and_differs_from_one_that_does_not(training_spec, recipe):
    small = {"pool": 2, "meta_steps": 8, "horizon": 6, "unroll_steps": 2, "tasks": 2, "validation_tasks": 2}
    spec = training_spec("digits-mlp", **small, **recipe, sampled_coordinates=50)
    whole = goes_on_bit_for_bit(spec, slice(1))
    everything = told(training_spec("digits-mlp", **small, **recipe))[0]
    first, other = of_kind(whole, MetaStep)[0], of_kind(everything, MetaStep)[0]
    assert first.loss == pytest.approx(other.loss, rel=1e-5)  # all coordinates move, maybe by another backend
    assert first.gradient_norm != pytest.approx(other.gradient_norm, rel=1e-4)


def test_a_pool_of_groups_resumes_bit_for_bit(training_spec, monkeypatch):
    monkeypatch.setattr(groups, "group_tasks", lambda *_: 1)
    goes_on_bit_for_bit(training_spec(meta_steps=16, tasks=3, validation_tasks=2, pool=3, shortest_horizon=10))


def test_a_pool_begins_anew_where_another_backend_goes_on(training_spec):
    spec = training_spec(meta_steps=16, tasks=2, validation_tasks=2, pool=3)
    _, checkpoints = told(spec)
    other = spec.model_copy(update={"resources": spec.resources.model_copy(update={"backend": "torch"})})
    resumed, _ = told(other, next(iter(checkpoints.values())))
    if resumed[-1].summary["runtime"]["backend"] == told(spec)[0][-1].summary["runtime"]["backend"]:
        no_kernel("both runs went through torch")
    assert all(math.isfinite(step.loss) and not step.skipped for step in of_kind(resumed, MetaStep))


def test_horizons_are_log_uniform_whole_windows(training_spec):
    recipe = training_spec(horizon=1000, unroll_steps=10, shortest_horizon=10).recipe
    drawn = [horizon_of(recipe, 3, number) for number in range(4000)]
    assert {horizon % 10 for horizon in drawn} == {0}
    assert (min(drawn), max(drawn)) == (10, 1000)
    # One window is drawn up to 15 steps: log(1.5) of log(100). Half of the draws lie below the geometric mean.
    assert sum(horizon == 10 for horizon in drawn) / 4000 == pytest.approx(math.log(1.5) / math.log(100), abs=0.015)
    assert sum(horizon <= 100 for horizon in drawn) / 4000 == pytest.approx(0.5, abs=0.03)
    always = training_spec(horizon=1000, unroll_steps=10).recipe
    assert {horizon_of(always, 3, number) for number in range(50)} == {1000}


def test_trajectories_end_at_their_own_horizon(training_spec, moves):
    spec = training_spec(meta_steps=60, shortest_horizon=5, validation_interval=60)
    told(spec)
    ends = dict(moves)
    whole = list(ends)[:-1]
    assert [ends[number] for number in whole] == [horizon_of(spec.recipe, spec.seed, number) for number in whole]
    assert len(set(ends.values())) > 2


def test_weights_say_how_often_a_place_is_drawn():
    drawn = [drawn_by_weight([2.0, 1.0, 1.0], (number + 0.5) / 400) for number in range(400)]
    assert [drawn.count(place) for place in range(3)] == [200, 100, 100]


def test_a_trajectory_whose_loss_explodes_is_replaced_and_its_gradient_still_counts(training_spec, monkeypatch, moves):
    original = Pool.diverged

    def exploded(self, live, loss):
        return original(self, live, 1e6 if len(moves) == 2 else loss)

    monkeypatch.setattr(Pool, "diverged", exploded)
    events, _ = told(training_spec(meta_steps=8))
    assert moves[:4] == [(0, 5), (0, 10), (1, 5), (1, 10)]
    assert not any(step.skipped for step in of_kind(events, MetaStep))
    assert events[-1].summary["replaced_trajectories"] == 1


def ruined(monkeypatch, first, last):
    """Meta-learning rates that ruin the rule from one meta-step to another."""
    monkeypatch.setattr(trainer, "cosine", lambda _b, _r, step, _t: 3.0 if first <= step <= last else 0.01)


def test_a_rollback_goes_back_to_the_best_weights_with_a_lower_rate(training_spec, monkeypatch):
    ruined(monkeypatch, 10, 12)
    seen = []
    original = AdamState.updated

    def recorded(self, weights, gradient, learning_rate):
        seen.append((self, weights))
        return original(self, weights, gradient, learning_rate)

    monkeypatch.setattr(AdamState, "updated", recorded)
    events, _ = told(training_spec(meta_steps=24, validation_interval=4, rollback=0.1, averaging=0.5))
    rolled = of_kind(events, RolledBack)
    assert rolled[0].step == 12
    scores = {event.step: event.score for event in of_kind(events, Validated)}
    assert rolled[0].best_score == scores[rolled[0].best_step] == min(scores[4], scores[8])
    assert rolled[0].score == scores[12] > 1.1 * rolled[0].best_score
    memory, weights = seen[12]  # at the meta-step after it
    assert memory.count == 0
    assert not memory.first.any()
    assert not memory.second.any()
    rates = [event.learning_rate for event in of_kind(events, MetaStep)]
    assert rates[11:14] == [3.0, 0.7 * 0.01, 0.7 * 0.01]
    assert events[-1].summary["rollbacks"] == [event.step for event in rolled]
    averaged = seen[rolled[0].best_step - 1]
    assert not torch.equal(weights, averaged[1])  # what was validated is the average


def test_a_run_that_rolls_back_resumes_bit_for_bit(training_spec, monkeypatch):
    ruined(monkeypatch, 8, 11)
    recipe = {"meta_steps": 16, "tasks": 2, "validation_tasks": 4, "validation_interval": 4, "averaging": 0.5}
    events = goes_on_bit_for_bit(training_spec(**recipe, pool=2, rollback=0.05))
    assert of_kind(events, RolledBack)


def test_of_several_starts_the_best_goes_on_where_it_was(training_spec):
    spec = training_spec(meta_steps=30, starts=3, start_steps=6, validation_interval=100, averaging=0.0)
    events = goes_on_bit_for_bit(spec)
    ends = of_kind(events, StartEnded)
    assert [(end.step, end.start, end.starts) for end in ends] == [(6, 1, 3), (12, 2, 3), (18, 3, 3)]
    scores = [end.score for end in ends]
    assert scores == [event.score for event in of_kind(events, Validated)][:3]
    best = 1 + scores.index(min(scores))
    assert [end.chosen for end in ends] == [None, None, best]
    # The schedule of one initialisation lasts 18 meta-steps: each start has its first 6, the best its last 12.
    rates = [step.learning_rate for step in of_kind(events, MetaStep)]
    alone = [step.learning_rate for step in of_kind(told(training_spec(meta_steps=18))[0], MetaStep)]
    assert rates == pytest.approx(3 * alone[:6] + alone[6:], rel=1e-12)
    summary = events[-1].summary
    assert (summary["meta_steps"], summary["chosen_start"], summary["starts"]) == (30, best, scores)


def test_the_start_that_goes_on_has_its_weights_and_its_moments(training_spec, monkeypatch):
    seen = []
    original = AdamState.updated

    def recorded(self, weights, gradient, learning_rate):
        after = original(self, weights, gradient, learning_rate)
        seen.append((self, weights, *after))
        return after

    monkeypatch.setattr(AdamState, "updated", recorded)
    events, _ = told(training_spec(meta_steps=30, starts=3, start_steps=6, validation_interval=100))
    best = of_kind(events, StartEnded)[-1].chosen
    _, _, weights, adam = seen[6 * best - 1]
    memory, going_on, *_ = seen[18]
    assert torch.equal(going_on, weights)
    assert (memory.count, bool((memory.first == adam.first).all())) == (6, True)
    beginnings = [seen[place][1] for place in (0, 6, 12)]
    assert not any(torch.equal(one, other) for one, other in pairwise(beginnings))


@pytest.mark.parametrize("patience", [2, None])
def test_patience_ends_the_run(training_spec, monkeypatch, patience):
    ruined(monkeypatch, 9, 1000)
    events = told(training_spec(meta_steps=32, validation_interval=4, patience=patience))[0]
    bests = [event.step for event in of_kind(events, Validated) if event.best]
    last = of_kind(events, MetaStep)[-1].step
    assert last == (bests[-1] + 8 if patience else 32)
    stops = [(event.step, event.validations) for event in of_kind(events, StoppedEarly)]
    assert stops == ([(last, 2)] if patience else [])
    result = of_kind(events, TrainingResult)[0]
    assert result.summary["stopped_early"] is (patience is not None)
    assert result.summary["meta_steps"] == last


@pytest.mark.parametrize("objective", ["area", "final", "both"])
def test_a_score_is_that_of_the_objective_at_the_horizons(training_spec, objective):
    spec = training_spec(meta_steps=8, objective=objective, validation_horizons=[30, 10])
    events, _ = told(spec)
    rule = rule_weights.loads(events[-1].weights)
    optimizer = Learned(backend_for(rule, torch.float32, torch.device("cpu")))
    sample = Sample(Split.VALIDATION, VALIDATION_SEED, 0, spec.recipe.validation_tasks)
    expected = 1.0
    for horizon in (10, 30):
        losses = curves(run(optimizer, open_for_training(spec.family.tasks), sample, horizon)).losses.double()
        assert losses.shape[0] == horizon + 1
        area, final = float(losses[1:].mean()), float(losses[-5:].mean())
        expected *= {"area": area, "final": final, "both": math.sqrt(area * final)}[objective]
    assert events[-1].validation_score == pytest.approx(math.sqrt(expected), rel=1e-5)
    assert events[-1].summary["cost"]["selection"]["gradient_evaluations"] == 8 * 31
    assert parameters_to_vector(rule.parameters()).isfinite().all()


def test_a_rule_that_knows_how_long_a_run_is_is_validated_in_a_run_of_each_length(training_spec):
    rule = {"kind": "hyper", "clock": "time+fraction", "hidden_size": 4}
    spec = training_spec(meta_steps=2, validation_interval=2, rule=rule, validation_horizons=[20, 10])
    events, _ = told(spec)
    trained, parts = rule_weights.loads(events[-1].weights), spec.family.tasks.parts()
    backend = backend_for(trained, torch.float32, torch.device("cpu"), parts=parts)
    sample = Sample(Split.VALIDATION, VALIDATION_SEED, 0, 8)
    family, areas = open_for_training(spec.family.tasks), []
    for horizon in (10, 20):
        areas.append(float(curves(run(Learned(backend, horizon=horizon), family, sample, horizon)).area.mean()))
    assert events[-1].validation_score == pytest.approx(math.sqrt(areas[0] * areas[1]), rel=1e-5)
    cut = float(curves(run(Learned(backend, horizon=20), family, sample, 20)).cut(10).area.mean())
    assert cut != pytest.approx(areas[0], rel=1e-5), "it has another plan there, or nothing is tested"
    assert events[-1].summary["cost"]["selection"]["gradient_evaluations"] == 8 * (11 + 21)


def test_means_and_plateaus():
    assert geometric_mean([0.1 + 0.2], [3.0]) == 0.1 + 0.2
    assert geometric_mean([1.0, 8.0], [2.0, 1.0]) == pytest.approx(2.0)
    assert geometric_mean([1.0, math.inf], [1.0, 1.0]) == math.inf
    assert geometric_mean([0.0, 1.0], [1.0, 1.0]) == pytest.approx(1e-15)
    assert stuck([5.0, 1.0, 1.01, 1.0], 1.1, 3)
    assert not stuck([1.0, 1.01], 1.1, 3)
    assert not stuck([1.0, 1.01, 1.0], 2.0, 3)  # it is far below standing still


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"shortest_horizon": 7}, "multiple of unroll_steps 5"),
        ({"shortest_horizon": 40}, "at most horizon 20"),
        ({"starts": 4, "start_steps": 6}, "leave none of 24"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_words(training_spec, recipe, said):
    with pytest.raises(ValueError, match=said):
        training_spec(**recipe)


def test_a_pool_in_several_processes_is_refused_in_words(training_spec):
    spec = training_spec(pool=2)
    with pytest.raises(ValueError, match="pool of 2 trajectories is trained in one process"):
        type(spec).model_validate(spec.model_dump() | {"resources": {"processes": 2}})
