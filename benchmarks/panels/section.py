"""The panels' section of RESULTS.md."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.learned_vs_tuned import measure
from benchmarks.learned_vs_tuned.report import machine
from benchmarks.panels import held_out, tables
from benchmarks.panels.catalogue import PANELS, Panel
from benchmarks.panels.runs import TEST_TASKS
from benchmarks.panels.tier import HOPELESS, SCHEDULES
from models.baselines import DEFAULT_TUNED

FEW = "16 tasks; for 1,000 steps 4"


def lines(
    found: Sequence[tables.Measured],
    unseen: Sequence[str],
    rules: dict[str, list[measure.Trained]],
    command: str,
    panels: Sequence[Panel],
) -> list[str]:
    """The section. unseen: the lines of panels on held-out data; panels: all that were measured"""
    seconds = "; ".join(f"{name}: {_spent(each)}" for name, each in rules.items())
    lacking = [each for each in found if each.panel.left_out]
    found = [each for each in found if not each.panel.left_out]
    with_images = [each for each in found if len(each.untuned.test_losses)]
    told = {panel.name: panel for panel in panels if panel.on == "training"}
    return [
        "## Panels: learned against the whole tuned tier",
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {machine()}.",
        "",
        f"{TEST_TASKS} test tasks; baselines {', '.join(DEFAULT_TUNED)}, on networks muon and soap too, each tuned "
        f"on validation tasks of the panel's own problem{_budgets(told)} over {', '.join(SCHEDULES)}. Those with a "
        f"tuned mean up to {HOPELESS} times the best one's run on the test tasks. Meta-seeds, and core-seconds of "
        f"meta-training for the median seed: {seconds}.",
        *_table("", tables.STEPS_HEAD, map(tables.in_steps, found)),
        *_table(
            "On test images, after the last step. All were trained and tuned for training loss.",
            tables.TEST_HEAD,
            map(tables.on_test_images, with_images),
        ),
        *_table(
            "The held-out objective: what counts is the loss on test images, at the end and at ten points. "
            f"Rules were trained with `on: held_out`, baselines tuned for the loss on validation images ({FEW}). "
            "Brackets are 95 % intervals over tasks and images, of the seed in the middle.",
            held_out.HEAD,
            unseen,
        ),
        *_table(
            "Ingredients left out, one at a time; the same tasks, steps and recipe otherwise.",
            tables.LEFT_OUT_HEAD,
            map(tables.left_out, lacking),
        ),
        *_table(
            "In equal time: each optimizer's own step on one task is counted, beside that task's gradient; each is the "
            "least of 15 medians of 15 rounds. The learned optimizer makes as many steps as fit, never more than the "
            "horizon.",
            tables.SECONDS_HEAD,
            map(tables.in_seconds, found),
        ),
        *_not_measured(panels),
    ]


def _table(title: str, head: Sequence[str], rows: Iterable[str]) -> list[str]:
    """A table below its title; nothing where it would have no rows."""
    lines = list(rows)
    return ["", *([title, ""] if title else []), *head, *lines] if lines else []


def _not_measured(panels: Sequence[Panel]) -> list[str]:
    """What the catalogue has beside these panels."""
    lacking = [panel for panel in PANELS if panel not in panels]
    if not lacking:
        return []
    told = [f'{each.name}{_detail(each)} by "{each.training}"' for each in lacking]
    return ["", f"Not measured here: {'; '.join(told)}."]


def _detail(panel: Panel) -> str:
    if panel.left_out:
        return f" without {panel.left_out}" if not panel.left_out.startswith("nothing") else f" ({panel.left_out})"
    return " (held out)" if panel.on == "held_out" else ""


def _budgets(panels: dict[str, Panel]) -> str:
    """How many tasks baselines were tuned on, and where by halving. panels: by name"""
    counts = sorted({panel.tuning_tasks for panel in panels.values()}, reverse=True)
    told = [f"{n} tasks" if n == counts[0] else f"{n} for {_named(panels, tuning_tasks=n)}" for n in counts]
    halved = _named(panels, halving=True)
    told += [f"by successive halving for {halved}"] if halved else []
    return f" ({', '.join(told)})" if told else ""


def _named(panels: dict[str, Panel], **has: object) -> str:
    """The names of the panels that have these settings."""
    return "; ".join(n for n, panel in panels.items() if all(getattr(panel, key) == has[key] for key in has))


def _spent(rules: Sequence[measure.Trained]) -> str:
    """How many meta-seeds, and the median of their core-seconds."""
    seconds: list[Any] = [rule.summary["core_seconds"] for rule in rules]
    return f"{len(rules)}, {statistics.median(seconds):.0f} s"
