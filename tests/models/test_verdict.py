"""The final loss, the verdict at equal time, time to target and break-even, against answers that are made by hand."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch

from models.curves import Curves, trailing_means
from models.evaluation.break_even import Spent, break_even
from models.evaluation.equal_time import budgets_of, in_seconds, planned_steps
from models.evaluation.statistics import Bootstrap
from models.evaluation.step_costs import Seconds, StepCosts, step_costs
from models.evaluation.time_to_target import Target, first_reached, targets, time_to_target
from models.families.quadratic import QuadraticSpec
from models.measured import Measured
from models.spec import Split
from models.tasks.catalogue import open_for_tuning

HORIZON = 20


def falling(rate, tasks=40, horizon=HORIZON, floor=0.0):
    """Each task's loss falls by the factor exp(-rate) a step, from a start of its own."""
    starts = torch.linspace(1.0, 3.0, tasks, dtype=torch.float64)
    return Curves(starts * torch.exp(-rate * torch.arange(horizon + 1, dtype=torch.float64))[:, None] + floor, None)


def one(curves):
    return Measured(curves, curves)


def exact(seconds):
    return Seconds(seconds, seconds, seconds)


def costs(gradient, **optimizers):
    return StepCosts(exact(gradient), {name: exact(seconds) for name, seconds in optimizers.items()}, coordinates=7)


def test_the_final_loss_is_the_mean_of_the_last_five_steps():
    losses = torch.tensor([[100.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [7.0]])
    assert Curves(losses, None).final.item() == 5.0
    assert Curves(losses[:4], None).final.item() == 2.0, "the start is no step"
    assert Curves(losses, None).cut(4).final.item() == 2.5
    assert Curves(losses, None).cut(0).final.item() == 100.0
    assert trailing_means(losses).squeeze(1).tolist() == [100.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0]
    losses[3] = math.nan
    assert Curves(losses, None).final.item() == math.inf, "a run that met a non-finite loss counts as diverged"


def test_a_step_that_sleeps_costs_what_it_sleeps():
    class Sleeper:
        def start(self, tasks):  # noqa: ARG002
            return self

        def step(self, theta, gradient):  # noqa: ARG002
            time.sleep(0.002)

    [tasks] = open_for_tuning(QuadraticSpec(dimension=3)).sample(Split.VALIDATION, seed=0, trajectory=2, tasks=1)
    work = step_costs({"sleeper": Sleeper()}, tasks)
    while True:
        try:
            next(work)
        except StopIteration as end:
            found = end.value
            break
    sleeper = found.optimizers["sleeper"]
    assert 0.002 <= sleeper.low <= sleeper.median <= sleeper.high
    assert sleeper.median < 0.02
    assert 0 < found.gradient.low <= found.gradient.median <= found.gradient.high
    assert found.step("sleeper") == found.gradient.median + sleeper.median
    assert found.coordinates == 3


def in_equal_time(measured, tuned, timing, bootstrap):
    """The curve of a rule that does not ask how many steps there are is cut."""
    budgets = budgets_of(measured, timing)
    cut = {steps: measured["learned"].final.cut(steps) for budget in budgets.values() for steps in budget}
    return in_seconds(measured, tuned, timing, budgets, cut, bootstrap)


def test_a_win_in_steps_is_a_loss_in_seconds_where_the_step_costs_too_much():
    measured = {"learned": one(falling(0.3)), "adam": one(falling(0.2)), "sgd": one(falling(0.1))}
    bootstrap = Bootstrap(40, 200, 0)
    tuned = ["adam", "sgd"]
    cheap = in_equal_time(measured, tuned, costs(1.0, learned=0.0, adam=0.0, sgd=0.0), bootstrap)
    assert cheap["verdict"] == {"final": "wins", "area": "wins"}
    assert cheap["comparisons"]["best_baseline"]["final"]["baseline"] == "adam"
    assert cheap["run"] == {"learned": 20.0, "adam": 20.0, "sgd": 20.0}
    dear = in_equal_time(measured, tuned, costs(1.0, learned=3.0, adam=0.0, sgd=0.0), bootstrap)
    against = dear["comparisons"]["adam"]
    assert against["learned_steps"] == {"median": 5, "low": 5, "high": 5}, "a quarter of the steps in the same time"
    cut = measured["learned"].final.cut(5).final.mean() / measured["adam"].final.final.mean()
    assert against["final"]["ratio_of_means"] == pytest.approx(float(cut))
    assert dear["verdict"]["final"] == "loses"
    quick = in_equal_time(measured, tuned, costs(1.0, learned=0.0, adam=9.0, sgd=9.0), bootstrap)
    assert quick["comparisons"]["adam"]["learned_steps"]["median"] == HORIZON, "no curve is longer than the horizon"


def test_a_verdict_that_the_noise_of_the_timing_decides_is_not_certain():
    measured = {"learned": one(falling(0.3)), "adam": one(falling(0.2))}
    noisy = StepCosts(exact(1.0), {"learned": Seconds(0.5, 0.2, 2.0), "adam": exact(0.0)}, coordinates=7)
    found = in_equal_time(measured, ["adam"], noisy, Bootstrap(40, 200, 0))["comparisons"]["adam"]
    assert found["learned_steps"] == {"median": 13, "low": 6, "high": 16}
    assert found["final"]["certain"] is False
    steady = in_equal_time(measured, ["adam"], costs(1.0, learned=0.0, adam=0.0), Bootstrap(40, 200, 0))
    assert steady["comparisons"]["adam"]["final"]["certain"] is True


def test_a_rule_that_plans_its_steps_plans_no_more_than_it_has_time_for():
    for horizon in (1, 7, 100, 1000):
        planned = [planned_steps(made, horizon) for made in range(horizon + 1)]
        assert all(0 <= plan <= made for made, plan in enumerate(planned))
        assert planned[-1] == horizon
        assert len(set(planned)) <= 22
        assert max(made - plan for made, plan in enumerate(planned)) < max(1, horizon // 20)


def test_targets_are_what_the_baseline_reached_on_fresh_tasks():
    fresh = falling(0.2)
    found = targets(fresh)
    assert [(each.fraction, each.step) for each in found] == [(0.25, 5), (0.5, 10), (0.75, 15), (1.0, 20)]
    for each in found:
        by_hand = np.median(fresh.losses[each.step - 4 : each.step + 1].numpy().mean(axis=0))
        assert each.loss == pytest.approx(by_hand)


def test_a_target_is_reached_by_the_mean_of_five_steps_or_never():
    losses = torch.tensor([[9.0, 9.0], [9.0, 8.0], [0.0, 7.0], [9.0, 6.0], [9.0, 5.0], [9.0, 4.0], [1.0, 3.0]])
    assert first_reached(Curves(losses), 5.0).tolist() == [2.0, 6.0], "one lucky step is a fifth of a mean, later"
    assert first_reached(Curves(losses), np.array([0.1, 9.0])).tolist() == [math.inf, 0.0]


def test_the_profile_and_its_score_are_those_of_three_problems_by_hand():
    """Times 2, 4 and never against 4, 4 and 6: learned solves 2 of 3 as the quickest; adam 2 at once, all at twice."""

    def reaching(steps):
        losses = torch.full((HORIZON + 1, 3), 9.0)
        for task, step in enumerate(steps):
            if step is not None:
                losses[step:, task] = -1000.0  # the mean of five is below at once
        return one(Curves(losses, None))

    measured = {"learned": reaching([2, 4, None]), "adam": reaching([4, 4, 6])}
    equal = costs(1.0, learned=0.0, adam=0.0)
    found = time_to_target(measured, [Target(1.0, HORIZON, 0.0)], "adam", equal)
    assert found["problems"] == 3
    profile = {name: dict(zip(found["ratio"], each["profile"], strict=True)) for name, each in found["steps"].items()}
    assert (profile["learned"][1.0], profile["learned"][4.0]) == pytest.approx((2 / 3, 2 / 3))
    assert (profile["adam"][1.0], profile["adam"][4.0]) == pytest.approx((2 / 3, 1.0))
    assert found["steps"]["learned"]["score"] == pytest.approx(2 / 3)
    assert found["steps"]["adam"]["score"] == pytest.approx((2 + 2 / 3) / 3), "the factor 2 costs a third of 1 to 4"
    [target] = found["targets"]
    assert target["reached"] == {"learned": pytest.approx(2 / 3), "adam": 1.0}
    assert target["median_steps"] == {"learned": 4.0, "adam": 4.0}
    slow = time_to_target(measured, [Target(1.0, HORIZON, 0.0)], "adam", costs(1.0, learned=9.0, adam=0.0))
    assert slow["seconds"]["learned"]["score"] == 0.0, "it takes 5 and 10 times as long"
    assert slow["steps"] == found["steps"]


def test_what_the_start_has_reached_is_no_problem_and_what_nobody_reaches_is_nobodys():
    measured = {"learned": one(falling(0.3, tasks=2)), "adam": one(falling(0.2, tasks=2))}
    equal = costs(1.0, learned=0.0, adam=0.0)
    found = time_to_target(measured, [Target(0.5, 10, 2.0), Target(1.0, HORIZON, -1.0)], "adam", equal)
    assert found["problems"] == 3, "the first task begins at 1"
    assert found["steps"]["learned"]["profile"][-1] == pytest.approx(1 / 3)
    nothing = time_to_target(measured, [Target(1.0, HORIZON, 9.0)], "adam", equal)
    assert (nothing["problems"], nothing["steps"]["learned"]["score"]) == (0, 0.0)


def test_the_better_of_a_baselines_two_runs_counts():
    two = Measured(falling(0.1), falling(0.4))
    equal = costs(1.0, learned=0.0, adam=0.0)
    found = time_to_target({"learned": one(falling(0.4)), "adam": two}, [Target(1.0, HORIZON, 0.5)], "adam", equal)
    assert found["steps"]["adam"] == found["steps"]["learned"]


def test_the_runs_until_training_pays():
    learned, adam = one(falling(0.4)), one(falling(0.2))
    steps = float(first_reached(learned.final, adam.final.final.numpy())[0])
    assert steps == 12, "2.598 exp(-.4 t) <= 1.552 exp(-.2 x 20), the means of five steps, from t = 11.3 on"
    cost = costs(0.5, learned=1.0, adam=0.5)
    found = break_even(learned, "adam", adam, 9, cost, Spent(training=100.0, selection=5.0))
    assert (found["learned_seconds"], found["baseline_seconds"]) == (steps * 1.5, 20.0)
    assert found["saved_seconds"] == 2.0
    assert (found["runs"], found["never"], found["reached"]) == (53, None, 1.0)
    assert (found["tuning_runs"], found["tuning_seconds"]) == (9, 180.0)
    assert found["runs_beside_tuning"] == 0, "nine runs of the baseline cost more than the training"
    assert found["trainings"] == 1
    swept = break_even(learned, "adam", adam, 9, cost, Spent(training=900.0, selection=50.0, trainings=12))
    assert (swept["runs"], swept["runs_beside_tuning"], swept["trainings"]) == (475, 385, 12)
    unknown = break_even(learned, "adam", adam, 9, cost, None)
    assert (unknown["runs"], unknown["never"], unknown["saved_seconds"]) == (None, None, 2.0)


def test_training_never_pays_and_why():
    adam = one(falling(0.2))
    slow = break_even(one(falling(0.4)), "adam", adam, 9, costs(0.5, learned=5.0, adam=0.0), Spent(1.0, 0.0))
    assert (slow["runs"], slow["never"]) == (None, "not_faster")
    stuck = break_even(one(falling(0.4, floor=0.5)), "adam", adam, 9, costs(0.5, learned=0, adam=0), Spent(1.0, 0.0))
    assert (stuck["runs"], stuck["never"], stuck["reached"]) == (None, "does_not_reach", 0.0)
