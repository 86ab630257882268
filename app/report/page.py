"""An evaluation as one HTML file that needs nothing else: picture, tables and caveats inline."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from app.report.evaluation_figure import evaluation
from app.report.words import (
    LABELS,
    METRICS,
    NOTHING,
    VERB,
    headline,
    interval,
    measured_on,
    number,
    ordered,
    percent,
    rival,
    shown,
    subtitle,
)

# Pages run no script and load nothing; everything that they show is inline.
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #fff; margin: 2rem auto; max-width: 1020px;
  padding: 0 1rem; }
h1 { font-size: 1.45rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.lead { color: #4b5563; margin-top: 0; } svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #e5e7eb; }
th:first-child, td:first-child { text-align: left; } thead th { color: #6b7280; font-weight: 600; }
.wins { color: #047857; font-weight: 600; } .loses { color: #b91c1c; font-weight: 600; } .ties { color: #6b7280; }
tr.learned td { font-weight: 600; } caption { text-align: left; color: #6b7280; padding: .3rem 0; }
.scroll { overflow-x: auto; } code { background: #f3f4f6; padding: 0 .25rem; border-radius: 3px; }
"""


class Markup(str):
    """HTML that is escaped already."""


def evaluation_page(result: Mapping[str, Any], *, job: str, optimizer: str) -> str:
    picture = inline(evaluation(result, image_format="svg", titled=False))
    title = headline(result)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(subtitle(result))}. Optimizer <code>{escape(optimizer)}</code>, '
        f"job <code>{escape(job)}</code>.</p>",
        f'<figure role="img" aria-label="{escape(title)}: {escape(subtitle(result))}">{picture}</figure>',
        *(_comparison_section(result, metric) for metric in METRICS),
        loss_section(result, f"{result['test_tasks']} held-out tasks"),
        _held_out_section(result),
        tuning_section(result),
        _caveats(result),
    ]
    return document(title, parts)


def inline(svg: bytes) -> Markup:
    """A picture inside a page, where an XML prologue has no place."""
    return Markup(re.sub(r"^.*?(?=<svg)", "", svg.decode(), flags=re.DOTALL))


def document(title: str, parts: Iterable[str]) -> str:
    """A page that needs nothing else. parts: HTML"""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _comparison_section(result: Mapping[str, Any], metric: str) -> str:
    comparisons = result["comparisons"]
    rows = []
    for name in [*_tuned(result), "best_baseline", *_untuned(result)]:
        found = comparisons[name][metric]
        label = f"best tuned: {rival(found)}" if name == "best_baseline" else shown(result, name, metric)
        rows.append(
            [
                label,
                number(found["ratio_of_means"]),
                interval(found["ratio_interval"]),
                number(found["ratio_of_medians"]),
                percent(found["share_won"]),
                interval(found["difference_interval"]),
                Markup(f'<span class="{escape(found["verdict"])}">{escape(found["verdict"])}</span>'),
            ]
        )
    heads = [
        "against",
        "ratio of means",
        "95 % interval",
        "ratio of medians",
        "tasks won",
        "difference",
        "verdict",
    ]
    note = "A ratio below 1 favours the learned optimizer; it wins when the whole interval lies below 1."
    if _untuned(result):
        note += " The verdict is against the best tuned baseline; untuned ones ran once, at their published defaults."
    return _table(f"Learned against each baseline: {METRICS[metric]}", heads, rows, note)


def _tuned(result: Mapping[str, Any]) -> list[str]:
    """The baselines that the verdict is against. Results of formats 1 and 2 have no others."""
    return [name for name in ordered(result["comparisons"]) if name not in ("best_baseline", *_untuned(result))]


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
    heads = ["optimizer", "mean at last step", "95 %", "median", "middle 80 %", "mean of curve", "95 %", "diverged"]
    return _table(f"Losses on {tasks}", heads, rows, classes=["learned"] if "learned" in result["optimizers"] else [])


def _held_out_section(result: Mapping[str, Any]) -> str:
    held_out = result.get("held_out")
    if not held_out:
        return ""
    rows = [
        [LABELS.get(name, name), number(held_out[name]["loss"]), percent(held_out[name]["accuracy"])]
        for name in ordered(held_out)
    ]
    return _table("On test images, after the last step", ["optimizer", "loss", "accuracy"], rows, classes=["learned"])


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
        "for the last step",
        "for the curve",
        "runs",
        "rates tried",
        "runs that diverged",
    ]
    note = (
        f"Learning rates and schedules, tuned on {result['tuning_tasks']} validation tasks per run. Every baseline had "
        "the same number of runs: a coarse grid that grows while its optimum is at an edge and is refined around it."
    )
    return _table("How the baselines were tuned", heads, rows, note)


def _caveats(result: Mapping[str, Any]) -> str:
    evaluations, runtime = result.get("cost", {}), result.get("runtime", {})
    counted = evaluations.get("gradient_evaluations", {})
    lines = [
        f"These results hold for tasks of <code>{escape(measured_on(result))}</code> over {result['horizon']} steps "
        f"(seed {result['seed']}). They say nothing about other tasks or longer runs.",
        "The losses do not include the cost of tuning the baselines or of meta-training.",
        "A few hard tasks can dominate the mean; check the ratio of medians and the share of tasks won as well.",
        f"Cost of this evaluation: {number(evaluations.get('seconds'))} s, "
        f"{counted.get('tuning', 0):,} gradients for tuning and {counted.get('test', 0):,} for the test.",
        f"torch {escape(str(runtime.get('torch', NOTHING)))} on {escape(str(runtime.get('device', NOTHING)))}, "
        f"{escape(str(runtime.get('threads', NOTHING)))} thread(s).",
    ]
    return "<h2>Limitations</h2><ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def _table(
    title: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    note: str = "",
    classes: Sequence[str] = (),
) -> str:
    """`classes` names the class of each row, from the first on."""
    body = ""
    for position, row in enumerate(rows):
        style = f' class="{classes[position]}"' if position < len(classes) else ""
        cells = "".join(f"<td>{cell if isinstance(cell, Markup) else escape(cell)}</td>" for cell in row)
        body += f"<tr{style}>{cells}</tr>"
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heads)
    caption = f"<caption>{escape(note)}</caption>" if note else ""
    return (
        f'<h2>{escape(title)}</h2><div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def verdict_sentence(found: Mapping[str, Any], metric: str) -> str:
    """`beats tuned Adam, the best baseline: its loss at the last step is 0.31 times Adam's (95 % interval ...`."""
    name = rival(found)
    return (
        f"{VERB[found['verdict']]} tuned {name}, the best baseline: its {METRICS[metric]} is "
        f"{number(found['ratio_of_means'])} times {name}'s (95 % interval {interval(found['ratio_interval'])}), and it "
        f"is better on {percent(found['share_won'])} of the tasks"
    )
