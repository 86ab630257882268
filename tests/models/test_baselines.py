"""Our batched baselines equal the reference optimizers step by step, and their tuning finds the optimum."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from prodigyopt import Prodigy
from schedulefree import AdamWScheduleFree

from models.baselines import BASELINES, DEFAULT_TUNED, DEFAULT_UNTUNED, SCHEDULES, TUNED, UNTUNED
from models.baselines.schedules import rate
from models.families import FAMILIES as REGISTERED
from models.families.mlp import MLPSpec
from models.families.quadratic import QuadraticSpec
from models.rollout import Averaging, Sample, curves, run
from models.spec import EvaluationPlan, FamilySpec, PreviewPlan, Split, with_tasks
from models.tasks.catalogue import open_for_tuning
from models.tuning import (
    GRID_LIMIT,
    GridPoint,
    Tuned,
    _wanted,
    candidates,
    learning_rate,
    tune,
)
from models.tuning_budget import runs_of

FAMILIES = {"quadratic": QuadraticSpec(), "mlp": MLPSpec(hidden=(6,), batch_size=16)}
STEPS = 40

TORCH_SCHEDULES = {
    "constant": lambda oracle: torch.optim.lr_scheduler.ConstantLR(oracle, factor=1.0),
    "linear": lambda oracle: torch.optim.lr_scheduler.LinearLR(
        oracle, start_factor=1.0, end_factor=0.0, total_iters=STEPS
    ),
    "cosine": lambda oracle: torch.optim.lr_scheduler.CosineAnnealingLR(oracle, T_max=STEPS),
}


def drawn(family, first=0, tasks=3):
    [batch] = open_for_tuning(FAMILIES[family]).sample(
        Split.VALIDATION, seed=0, trajectory=0, tasks=tasks, first=first, dtype=torch.float64
    )
    return batch


def stepped(oracle, theirs, tasks, step):
    oracle.zero_grad()
    tasks.losses(theirs, step).sum().backward()
    oracle.step()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", [name for name, baseline in TUNED.items() if baseline.torch])
def test_a_baseline_equals_torchs_own_step_by_step_under_every_schedule(name, family):
    tasks, baseline = drawn(family), TUNED[name]
    for schedule in SCHEDULES:
        ours = tasks.initial()
        stepper = Tuned(baseline, 0.003, schedule, STEPS).start(tasks)
        theirs = tasks.initial().requires_grad_()
        oracle = getattr(torch.optim, baseline.torch)([theirs], lr=0.003, **baseline.settings)
        scheduler = TORCH_SCHEDULES[schedule](oracle)
        for step in range(STEPS):
            stepper.step(ours, tasks.losses_and_gradient(ours, step)[1])
            stepped(oracle, theirs, tasks, step)
            scheduler.step()
            error = (ours - theirs.detach()).abs().max() / theirs.detach().abs().max()
            assert error <= 1e-12, f"{schedule}, step {step}"


class ScheduleFreeOracle:
    def __init__(self, theta):
        self.theta, self.optimizer = theta, AdamWScheduleFree([theta])
        self.optimizer.train()

    def judged(self):
        self.optimizer.eval()
        found = self.theta.detach().clone()
        self.optimizer.train()
        return found


class DoGOracle:
    def __init__(self, theta):
        with warnings.catch_warnings():  # the package's docstrings have escapes that Python 3.12 refuses to like
            warnings.simplefilter("ignore")
            from dog import DoG, PolynomialDecayAverager
        self.theta, self.optimizer = theta, DoG([theta])
        self.model = torch.nn.Module()
        self.model.theta = theta
        self.averager = PolynomialDecayAverager(self.model)

    def judged(self):
        self.averager.step()
        return self.averager.averaged_model.theta.detach()


class PlainOracle:
    def __init__(self, theta, make):
        self.theta, self.optimizer = theta, make([theta])

    def judged(self):
        return self.theta.detach()


ORACLES = {
    "adam_default": lambda theta: PlainOracle(theta, torch.optim.Adam),
    "schedule_free": ScheduleFreeOracle,
    "prodigy": lambda theta: PlainOracle(theta, Prodigy),
    "dog": DoGOracle,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ORACLES)
def test_an_untuned_baseline_equals_its_authors_package_on_each_task_alone(name, family):
    """Side by side, three tasks of different scales: one that is seen by another's norms would move otherwise."""
    scales = (1.0, 30.0, 0.02)
    tasks = drawn(family)
    size = tasks.coordinates_per_task
    factors = torch.tensor(scales, dtype=torch.float64).repeat_interleave(size)
    ours, stepper = tasks.initial(), UNTUNED[name].start(tasks)
    points = []
    for step in range(STEPS):
        stepper.step(ours, factors * tasks.losses_and_gradient(ours, step)[1])
        points.append(stepper.average(ours).clone() if isinstance(stepper, Averaging) else ours.clone())
    for index, scale in enumerate(scales):
        alone = drawn(family, first=index, tasks=1)
        oracle = ORACLES[name](torch.nn.Parameter(alone.initial()))
        for step, point in enumerate(points):
            oracle.theta.grad = scale * alone.losses_and_gradient(oracle.theta.detach(), step)[1]
            oracle.optimizer.step()
            found, expected = point.view(3, size)[index], oracle.judged()
            assert (found - expected).abs().max() / expected.abs().max() <= 1e-9, f"task {index}, step {step}"


@pytest.mark.parametrize("name", ORACLES)
def test_a_task_without_a_gradient_does_not_move_until_it_has_one(name):
    tasks = drawn("quadratic", tasks=2)
    theta, stepper = tasks.initial(), UNTUNED[name].start(tasks)
    for step in range(6):
        _, gradient = tasks.losses_and_gradient(theta, step)
        gradient.view(2, -1)[1] *= step >= 3
        stepper.step(theta, gradient)
        moved = theta != tasks.initial()
        assert bool(torch.isfinite(theta).all())
        assert bool(moved.view(2, -1)[1].any()) is (step >= 3), f"step {step}"


def test_an_optimizer_that_averages_is_judged_at_its_average():
    tasks, family = drawn("quadratic"), open_for_tuning(FAMILIES["quadratic"])
    sample = Sample(Split.VALIDATION, 0, 0, 3)
    found = curves(run(UNTUNED["schedule_free"], family, sample, STEPS, dtype=torch.float64)).losses
    oracle = ScheduleFreeOracle(torch.nn.Parameter(tasks.initial()))
    for step in range(STEPS):
        torch.testing.assert_close(found[step], tasks.losses(oracle.judged(), step), rtol=1e-9, atol=0)
        stepped(oracle.optimizer, oracle.theta, tasks, step)
    torch.testing.assert_close(found[STEPS], tasks.losses(oracle.judged(), STEPS), rtol=1e-9, atol=0)


def test_every_baseline_has_an_answer_to_be_held_to():
    """One that torch has no twin of needs a test of its own, and is named here."""
    alone = {"muon", "soap", "lbfgs"}  # tests/models/test_matrix_baselines.py
    assert {name for name, baseline in TUNED.items() if baseline.torch is None} == alone
    assert set(ORACLES) == set(UNTUNED) - {"fista"}  # tests/models/test_lasso.py


def test_a_schedule_begins_at_the_whole_rate_and_a_decay_ends_close_to_zero():
    for schedule in SCHEDULES:
        rates = [rate(0.3, schedule, 1000)(step) for step in range(1000)]
        assert rates[0] == 0.3
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] == 0.3 if schedule == "constant" else 0 < rates[-1] < 0.3 / 999


def test_what_a_job_may_name_derives_from_the_register():
    assert [each.name for each in BASELINES.values()] == list(BASELINES) == [*TUNED, *UNTUNED]
    assert {each.tier for each in TUNED.values()} == {"tuned"}
    assert {each.tier for each in UNTUNED.values()} == {"untuned"}
    assert EvaluationPlan().baselines == DEFAULT_TUNED == ("sgd", "nag", "rmsprop", "adam", "adamw")
    assert EvaluationPlan().untuned == DEFAULT_UNTUNED == ("adam_default", "schedule_free", "prodigy", "dog")
    assert EvaluationPlan().schedules == tuple(SCHEDULES) == ("constant", "linear", "cosine")
    assert PreviewPlan().schedules == ("constant",)
    assert EvaluationPlan(baselines=list(TUNED)).baselines == tuple(TUNED)
    schema = EvaluationPlan.model_json_schema()["properties"]
    for field, register in (("baselines", TUNED), ("untuned", UNTUNED), ("schedules", SCHEDULES)):
        assert schema[field]["items"]["enum"] == list(register)
    with pytest.raises(ValueError, match="Input should be 'sgd', 'nag', 'rmsprop'"):
        EvaluationPlan(baselines=["sdg"])
    with pytest.raises(ValueError, match="Input should be 'adam_default', 'schedule_free'"):
        EvaluationPlan(untuned=["adam"])


def test_the_usual_tier_of_a_family_has_what_suits_its_tasks():
    """Muon and SOAP where there are matrices of weights, L-BFGS where no step draws data of its own; changed tasks have
    their own, and a plan that names baselines has those."""
    matrices, curvature = (*DEFAULT_TUNED, "muon", "soap"), (*DEFAULT_TUNED, "lbfgs")
    tiers = {"digits-mlp": matrices, "digits-conv": matrices, "cifar10-conv": matrices}
    tiers |= dict.fromkeys(("quadratic", "rosenbrock", "lasso", "pendulum", "neural-art"), curvature)
    for name, expected in tiers.items():
        assert REGISTERED[name].evaluation.baselines == expected, name
    pendulum = REGISTERED["pendulum"]
    draws = pendulum.tasks.draws | {"noise": pendulum.tasks.draws["noise"].model_copy(update={"each": "step"})}
    noisy = with_tasks(pendulum, pendulum.tasks.model_copy(update={"draws": draws}))
    assert noisy.evaluation.baselines == DEFAULT_TUNED
    chosen = FamilySpec(**dict(pendulum) | {"evaluation": EvaluationPlan(baselines=("sgd",))})
    assert with_tasks(chosen, noisy.tasks).evaluation.baselines == ("sgd",)


def test_no_other_place_lists_them():
    """One name may stand in an example; two are a list that the next baseline would have to be added to."""
    root = Path(__file__).parents[2]
    own = root / "models" / "baselines"
    for package in ("app", "models", "workers", "sdk", "benchmarks"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            named = {name for name in BASELINES if f'"{name}"' in text}
            # users' rules of kind tuned and schedule are optimizers of their own, which know nothing of the service
            allowed = {own, root / "sdk" / "gradsmith" / "rules", root / "benchmarks" / "tests"} & {*path.parents}
            assert len(named) < 2 or allowed, f"{path} lists {sorted(named)}"


def swept(name, spec=FAMILIES["quadratic"], tasks=16, horizon=15, schedules=("constant",)):
    points = []
    baseline = TUNED[name] if isinstance(name, str) else name
    sweep = tune(baseline, open_for_tuning(spec), Sample(Split.VALIDATION, 0, 1, tasks), horizon, schedules)
    while True:
        try:
            point = next(sweep)
        except StopIteration as end:
            return end.value, points
        if point is not None:
            points.append(point)


def neighbours(tuning, best):
    """The points of the best one's schedule next to it."""
    own = [point for point in tuning.points if point.schedule == best.schedule]
    place = own.index(best)
    assert 0 < place < len(own) - 1, "the best is inside its grid"
    return own[place - 1], own[place + 1]


@pytest.mark.parametrize("name", TUNED)
@pytest.mark.parametrize("schedules", [("constant",), tuple(SCHEDULES)])
def test_tuning_gives_every_baseline_the_same_runs_and_ends_with_the_best_inside_its_grid(name, schedules):
    tuning, points = swept(name, schedules=schedules)
    assert len(points) == len(tuning.points) == len({(p.schedule, p.k) for p in points}) == runs_of(schedules)
    assert {point.schedule for point in points} == set(schedules)
    assert tuning.best_final.final == min(point.final for point in points)
    assert tuning.best_area.area == min(point.area for point in points)
    below, above = neighbours(tuning, tuning.best_final)
    assert max(above.k - tuning.best_final.k, tuning.best_final.k - below.k) <= 1, "a quarter of a decade or closer"
    for criterion in ("final", "area"):
        best = getattr(tuning, f"best_{criterion}")
        assert tuning.best(criterion) == Tuned(TUNED[name], best.learning_rate, best.schedule, 15)


def loss(k, optimum):
    return (k - optimum) ** 2


@pytest.mark.parametrize("optimum", [-17.3, -6.0, 0.4, 3.3, 9.0])
@pytest.mark.parametrize("decayed", [-2.0, 0.0, 0.6, 2.0])
def test_the_search_brackets_any_optimum_and_tries_every_schedule(optimum, decayed):
    """On losses whose optimum is known: that of `linear` is elsewhere, and the best of all by one."""
    points, schedules = {}, ("constant", "linear")
    for schedule, k in chain.from_iterable(candidates(-4, schedules, points)):
        value = loss(k, optimum) if schedule == "constant" else loss(k, optimum + decayed) - 1
        points[schedule, k] = GridPoint(schedule, k, value, value, 0, 1)
    assert len(points) == runs_of(schedules)
    assert {schedule for schedule, _ in points} == set(schedules)
    best = min(points.values(), key=lambda point: point.final)
    found = sorted(k for schedule, k in points if schedule == best.schedule)
    assert found[0] < best.k < found[-1]
    true = optimum if best.schedule == "constant" else optimum + decayed
    assert abs(best.k - true) <= 1.0


@pytest.mark.parametrize("shift", [-12, 12])
def test_the_grid_grows_on_either_side_and_finds_the_same_valley(shift):
    usual, _ = swept("sgd", tasks=8)
    sgd = replace(TUNED["sgd"], centre=TUNED["sgd"].centre + shift)
    found, points = swept(sgd, tasks=8)
    begun = [point.k for point in points[:5]]
    assert begun == [sgd.centre + offset for offset in (-8, -4, 0, 4, 8)]
    neighbours(found, found.best_final)
    assert abs(found.best_final.k - usual.best_final.k) <= 1


def test_where_everything_diverged_the_grid_grows_to_smaller_rates():
    usual, _ = swept("sgd", tasks=4, horizon=40)
    found, points = swept(replace(TUNED["sgd"], centre=10), tasks=4, horizon=40)
    assert all(point.diverged for point in points[:5])
    assert abs(found.best_final.k - usual.best_final.k) <= 2


def grid(values, criterion="final"):
    usual = {k: loss(k, 1.0) for k in values}
    final, area = (values, usual) if criterion == "final" else (usual, values)
    return {k: GridPoint("constant", k, final[k], area[k], 0, 1) for k in values}


@pytest.mark.parametrize("criterion", ["final", "area"])
def test_the_next_point_is_beyond_the_edge_or_halves_the_wider_gap_for_each_criterion_alone(criterion):
    for edge, expected in ((0.0, -2.0), (2.0, 4.0), (1.0, None)):
        values = {k: float(k != edge) for k in (0.0, 1.0, 2.0)}
        assert _wanted(grid(values, criterion), criterion, 1.0) == expected
    uneven = {0.0: 1.0, 2.0: 0.0, 3.0: 1.0}
    assert _wanted(grid(uneven, criterion), criterion, 1.0) == 1.0
    assert _wanted(grid(uneven, criterion), criterion, 2.0) is None
    assert _wanted(grid(dict.fromkeys((0.0, 1.0), math.inf), criterion), criterion, 1.0) == -2.0


def test_the_grid_ends_at_its_limits():
    low, high = -GRID_LIMIT, GRID_LIMIT
    assert _wanted(grid({low: 0.0, low + 1: 1.0}), "final", 1.0) is None
    assert _wanted(grid({high - 1: 1.0, high: 0.0}), "final", 1.0) is None
    assert _wanted(grid({high - 2: 1.0, high - 1: 0.0}), "final", 1.0) == high
    points = {}
    for schedule, k in chain.from_iterable(candidates(20, ("constant",), points)):
        points[schedule, k] = GridPoint(schedule, k, math.inf, math.inf, 1, 1)
    assert min(points)[1] == low, "where nothing ever converges, the search ends"


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
        adam = Tuned(TUNED["adam"], 0.01, "constant", 7)
        return curves(run(adam, family, sample, 7, dtype=torch.float64, held_out=True))

    whole = found()
    monkeypatch.setattr(family, "tasks_abreast", 2)
    chunked = found()
    assert whole.losses.shape == (8, 5)
    torch.testing.assert_close(chunked.losses, whole.losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(chunked.held_out.losses, whole.held_out.losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(whole.final, whole.losses[-5:].mean(0))
    torch.testing.assert_close(whole.area, whole.losses[1:].mean(0))
