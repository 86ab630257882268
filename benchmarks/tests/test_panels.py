"""The panels can be run, and their tables say what was measured."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from benchmarks.panels import held_out, per_image, runs, section, tables, tier
from benchmarks.panels.catalogue import PANELS, Panel
from benchmarks.panels.costs import costs, least
from benchmarks.panels.runs import Found
from benchmarks.panels.trainings import TRAININGS
from gradsmith.rules import build
from gradsmith.rules import weights as rule_weights
from models.baselines import TUNED
from models.evaluation.step_costs import Seconds, StepCosts
from models.rollout import Sample, curves, run
from models.spec import MetaTrainSpec, Resources, Split
from models.tasks.catalogue import open_for_tuning
from models.tuning import Tuned

SMALL = Panel(
    "small quadratics", "quadratic", horizon=10, tasks={"dimension": 3}, tuning_tasks=4, baselines=("sgd", "nag")
)


@pytest.mark.parametrize("name", TRAININGS)
def test_every_training_is_a_job(name: str) -> None:
    family = TRAININGS[name].spec
    job = MetaTrainSpec(
        family=family, seed=0, recipe=family.recipe, evaluate=False, evaluation=family.evaluation, resources=Resources()
    )
    kind = "lstm" if TRAININGS[name].paper else "hyper"
    assert job.recipe.rule.kind == TRAININGS[name].recipe.get("rule", {"kind": kind})["kind"]


def test_no_two_trainings_keep_their_rules_under_one_name() -> None:
    fingerprints = {training.fingerprint for training in TRAININGS.values()}
    assert len(fingerprints) == len(TRAININGS)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel.name} by {panel.training}")
def test_every_panel_is_a_problem_with_what_it_changes(panel: Panel) -> None:
    told = panel.problem.model_dump()
    assert {
        name: list(told[name]) if isinstance(told[name], tuple) else told[name] for name in panel.tasks
    } == panel.tasks


def test_what_was_measured_is_kept_and_used_again(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(runs, "TEST_TASKS", 6)
    monkeypatch.setattr(tier, "SCHEDULES", ("constant",))
    rule = build({"kind": "tuned", "optimizer": "sgd", "learning_rate": 0.01})
    weights = rule_weights.dumps(rule, {})
    entries = tier.tier(SMALL, None, tmp_path)
    found, spent = runs.of_rule(SMALL, weights, None, tmp_path), costs(SMALL, weights, entries, None, tmp_path)
    assert found.losses.shape == (11, 6)
    # The rule is SGD at 0.01: it must do what the baseline does at that rate.
    same = runs.found(Tuned(TUNED["sgd"], 0.01, "constant", 10), SMALL, None)
    torch.testing.assert_close(found.losses, same.losses)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    again = runs.of_rule(SMALL, weights, None, tmp_path), tier.tier(SMALL, None, tmp_path)
    assert torch.equal(again[0].losses, found.losses)
    assert [entry.label for entry in again[1]] == [entry.label for entry in entries]
    assert costs(SMALL, weights, entries, None, tmp_path) == spent
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == files


def made(losses: list[float]) -> Found:
    """Two tasks with the same curve."""
    curve = torch.tensor(losses).repeat(2, 1).t()
    return Found(curve, curve[-5:].mean(dim=0), curve[1:].mean(dim=0), torch.empty(0), torch.empty(0))


def test_a_section_has_the_tables_that_have_rows() -> None:
    panel = next(each for each in PANELS if each.on == "held_out" and each.horizon == 200)
    lines = section.lines([], ["| the row |"], {}, "./run bench panels", [panel])
    heads = [above for above, line in pairwise(lines) if line.startswith("|---")]
    assert heads == [held_out.HEAD[0]]
    assert lines[lines.index("| the row |") - 1] == held_out.HEAD[1]
    assert "()" not in "".join(lines)


def test_a_ratio_in_seconds_counts_the_steps_that_fit() -> None:
    """A gradient takes 1 ms, SGD's own step nothing and the rule's 1 ms: so it makes 5 of 10 steps."""
    baseline, rule = made([9.0] + [2.0] * 10), made([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 0.1, 0.1, 0.1, 0.1, 0.1])
    tuned = Tuned(TUNED["sgd"], 0.1, "constant", 10)
    entries = [tier.Entry("final", tuned, baseline), tier.Entry("area", tuned, baseline)]
    own = {"learned": Seconds(0.001, 0.001, 0.001), "sgd": Seconds(0.0, 0.0, 0.0)}
    spent = StepCosts(Seconds(0.001, 0.001, 0.001), own, 9)
    measured = tables.Measured(SMALL, [rule], entries, baseline, spent)
    assert "| 5 of 10 | 3.000 / 3.000 |" in tables.in_seconds(measured)  # the mean of 8, 7, 6, 5 and 4 is 6
    assert "**0.050 / 1.525** | 0.050 |" in tables.in_steps(measured)  # of 8 ... 4 and five times 0.1: 3.05


def test_the_least_timing_counts_of_each_by_itself() -> None:
    def timing(gradient: float, own: float) -> StepCosts:
        return StepCosts(Seconds(gradient, 0.0, 9.0), {"learned": Seconds(own, 0.0, 9.0)}, 9)

    assert least([timing(3.0, 1.0), timing(2.0, 4.0), timing(5.0, 0.5)]) == timing(2.0, 0.5)


def test_the_median_seed_counts_and_the_best_baseline() -> None:
    rates = {"sgd": 4.0, "nag": 2.0}
    entries = [
        tier.Entry(criterion, Tuned(TUNED[name], 0.1, "linear", 10), made([loss] * 11))
        for name, loss in rates.items()
        for criterion in ("final", "area")
    ]
    rules = [made([9.0] + [loss] * 10) for loss in (1.0, 3.0, 0.5)]
    lost = made([9.0] + [torch.inf] * 10)
    spent = StepCosts(Seconds(0.001, 0.001, 0.001), {}, 9)
    line = tables.in_steps(tables.Measured(SMALL, rules, entries, lost, spent))
    assert "| NAG, linear, 0.1: 2 | **0.500 / 0.500** | 0.500 1.500 0.250 | 0.500 | 100 % |" in line
    line = tables.in_steps(tables.Measured(SMALL, [lost], entries, lost, spent))
    assert f"inf (2 of {runs.TEST_TASKS} diverged)" in line


def test_each_image_has_the_loss_that_the_family_means_over() -> None:
    """The family's own held-out loss and accuracy are the means over images, at the end and at the looks."""
    panel = Panel("networks", "digits", horizon=4, tasks={"hidden": [6, 5], "activation": "relu"})
    sample = Sample(Split.VALIDATION, 0, 0, 3)
    tuned = Tuned(TUNED["adam"], 0.05, "constant", 4)
    found = held_out.per_image(tuned, panel, None, sample)
    family = open_for_tuning(panel.problem)
    whole = [curves(run(tuned, family, sample, steps, held_out=True)).held_out for steps in (1, 2, 3, 4)]
    means = [each.losses for each in whole if each]
    assert found.losses.shape == (3, 360)
    torch.testing.assert_close(found.losses.mean(dim=1), means[-1])
    assert whole[-1] is not None
    torch.testing.assert_close(found.right.mean(dim=1), whole[-1].accuracies)
    torch.testing.assert_close(found.area.mean(dim=1), torch.stack(means).mean(dim=0))


def test_intervals_over_tasks_and_images_are_those_of_both() -> None:
    """For losses a_i + b_j the mean is a sum of two means, so its variance is var(a) / n + var(b) / m."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(count, generator=generator, dtype=torch.float64) for count in (120, 300))
    losses = 10 + a[:, None] + b
    low, high = per_image.difference_interval(losses, torch.zeros_like(losses))
    deviation = math.sqrt(float(a.var() / 120 + b.var() / 300))
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    assert (low + high) / 2 == pytest.approx(float(losses.mean()), abs=0.2 * deviation)
    assert per_image.ratio_interval(losses / 4, losses) == pytest.approx((0.25, 0.25))
