"""An evaluation as one HTML file that needs nothing else: picture, tables and caveats inline."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from app.report.evaluation_figure import evaluation
from app.report.family import family_section
from app.report.html import Markup, document, inline, table
from app.report.time_sections import break_even_section, equal_time_section, time_to_target_section, validation_section
from app.report.words import (
    LABELS,
    METRICS,
    NOTHING,
    WHERE,
    headline,
    interval,
    meaning,
    measured_on,
    number,
    on_held_out,
    ordered,
    percent,
    rival,
    shown,
    subtitle,
)


def evaluation_page(result: Mapping[str, Any], *, job: str, optimizer: str) -> str:
    picture = inline(evaluation(result, image_format="svg", titled=False))
    title = headline(result)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(subtitle(result))}. Optimizer <code>{escape(optimizer)}</code>, '
        f"job <code>{escape(job)}</code>.{_updates(result, optimizer)}</p>",
        f'<figure role="img" aria-label="{escape(title)}: {escape(subtitle(result))}">{picture}</figure>',
        verdict_section(result),
        validation_section(result),
        break_even_section(result),
        equal_time_section(result),
        family_section(result),
        time_to_target_section(result),
        *(_comparison_section(result, metric) for metric in METRICS),
        loss_section(result, f"{result['test_tasks']} held-out tasks"),
        _held_out_section(result),
        tuning_section(result),
        _caveats(result),
    ]
    return document(title, parts)


def _updates(result: Mapping[str, Any], optimizer: str) -> Markup:
    """Where its updates are shown. Evaluations of older versions have none."""
    address = f"/optimizers/{escape(optimizer)}/anatomy.svg"
    return Markup(f' <a href="{address}">Its updates beside those of others</a>.' if "anatomy" in result else "")


def verdict_section(result: Mapping[str, Any]) -> str:
    """A table of the verdicts against the best tuned baseline: after equal steps and, where measured, in equal time."""
    judged = {"after equal steps": result["comparisons"]["best_baseline"]}
    if "seconds" in result:
        judged["in equal time"] = result["seconds"]["comparisons"]["best_baseline"]
    rows = [
        [f"{budget}, {WHERE[metric]}", shown(result, found["baseline"], metric), *_compared(found)]
        for budget, best in judged.items()
        for metric in METRICS
        for found in [best[metric]]
    ]
    note = (
        "A ratio below 1 favours the learned optimizer; it wins when the whole interval lies below 1. Intervals are "
        "paired bootstrap intervals over tasks."
    )
    return table("The verdict against the best tuned baseline", ["compared", "baseline", *_COMPARED], rows, note)


_COMPARED = ("ratio of means", "95 %", "ratio of medians", "95 %", "tasks won", "verdict", "by medians")


def _compared(found: Mapping[str, Any]) -> list[str]:
    """The cells under `_COMPARED`. Results before format 3 have no interval of medians."""
    doubt = "" if found.get("certain", True) else " (within the noise of the timing)"
    return [
        number(found["ratio_of_means"]),
        interval(found["ratio_interval"]),
        number(found["ratio_of_medians"]),
        interval(found.get("medians_interval")),
        percent(found["share_won"]),
        Markup(f"{_verdict(found['verdict'])}{escape(doubt)}"),
        _verdict(found["medians_verdict"]) if "medians_verdict" in found else NOTHING,
    ]


def _verdict(verdict: str) -> Markup:
    return Markup(f'<span class="{escape(verdict)}">{escape(verdict)}</span>')


def _comparison_section(result: Mapping[str, Any], metric: str) -> str:
    comparisons = result["comparisons"]
    rows = []
    for name in [*_tuned(result), "best_baseline", *_family(result), *_untuned(result)]:
        found = comparisons[name][metric]
        label = f"best tuned: {rival(found)}" if name == "best_baseline" else shown(result, name, metric)
        rows.append([label, *_compared(found), interval(found["difference_interval"])])
    note = ""
    if _untuned(result):
        note = "The verdict is against the best tuned baseline; untuned ones ran once, at their published defaults."
    heads = ["against", *_COMPARED, "difference"]
    return table(f"Learned against each baseline, after equal steps: {meaning(result, metric)}", heads, rows, note)


def _tuned(result: Mapping[str, Any]) -> list[str]:
    """The baselines that the verdict is against. Results of formats 1 and 2 have no others."""
    others = ("best_baseline", *_untuned(result), *_family(result))
    return [name for name in ordered(result["comparisons"]) if name not in others]


def _family(result: Mapping[str, Any]) -> list[str]:
    return ordered(dict.fromkeys(result.get("tiers", {}).get("family", ())))


def _untuned(result: Mapping[str, Any]) -> list[str]:
    return ordered(dict.fromkeys(result.get("tiers", {}).get("untuned", ())))


def loss_section(result: Mapping[str, Any], tasks: str) -> str:
    """A table of every optimizer's losses. tasks: how many there were, and which"""
    rows = []
    for name in ordered(result["optimizers"]):
        measured = result["optimizers"][name]
        final, area = measured["final"], measured["area"]
        rows.append(
            [
                LABELS.get(name, name),
                number(final["mean"]),
                interval(final["interval"]),
                number(final["median"]),
                f"{number(final['q10'])} to {number(final['q90'])}",
                number(area["mean"]),
                interval(area["interval"]),
                str(measured.get("diverged", 0)),
            ]
        )
    heads = ["optimizer", "mean at the end", "95 %", "median", "middle 80 %", "mean of curve", "95 %", "diverged"]
    note = f"At the end: {meaning(result, 'final')}. Of the curve: {meaning(result, 'area')}."
    classes = ["learned"] if "learned" in result["optimizers"] else []
    return table(f"Losses on {tasks}", heads, rows, note, classes)


def _held_out_section(result: Mapping[str, Any]) -> str:
    held_out = result.get("held_out")
    if not held_out:
        return ""
    rows = [
        [LABELS.get(name, name), number(held_out[name]["loss"]), percent(held_out[name]["accuracy"])]
        for name in ordered(held_out)
    ]
    return table("On test images, after the last step", ["optimizer", "loss", "accuracy"], rows, classes=["learned"])


def tuning_section(result: Mapping[str, Any]) -> str:
    """A table of the learning rates that were tried and chosen."""
    rows = []
    for name in ordered(result["tuning"]):
        tuned = result["tuning"][name]
        rates, grid = tuned["learning_rate"], [point["learning_rate"] for point in tuned["grid"]]
        schedules = tuned.get("schedule", dict.fromkeys(METRICS, "constant"))
        span = f"{number(min(grid))} to {number(max(grid))}" if grid else NOTHING
        diverged = str(sum(1 for point in tuned["grid"] if point.get("diverged")))
        rows.append(
            [
                LABELS.get(name, name),
                f"{number(rates['final'])}, {schedules['final']}",
                f"{number(rates['area'])}, {schedules['area']}",
                str(tuned["runs"]),
                span,
                str(diverged),
            ]
        )
    heads = [
        "baseline",
        "for the end",
        "for the curve",
        "runs",
        "rates tried",
        "runs that diverged",
    ]
    note = (
        f"Learning rates and schedules, tuned on {result['tuning_tasks']} validation tasks per run, for their "
        f"{'loss on validation images' if on_held_out(result) else 'training loss'}. Every baseline had "
        "the same number of runs: a coarse grid that grows while its optimum is at an edge and is refined around it."
    )
    return table("How the baselines were tuned", heads, rows, note)


def _taught(result: Mapping[str, Any]) -> str:
    """The gradients that the family tier's trainings took, stored ones included."""
    tier = result.get("family_tier")
    if tier is None:
        return ""
    gradients = tier["schedule"]["gradient_evaluations"] + tier["start"].get("gradients", 0)
    return f"; {gradients:,} for the family tier's trainings, where they were not stored"


def _caveats(result: Mapping[str, Any]) -> str:
    evaluations, runtime = result.get("cost", {}), result.get("runtime", {})
    counted = evaluations.get("gradient_evaluations", {})
    lines = [
        f"These results hold for tasks of <code>{escape(measured_on(result))}</code> over {result['horizon']} steps "
        f"(seed {result['seed']}). They say nothing about other tasks or longer runs.",
        "The losses do not include the cost of tuning the baselines or of meta-training; the break-even does.",
        "Seconds are facts of the machine below, and of one task at a time.",
        "A few hard tasks can dominate the mean; check the ratio of medians and the share of tasks won as well.",
        f"Cost of this evaluation: {number(evaluations.get('seconds'))} s, "
        f"{counted.get('tuning', 0):,} gradients for tuning and {counted.get('test', 0):,} for the test"
        f"{_taught(result)}.",
        f"torch {escape(str(runtime.get('torch', NOTHING)))} on {escape(str(runtime.get('device', NOTHING)))}, "
        f"{escape(str(runtime.get('threads', NOTHING)))} thread(s).",
    ]
    return "<h2>Limitations</h2><ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"
