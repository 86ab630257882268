"""The family's section of RESULTS.md: a row for every seed, and every optimizer's own losses."""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.core.machine import described
from benchmarks.learned_vs_tuned.measure import NAMES, Row
from models.curves import Curves
from models.spec import FamilySpec
from models.tuning import GridPoint, Tuning


def marks(family: str) -> tuple[str, str]:
    """What its section of RESULTS.md stands between."""
    return f"<!-- learned_vs_tuned: {family} -->", f"<!-- end of learned_vs_tuned: {family} -->"


def lines(
    family: FamilySpec,
    rows: list[Row],
    tunings: dict[str, Tuning],
    baselines: dict[str, dict[str, Curves]],
    command: str,
) -> list[str]:
    """The section, as Markdown. command: what was asked for."""
    plan = family.evaluation
    backends = {row.trained.summary["runtime"]["backend"] for row in rows}
    worst = max(row.final.ratio_of_means for row in rows)
    worst_area = max(row.area.ratio_of_means for row in rows)
    best = min(baselines, key=lambda name: float(baselines[name]["final"].final.mean()))
    best_area = min(baselines, key=lambda name: float(baselines[name]["area"].area.mean()))
    text = [
        f"## {family.title}: learned against tuned, every seed",
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {machine()}, backend {', '.join(sorted(backends))}.",
        "",
        f"{plan.test_tasks} held-out tasks, horizon {plan.horizon}. Ratios are learned / best tuned baseline "
        f"({NAMES[best]} at the last step, {NAMES[best_area]} over the area), below 1 the learned optimizer is better; "
        f"brackets are paired bootstrap 95 % intervals. The worst of {len(rows)} seeds: {worst:.3f} at the last step, "
        f"{worst_area:.3f} over the area.",
        "",
        "| meta-seed | last step, ratio of means | ratio of medians | tasks won | difference of means "
        "| area, ratio of means | tasks won | verdicts | best meta-step | core-seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        final, area = row.final, row.area
        text.append(
            f"| {row.trained.seed} | {final.ratio_of_means:.3f} {_brackets(final.ratio_interval)} "
            f"| {final.ratio_of_medians:.2f} | {100 * final.share_won:.0f} % "
            f"| {_brackets(final.difference_interval)} "
            f"| {area.ratio_of_means:.3f} {_brackets(area.ratio_interval)} | {100 * area.share_won:.0f} % "
            f"| {final.verdict}, {area.verdict} "
            f"| {row.trained.summary['best_step']} of {row.trained.summary['meta_steps']}"
            f"{_restarts(row.trained.summary)} | {row.trained.summary['core_seconds']:.0f} |"
        )
    text += [
        "",
        "| optimizer | learning rate and schedule (last step / area) | runs | last step: mean, median | area: mean |",
    ]
    text += ["|---|---|---|---|---|"]
    for name, tuning in tunings.items():
        final_losses, area_losses = baselines[name]["final"].final, baselines[name]["area"].area
        text.append(
            f"| {NAMES[name]} | {_pair(tuning.best_final)} / {_pair(tuning.best_area)} "
            f"| {len(tuning.points)} | {float(final_losses.mean()):.4g}, {float(final_losses.median()):.4g} "
            f"| {float(area_losses.mean()):.4g} |{_held_out(baselines[name]['final'])}"
        )
    for row in rows:
        text.append(
            f"| learned, seed {row.trained.seed} | | | {float(row.curves.final.mean()):.4g}, "
            f"{float(row.curves.final.median()):.4g} | {float(row.curves.area.mean()):.4g} |{_held_out(row.curves)}"
        )
    if rows[0].curves.held_out is not None:
        text[-len(rows) - len(tunings) - 2] += " test images: loss, accuracy |"
        text[-len(rows) - len(tunings) - 1] += "---|"
    return [*text, "", f"![{family.title}](../docs/images/{family.name}.png)"]


def _pair(point: GridPoint) -> str:
    return f"{point.learning_rate:.3g} {point.schedule}"


def _held_out(found: Curves) -> str:
    if found.held_out is None:
        return ""
    return f" {float(found.held_out.losses.mean()):.4g}, {100 * float(found.held_out.accuracies.mean()):.1f} % |"


def _restarts(summary: dict[str, Any]) -> str:
    return f", restarted at {summary['restarts']}" if summary["restarts"] else ""


def _brackets(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.3g}, {interval[1]:.3g}]"


def machine() -> str:
    machine = described()
    return (
        f"commit {machine['commit']}, {machine['cores']} cores ({machine['processor']}, {machine['flags']}, shared), "
        f"{torch.get_num_threads()} thread, torch {machine['torch']}, Python {machine['python']}"
    )
