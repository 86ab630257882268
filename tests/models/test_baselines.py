"""Our batched baselines are torch.optim's own, step by step, and their tuning finds the optimum."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.baselines import BASELINES, DEFAULT_BASELINES
from models.families.mlp import MLPSpec
from models.families.quadratic import QuadraticSpec
from models.rollout import Sample, curves, run
from models.spec import EvaluationPlan, Split
from models.tasks.catalogue import open_for_tuning
from models.tuning import GRID_LIMIT, GRID_POINTS, GridPoint, Tuned, _beyond_the_edge, learning_rate, tune

FAMILIES = {"quadratic": QuadraticSpec(), "mlp": MLPSpec(hidden=(6,), batch_size=16)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", [name for name, baseline in BASELINES.items() if baseline.torch])
def test_a_baseline_equals_torchs_own_step_by_step(name, family):
    [tasks] = open_for_tuning(FAMILIES[family]).sample(
        Split.VALIDATION, seed=0, trajectory=0, tasks=3, dtype=torch.float64
    )
    ours = tasks.initial()
    baseline = BASELINES[name]
    stepper = Tuned(baseline, 0.003).start(tasks)
    theirs = tasks.initial().requires_grad_()
    oracle = getattr(torch.optim, baseline.torch)([theirs], lr=0.003, **baseline.settings)
    for step in range(60):
        stepper.step(ours, tasks.losses_and_gradient(ours, step)[1])
        oracle.zero_grad()
        tasks.losses(theirs, step).sum().backward()
        oracle.step()
        error = (ours - theirs.detach()).abs().max() / theirs.detach().abs().max()
        assert error <= 1e-12, f"step {step}"


def test_every_baseline_has_an_answer_to_be_held_to():
    """One that torch has no twin of needs a test of its own, and is named here."""
    assert {name for name, baseline in BASELINES.items() if baseline.torch is None} == set()


def test_what_a_job_may_name_derives_from_the_register():
    assert [each.name for each in BASELINES.values()] == list(BASELINES)
    assert EvaluationPlan().baselines == DEFAULT_BASELINES == ("sgd", "nag", "rmsprop", "adam")
    assert EvaluationPlan(baselines=list(BASELINES)).baselines == tuple(BASELINES)
    assert EvaluationPlan.model_json_schema()["properties"]["baselines"]["items"]["enum"] == list(BASELINES)
    with pytest.raises(ValueError, match="Input should be 'sgd', 'nag', 'rmsprop'"):
        EvaluationPlan(baselines=["sdg"])


def test_no_other_place_lists_them():
    """One name may stand in an example; two are a list that the next baseline would have to be added to."""
    root = Path(__file__).parents[2]
    own = root / "models" / "baselines"
    for package in ("app", "models", "workers", "sdk", "benchmarks"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            named = {name for name in BASELINES if f'"{name}"' in text}
            assert len(named) < 2 or own in path.parents, f"{path} lists {sorted(named)}"


def swept(name, spec=FAMILIES["quadratic"], tasks=16, horizon=15):
    points = []
    baseline = BASELINES[name] if isinstance(name, str) else name
    sweep = tune(baseline, open_for_tuning(spec), Sample(Split.VALIDATION, 0, 1, tasks), horizon)
    while True:
        try:
            point = next(sweep)
        except StopIteration as end:
            return end.value, points
        if point is not None:
            points.append(point)


@pytest.mark.parametrize("name", BASELINES)
def test_tuning_ends_with_both_optima_inside_the_grid(name):
    tuning, points = swept(name)
    assert len(points) == len(tuning.points) >= GRID_POINTS
    ks = [point.k for point in tuning.points]
    assert ks == list(range(ks[0], ks[-1] + 1))
    for best in (tuning.best_final, tuning.best_area):
        assert ks[0] < best.k < ks[-1]
    finals = {point.k: point.final for point in points}
    assert tuning.best_final.final == min(finals.values())
    assert tuning.best_area.area == min(point.area for point in points)


def test_every_baseline_begins_with_the_same_budget_and_the_grid_grows_to_a_far_optimum():
    # Tiny steps on a function whose starting points are far away: Adam wants a learning rate beyond its first grid.
    tuning, points = swept("adam", QuadraticSpec(dimension=2, start_std=100.0), tasks=8)
    first = [point.k for point in points[:GRID_POINTS]]
    assert first == sorted(first)
    assert len(points) > GRID_POINTS
    assert tuning.best_final.k > max(first) - 1
    assert tuning.points[-1].k > tuning.best_final.k


@pytest.mark.parametrize("shift", [-10, 10])
def test_the_grid_grows_on_either_side_until_it_finds_the_same_optimum(shift):
    usual, _ = swept("sgd", tasks=8)
    sgd = replace(BASELINES["sgd"], centre=BASELINES["sgd"].centre + shift)
    found, points = swept(sgd, tasks=8)
    assert (found.best_final, found.best_area) == (usual.best_final, usual.best_area)
    begun = [point.k for point in points[:GRID_POINTS]]
    assert begun == list(range(sgd.centre - 4, sgd.centre + 5))
    assert not begun[0] < found.best_final.k < begun[-1]


def test_where_everything_diverged_the_grid_grows_to_smaller_rates():
    usual, _ = swept("sgd", tasks=4, horizon=40)
    found, points = swept(replace(BASELINES["sgd"], centre=10), tasks=4, horizon=40)
    assert all(point.diverged for point in points[:GRID_POINTS])
    assert (found.best_final, found.best_area) == (usual.best_final, usual.best_area)


@pytest.mark.parametrize("criterion", ["final", "area"])
@pytest.mark.parametrize(("edge", "next_one"), [(0, [-1]), (2, [3]), (1, [])])
def test_the_grid_grows_for_each_criterion_alone(criterion, edge, next_one):
    inside = [1.0, 0.5, 1.0]
    outside = [0.0 if k == edge else 1.0 for k in range(3)]
    final, area = (outside, inside) if criterion == "final" else (inside, outside)
    assert _beyond_the_edge({k: GridPoint(k, final[k], area[k], 0) for k in range(3)}) == next_one


def test_the_grid_ends_at_its_limits():
    for low, best in ((-GRID_LIMIT, -GRID_LIMIT), (GRID_LIMIT - 2, GRID_LIMIT)):
        points = {k: GridPoint(k, float(k != best), float(k != best), 0) for k in range(low, low + 3)}
        assert _beyond_the_edge(points) == []


def test_a_diverged_run_counts_as_infinite_and_never_wins():
    tuning, points = swept("sgd", horizon=60)
    diverged = [point for point in points if point.diverged]
    assert diverged, "the grid holds a learning rate at which SGD diverges"
    assert all(math.isinf(point.final) and math.isinf(point.area) for point in diverged)
    assert tuning.best_final.diverged == tuning.best_area.diverged == 0


def test_the_grid_is_a_quarter_of_a_decade():
    assert learning_rate(0) == 1.0
    assert learning_rate(-4) == pytest.approx(0.1)
    assert learning_rate(1) / learning_rate(0) == pytest.approx(10**0.25)


def test_curves_hold_every_loss_once_and_chunks_change_nothing(monkeypatch):
    family = open_for_tuning(FAMILIES["mlp"])
    sample = Sample(Split.VALIDATION, 3, 0, 5)

    def found():
        return curves(run(Tuned(BASELINES["adam"], 0.01), family, sample, 7, dtype=torch.float64, held_out=True))

    whole = found()
    monkeypatch.setattr("models.rollout.CHUNK_COORDINATES", 2 * family.coordinates_per_task)
    chunked = found()
    assert whole.losses.shape == (8, 5)
    torch.testing.assert_close(chunked.losses, whole.losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(chunked.held_out.losses, whole.held_out.losses, rtol=1e-12, atol=0)
    assert torch.equal(whole.final, whole.losses[-1])
    torch.testing.assert_close(whole.area, whole.losses[1:].mean(0))
