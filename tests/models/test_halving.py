"""Successive halving finds what the full search finds, at a share of its cost, and its grid grows at an edge."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from models.baselines import TUNED
from models.baselines.schedules import SCHEDULES
from models.families import FAMILIES
from models.halving import _beyond, tune_by_halving
from models.rollout import Sample, curves, run
from models.spec import Split
from models.tasks.catalogue import open_for_tuning
from models.tuning import GridPoint, tune
from models.tuning_budget import runs_of

HORIZON, TASKS = 15, 32
FAMILY = open_for_tuning(FAMILIES["quadratic"].tasks)
SAMPLE = Sample(Split.VALIDATION, 0, 1, TASKS)


def swept(search, baseline, schedules=tuple(SCHEDULES), sample=SAMPLE):
    sweep, first = search(baseline, FAMILY, sample, HORIZON, schedules), 0
    while True:
        try:
            first += next(sweep) is not None
        except StopIteration as end:
            return end.value, first


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_it_finds_what_the_full_search_finds_at_less_than_half_of_its_cost(name):
    (full, _), (found, first) = swept(tune, TUNED[name]), swept(tune_by_halving, TUNED[name])
    assert first == runs_of(tuple(SCHEDULES)), "every baseline begins with the same number of candidates"
    assert {point.schedule for point in found.points} == set(SCHEDULES)
    assert sum(point.tasks for point in found.points) < 0.5 * sum(point.tasks for point in full.points)
    for criterion in ("final", "area"):
        best = getattr(found, f"best_{criterion}")
        assert best.tasks == TASKS, "who wins has run on all tasks"
        assert getattr(best, criterion) <= 1.05 * getattr(getattr(full, f"best_{criterion}"), criterion)


def test_a_point_that_ran_in_parts_has_the_mean_over_all_tasks():
    found, _ = swept(tune_by_halving, TUNED["adam"], ("constant",))
    whole = curves(run(found.best("final"), FAMILY, SAMPLE, HORIZON))
    assert found.best_final.final == pytest.approx(float(whole.final.mean()), rel=1e-5)
    assert found.best_final.area == pytest.approx(float(whole.area.mean()), rel=1e-5)
    assert {point.tasks for point in found.points} == {8, 16, 32}


@pytest.mark.parametrize("shift", [-12, 12])
def test_the_grid_grows_until_the_best_is_inside(shift):
    usual, _ = swept(tune_by_halving, TUNED["sgd"], ("constant",))
    found, _ = swept(tune_by_halving, replace(TUNED["sgd"], centre=TUNED["sgd"].centre + shift), ("constant",))
    ks = [point.k for point in found.points]
    assert min(ks) < found.best_final.k < max(ks)
    assert abs(found.best_final.k - usual.best_final.k) <= 1


def test_a_winner_at_the_edge_asks_for_the_next_stride_beyond_it():
    points = {("constant", k): GridPoint("constant", k, value, value, 0, 4) for k, value in ((0, 1.0), (1, 2.0))}
    assert _beyond(("constant", 0), points, "final") == ("constant", -2)
    assert _beyond(("constant", 1), points, "final") == ("constant", 3)
    assert _beyond(("constant", 0), {**points, ("constant", -1): points["constant", 0]}, "final") is None
    alone = {("linear", 5): GridPoint("linear", 5, 1.0, 1.0, 0, 4)}
    assert _beyond(("linear", 5), alone, "final") == ("linear", 4.0)


def test_one_task_is_enough():
    found, _ = swept(tune_by_halving, TUNED["sgd"], ("constant",), replace(SAMPLE, tasks=1))
    assert {point.tasks for point in found.points} == {1}
    assert math.isfinite(found.best_final.final)
