"""The parts of a report that count time: equal seconds, time to target, break-even. Results before format 3 have
none of them."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from app.report.claims import break_even_sentence, validation_sentence
from app.report.html import Markup, table
from app.report.words import METRICS, NOTHING, WHERE, interval, number, ordered, percent, seconds, shown


def validation_section(result: Mapping[str, Any]) -> str:
    sentence = validation_sentence(result)
    return "" if sentence is None else f"<h2>By validation</h2><p>{escape(sentence)}</p>"


def break_even_section(result: Mapping[str, Any]) -> str:
    sentence = break_even_sentence(result)
    return "" if sentence is None else f"<h2>Break-even</h2><p>{escape(sentence)}</p>"


def equal_time_section(result: Mapping[str, Any]) -> str:
    """A table of what a step with each optimizer costs, and of what the learned one reaches in the same time."""
    timed = result.get("seconds")
    if timed is None:
        return ""
    rows = []
    for name in ordered(timed["step"]):
        own, against = timed["step"][name], timed["comparisons"].get(name)
        row = [
            shown(result, name, "final"),
            seconds(own["median"]),
            f"{seconds(own['low'])} to {seconds(own['high'])}",
            seconds(timed["run"][name]),
        ]
        if against is None:
            row += [NOTHING] * 3
        else:
            made = against["learned_steps"]
            row.append(f"{made['median']} ({made['low']} to {made['high']})")
            row += [_judged(against[metric]) for metric in METRICS]
        rows.append(row)
    gradient = timed["gradient"]
    note = (
        f"The gradient of one task ({timed['coordinates']:,} coordinates) takes {seconds(gradient['median'])} "
        f"(quartiles {seconds(gradient['low'])} to {seconds(gradient['high'])}); a step is that and the optimizer's "
        f"own. In the time of a baseline's {result['horizon']} steps the learned optimizer gets the steps that fit, "
        f"and never more than {result['horizon']}. A question mark stands where the noise of the timing could change "
        "the verdict."
    )
    heads = ["optimizer", "own step", "quartiles", f"run of {result['horizon']} steps", "learned steps in that time"]
    return table("In equal time", heads + [f"ratio {WHERE[metric]}" for metric in METRICS], rows, note, ["learned"])


def _judged(found: Mapping[str, Any]) -> Markup:
    doubt = "" if found["certain"] else "?"
    return Markup(
        f"{escape(number(found['ratio_of_means']))} ({escape(interval(found['ratio_interval']))}) "
        f'<span class="{escape(found["verdict"])}">{escape(found["verdict"])}{doubt}</span>'
    )


def time_to_target_section(result: Mapping[str, Any]) -> str:
    """A table of the share of tasks on which each optimizer reaches each target, and its median time."""
    timed = result.get("time_to_target")
    if timed is None:
        return ""
    fixed, setter = timed["targets"], shown(result, timed["baseline"], "final")
    rows = [
        [
            shown(result, name, "final"),
            number(timed["steps"][name]["score"]),
            number(timed["seconds"][name]["score"]),
            *(f"{percent(each['reached'][name])} / {number(each['median_steps'][name])}" for each in fixed),
        ]
        for name in ordered(timed["steps"])
    ]
    note = (
        f"Targets are the median losses that tuned {setter}, the best baseline by its tuning, reached on "
        f"{result['tuning_tasks']} other tasks. Each cell has the share of tasks that reach the target and the median "
        f"number of steps. A score is the mean height of the performance profile over the factors 1 to "
        f"{number(timed['up_to'])}: the share of the {timed['problems']:,} problems (task and target) that are solved "
        "within that factor of the quickest optimizer's time. A miss is never solved."
    )
    heads = ["optimizer", "score in steps", "score in seconds"]
    heads += [f"{number(each['loss'])} ({setter} at step {each['step']})" for each in fixed]
    return table("Time to target", heads, rows, note, ["learned"])
