"""The numbers of an experiment as Markdown tables. None of them is adjusted, and each seed is there."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.report.words import LABELS, number, percent, seconds
from benchmarks.reproduce.experiments import Experiment, Panel

Json = Mapping[str, Any]


def ratio(row: Json, criterion: str) -> float:
    """Learned over the best tuned baseline; infinity where the learned optimizer diverged."""
    found = row["best_baseline"][criterion]["ratio_of_means"]
    return math.inf if found is None else float(found)


def variants(panel: Json) -> dict[str, list[Json]]:
    """The rows of each variant, in the order of their seeds."""
    found: dict[str, list[Json]] = {}
    for row in panel["rows"]:
        found.setdefault(row["variant"], []).append(row)
    return found


def median_of(rows: Sequence[Json], criterion: str) -> float:
    """The median seed's ratio."""
    return statistics.median(ratio(row, criterion) for row in rows)


def ratios(experiment: Experiment, found: Json) -> list[str]:
    """Learned against tuned: a line for each variant on each panel."""
    lines = [
        "| panel | variant | last five steps, median of seeds | each seed, with its 95 % interval | ratio of medians "
        "| tasks won | area | verdicts | the paper |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    late, chosen = found["opening"]["late"], found["opening"]["chosen"]
    for panel, measured in _measured(experiment, found):
        best = {name: measured["rows"][0]["best_baseline"][name]["baseline"] for name in ("final", "area")}
        other = "" if best["area"] == best["final"] else f" of {LABELS[best['area']]}"
        for name, rows in variants(measured).items():
            final = [row["best_baseline"]["final"] for row in rows]
            shown = f"**{name}**" if name == chosen else name
            shown += " (named after the test was opened)" if name in late else ""
            each = ", ".join(f"{_ratio(ratio(row, 'final'))} {_interval(row)}" for row in rows)
            won = statistics.median(row["share_won"] for row in final)
            medians = statistics.median(_number(row["ratio_of_medians"]) for row in final)
            lines.append(
                f"| {panel.name}, against {LABELS[best['final']]} | {shown} | {_ratio(median_of(rows, 'final'))} "
                f"| {each} | {_ratio(medians)} | {percent(won)} | {_ratio(median_of(rows, 'area'))}{other} "
                f"| {_verdicts(final)} | {panel.found} |"
            )
    return lines


def against_the_papers(experiment: Experiment, found: Json) -> list[str]:
    """Learned against the best baseline that the paper has too, where that is another one than the best of all."""
    lines = [
        "| panel | variant | last five steps, median of seeds | each seed, with its 95 % interval | verdicts "
        "| the paper |",
        "|---|---|---|---|---|---|",
    ]
    for panel, measured in _measured(experiment, found):
        for name, rows in variants(measured).items():
            told = [row["papers_baseline"] for row in rows if "papers_baseline" in row]
            if not told or told[0]["baseline"] == rows[0]["best_baseline"]["final"]["baseline"]:
                continue
            each = ", ".join(f"{_ratio(_number(one['ratio_of_means']))} {_ends(one)}" for one in told)
            median = statistics.median(_number(one["ratio_of_means"]) for one in told)
            lines.append(
                f"| {panel.name}, against {LABELS[told[0]['baseline']]} | {name} | {_ratio(median)} | {each} "
                f"| {_verdicts(told)} | {panel.found} |"
            )
    return lines if len(lines) > 2 else []


def against(experiment: Experiment, found: Json) -> list[str]:
    """One variant against another on the same tasks; nothing where no two were to be compared."""
    lines = [
        "| panel | variant | against | last five steps, median of seeds | each seed, with its 95 % interval | verdicts "
        "| area, median of seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for panel, measured in _measured(experiment, found):
        pairs: dict[tuple[str, str], list[Json]] = {}
        for row in measured.get("against", ()):
            pairs.setdefault((row["variant"], row["other"]), []).append(row)
        for (variant, other), rows in pairs.items():
            final, area = ([row[criterion] for row in rows] for criterion in ("final", "area"))
            medians = [statistics.median(_number(each["ratio_of_means"]) for each in of) for of in (final, area)]
            seeds = ", ".join(f"{_ratio(_number(each['ratio_of_means']))} {_ends(each)}" for each in final)
            lines.append(
                f"| {panel.name} | {variant} | {other} | {_ratio(medians[0])} | {seeds} | {_verdicts(final)} "
                f"| {_ratio(medians[1])} |"
            )
    return lines if len(lines) > 2 else []


def targets(experiment: Experiment, found: Json) -> list[str]:
    """What was asked of ours, and by how much it was reached or missed."""
    lines = []
    for panel, measured in _measured(experiment, found):
        chosen = str(found["opening"]["chosen"])
        rows = variants(measured).get(chosen, [])
        if not rows or (panel.aim is None and not panel.wins):
            continue
        median = median_of(rows, "final")
        bounds = {"at least": panel.least, "aim": panel.aim}
        parts = [f"{word} {bound:g}: {_reached(median, bound)}" for word, bound in bounds.items() if bound]
        if panel.wins:
            final = [row["best_baseline"]["final"] for row in rows]
            whole = all(each["verdict"] == "wins" for each in final)
            parts.append(f"aim, each seed wins: {'reached' if whole else f'missed ({_verdicts(final)})'}")
        said = "; ".join(parts)
        line = f"- {panel.name}, {chosen}: {_ratio(median)}. {said[0].upper() + said[1:]}."
        if panel.area is not None:
            area = median_of(rows, "area")
            line += f" Area {_ratio(area)}; at most {panel.area:g}: {_reached(area, panel.area)}."
        lines.append(line)
    return lines


def choice(found: Json) -> list[str]:
    """Validation scores, which decided what ours is, and what trainings cost."""
    lines = [
        "| variant | rule, meta-gradient | validation score of each seed | meta-steps: best of run "
        "| seconds: training + selection | gradient evaluations: training + selection |",
        "|---|---|---|---|---|---|",
    ]
    grouped: dict[str, list[Json]] = {}
    for training in found["trainings"]:
        grouped.setdefault(training["variant"], []).append(training)
    for name, rows in grouped.items():
        done = [row for row in rows if "cost" in row]
        scores = ", ".join(number(row["score"]) if row["score"] is not None else str(row["status"]) for row in rows)
        chosen = " (ours)" if name == found["opening"]["chosen"] else ""
        if not done:
            lines.append(f"| {name} | | {scores} | | | |")
            continue
        cost = {
            key: [statistics.median(row["cost"][part][key] for row in done) for part in ("training", "selection")]
            for key in ("seconds", "gradient_evaluations")
        }
        steps = ", ".join(f"{row['best_step']} of {row['meta_steps']}" for row in done)
        lines.append(
            f"| {name}{chosen} | {done[0]['rule']}, {done[0]['meta_gradient']} | {scores} | {steps} "
            f"| {' + '.join(map(seconds, cost['seconds']))} "
            f"| {' + '.join(f'{value:,.0f}' for value in cost['gradient_evaluations'])} |"
        )
    return lines


def tuning(experiment: Experiment, found: Json) -> list[str]:
    """What tuning the baselines cost, beside the runs after which each variant has paid for its training."""
    lines = [
        "| panel | gradient evaluations of tuning all baselines | seconds of the evaluation that tuned them "
        "| break-even of each variant, runs: median of seeds |",
        "|---|---|---|---|",
    ]
    for panel, measured in _measured(experiment, found):
        paid = "; ".join(f"{name}: {_break_even(rows)}" for name, rows in variants(measured).items())
        cost = measured["tuning"]
        lines.append(f"| {panel.name} | {cost['gradient_evaluations']:,.0f} | {seconds(cost['seconds'])} | {paid} |")
    return lines


def in_seconds(experiment: Experiment, found: Json) -> list[str]:
    """One run in seconds, and the comparison at equal time."""
    lines = [
        "| panel | variant | seconds of its run | of the best baseline's | steps in that time "
        "| ratio at equal time, median of seeds | verdicts |",
        "|---|---|---|---|---|---|---|",
    ]
    for panel, measured in _measured(experiment, found):
        for name, rows in variants(measured).items():
            timed = [row["equal_time"] for row in rows]
            best = measured["baselines"][timed[0]["baseline"]]["seconds"]
            found_ratios = statistics.median(_number(each["ratio_of_means"]) for each in timed)
            made = statistics.median(each["steps"] for each in timed)
            lines.append(
                f"| {panel.name} | {name} | {seconds(statistics.median(row['seconds'] for row in rows))} "
                f"| {seconds(best)} | {made:g} of {measured['horizon']} | {_ratio(found_ratios)} | {_verdicts(timed)} |"
            )
    return lines


def baselines(experiment: Experiment, found: Json) -> list[str]:
    """Each baseline's tuned learning rate and schedule, and what it came to."""
    lines = [
        "| panel | baseline | for the last steps | for the area | runs | last five: mean, median | area: mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for panel, measured in _measured(experiment, found):
        for name, each in measured["baselines"].items():
            tuned = each["tuned"]
            rates = [f"{number(tuned['learning_rate'][key])} {tuned['schedule'][key]}" for key in ("final", "area")]
            edge = f" (at the edge of its grid for {' and '.join(each['edges'])})" if each["edges"] else ""
            final, area = each["final"], each["area"]
            lines.append(
                f"| {panel.name} | {LABELS[name]} | {rates[0]} | {rates[1]}{edge} | {tuned['runs']} "
                f"| {number(final['mean'])}, {number(final['median'])} | {number(area['mean'])} |"
            )
    return lines


def _measured(experiment: Experiment, found: Json) -> Iterable[tuple[Panel, Json]]:
    """The panels that have rows."""
    by_name = {each["panel"]: each for each in found["panels"]}
    for panel in experiment.panels:
        if by_name.get(panel.name, {}).get("rows"):
            yield panel, by_name[panel.name]


def _reached(value: float, bound: float) -> str:
    if value <= bound:
        return "reached"
    percent = 100 * (value / bound - 1)
    return f"missed by {percent:.0f} %" if percent >= 1 else "missed by less than 1 %"


def _break_even(rows: Sequence[Json]) -> str:
    paid = [_number(None if _loses(row) else row["break_even"]) for row in rows]
    middle = statistics.median(paid)
    return f"{middle:,.0f}" if math.isfinite(middle) else "never"


def _loses(row: Json) -> bool:
    """Whether it ends above the baseline: it may pass the baseline's last loss on the way, and nobody who runs it to
    the end gains by that."""
    return bool(row["best_baseline"]["final"]["verdict"] == "loses")


def _verdicts(comparisons: Sequence[Json]) -> str:
    said = [str(each["verdict"]) for each in comparisons]
    return ", ".join(f"{verdict} {said.count(verdict)}" for verdict in dict.fromkeys(sorted(said)))


def _interval(row: Json) -> str:
    return _ends(row["best_baseline"]["final"])


def _ends(comparison: Json) -> str:
    return "[" + ", ".join(_ratio(_number(end)) for end in comparison["ratio_interval"]) + "]"


def _ratio(value: float) -> str:
    return "diverged" if not math.isfinite(value) else f"{value:.3f}" if value < 100 else number(value)


def _number(value: float | None) -> float:
    return math.inf if value is None else float(value)
