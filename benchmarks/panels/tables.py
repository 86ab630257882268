"""The tables of RESULTS.md: in steps, on test images, and in seconds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.panels.catalogue import Panel
from benchmarks.panels.runs import TEST_TASKS, Found
from benchmarks.panels.tier import Entry, best
from models.evaluation.step_costs import StepCosts


@dataclass(frozen=True)
class Measured:
    """A panel: its rules' runs by meta-seed, the tuned tier, Adam untuned, and what steps cost with the names of
    baselines and "learned"."""

    panel: Panel
    rules: Sequence[Found]
    tier: list[Entry]
    untuned: Found
    costs: StepCosts


STEPS_HEAD = (
    "| panel | trained on | best tuned baseline, its mean of the last five steps | ratio, last five / area "
    "| last five, each seed | ratio of medians | tasks won | asked for |",
    "|---|---|---|---|---|---|---|---|",
)
TEST_HEAD = (
    "| panel | trained on | learned: loss, accuracy | best tuned for training loss | Adam 0.001 "
    "| ratio to tuned, each seed |",
    "|---|---|---|---|---|---|",
)
LEFT_OUT_HEAD = ("| left out | ratio, last five / area | last five, each seed |", "|---|---|---|")
SECONDS_HEAD = (
    "| panel | trained on | gradient, ms | learned's own step, ms | best baseline's in seconds, its own step, ms "
    "| steps in its time | ratio, last five / area |",
    "|---|---|---|---|---|---|---|",
)


def in_steps(measured: Measured) -> str:
    """A line of the table after equal steps."""
    panel, rules = measured.panel, measured.rules
    final, area = (best(measured.tier, criterion) for criterion in ("final", "area"))
    ends = [ratio(rule.final, final.found.final) for rule in rules]
    areas = [ratio(rule.area, area.found.area) for rule in rules]
    medians = [float(rule.final.median() / final.found.final.median()) for rule in rules]
    won = [float((rule.final < final.found.final).double().mean()) for rule in rules]
    each = " ".join(end + _diverged(rule) for end, rule in zip(map(_number, ends), rules, strict=True))
    return (
        f"| {panel.name} | {panel.training} | {final.label}: {final.score:.4g} "
        f"| **{_median(ends)} / {_median(areas)}** | {each} | {_median(medians)} "
        f"| {100 * statistics.median(won):.0f} % | {panel.gate} |"
    )


def left_out(measured: Measured) -> str:
    """A line of the table of ingredients."""
    final, area = (best(measured.tier, criterion) for criterion in ("final", "area"))
    ends = [ratio(rule.final, final.found.final) for rule in measured.rules]
    areas = [ratio(rule.area, area.found.area) for rule in measured.rules]
    return f"| {measured.panel.left_out} | {_median(ends)} / {_median(areas)} | {' '.join(map(_number, ends))} |"


def on_test_images(measured: Measured) -> str:
    """A line of the table of losses and accuracies on test images, after the last step."""
    panel, tuned = measured.panel, best(measured.tier, "final")
    ratios = [ratio(rule.test_losses, tuned.found.test_losses) for rule in measured.rules]
    middle = sorted(measured.rules, key=lambda rule: float(rule.test_losses.mean()))[(len(measured.rules) - 1) // 2]
    return (
        f"| {panel.name} | {panel.training} | {_test(middle)} | {_test(tuned.found)} | {_test(measured.untuned)} "
        f"| {' '.join(map(_number, ratios))} |"
    )


def in_seconds(measured: Measured) -> str:
    """A line of the table in equal time: each rule makes as many steps as fit into the baseline's time, never more than
    the horizon. The baseline is the one against which it then looks worst."""
    panel, costs = measured.panel, measured.costs
    ratios: dict[str, float] = {}
    told: dict[str, tuple[Entry, int]] = {}
    for criterion in ("final", "area"):
        for entry in measured.tier:
            if entry.criterion != criterion:
                continue
            steps = costs.steps_in_time_of("learned", entry.tuned.baseline.name, panel.horizon)[0]
            theirs = entry.found.final if criterion == "final" else entry.found.area
            found = statistics.median(ratio(_until(rule, steps, criterion), theirs) for rule in measured.rules)
            if found > ratios.get(criterion, 0.0):
                ratios[criterion], told[criterion] = found, (entry, steps)
    entry, steps = told["final"]
    own = {name: 1000 * each.median for name, each in costs.optimizers.items()}
    return (
        f"| {panel.name} | {panel.training} | {1000 * costs.gradient.median:.3f} | {own['learned']:.3f} "
        f"| {entry.label}: {own[entry.tuned.baseline.name]:.3f} | {steps} of {panel.horizon} "
        f"| {_number(ratios['final'])} / {_number(ratios['area'])} |"
    )


def ratio(learned: torch.Tensor, baseline: torch.Tensor) -> float:
    """The ratio of means over tasks; infinite where the learned one is and the baseline is not."""
    return float(learned.double().mean() / baseline.double().mean())


def _until(rule: Found, steps: int, criterion: str) -> torch.Tensor:
    losses = rule.losses[1 : steps + 1].double()
    return (losses[-5:] if criterion == "final" else losses).mean(dim=0).nan_to_num(nan=torch.inf)


def _diverged(rule: Found) -> str:
    lost = int((~rule.final.isfinite()).sum())
    return f" ({lost} of {TEST_TASKS} diverged)" if lost else ""


def _test(found: Found) -> str:
    return f"{float(found.test_losses.mean()):.3f}, {100 * float(found.accuracies.mean()):.1f} %"


def _number(found: float) -> str:
    return f"{found:.3f}"


def _median(numbers: Sequence[float]) -> str:
    return _number(statistics.median(numbers))
