"""The family tier of a result in words: the learned schedule, and the learned starting point. None where there is no
such tier."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from app.report.html import table
from app.report.words import LABELS, METRICS, WHERE, interval, number, percent, seconds

_NOT_TAKEN = {
    "no_network": "the measured optimizer is no network, so `best` is left as it is",
    "other_criterion": "`best` is left as it is, for the two were not validated by one criterion on the family's own "
    "tasks",
    "tuned_is_better": "`best` does not take it, for a tuned baseline is better by validation",
}


def schedule_sentence(result: Mapping[str, Any]) -> str | None:
    """Whether a learned schedule does as well as the optimizer, and what `best` makes of it."""
    tier = result.get("family_tier")
    if tier is None:
        return None
    found = tier["schedule"]
    compared = found["fresh_tasks"]
    if compared is None:
        return "No schedule was learned: all trainings of one diverged."
    what = f"a learned schedule of {found['numbers']} numbers on {LABELS[found['direction']]}'s direction"
    ratio = (
        f"the optimizer has {number(compared['ratio_of_means'])} times its score (95 % interval "
        f"{interval(compared['ratio_interval'])}) on {compared['tasks']} fresh validation tasks"
    )
    tested = f"On the test tasks the optimizer {_on_the_test_tasks(result, 'schedule')} against it."
    if not found["as_good"]:
        return f"The optimizer beats {what}: {ratio}. {tested}"
    verb = "ties with" if compared["verdict"] == "ties" else "beats"
    taken = "so `best` takes the schedule" if found["best"] else _NOT_TAKEN[found["why_not"]]
    return f"{what[:1].upper()}{what[1:]} {verb} the optimizer: {ratio}; {taken}. {tested}"


def _on_the_test_tasks(result: Mapping[str, Any], name: str) -> str:
    """`ties at the end (0.99 times, 0.96 to 1.01) and wins over the whole curve (0.74 times, 0.71 to 0.76)`."""
    compared = {metric: result["comparisons"][name][metric] for metric in METRICS}
    told = (
        f"{found['verdict']} {WHERE[metric]} ({number(found['ratio_of_means'])} times, "
        f"{interval(found['ratio_interval'])})"
        for metric, found in compared.items()
    )
    return " and ".join(told)


def start_sentence(result: Mapping[str, Any]) -> str | None:
    """How the optimizer does against the best tuned baseline from the learned starting point."""
    tier = result.get("family_tier")
    if tier is None:
        return None
    found = tier["start"]
    if "none" in found:
        return f"No starting point was learned: {found['none']}."
    kind = "the mean of its ends" if found["rounds"] == 1 else f"refined over {found['rounds']} rounds"
    scores = f"By validation that point makes {number(found['score'])} of {number(found['alone'])}."
    return (
        f"Against {LABELS[found['baseline']]} from the family's learned starting point ({kind}) the optimizer "
        f"{_on_the_test_tasks(result, 'start')}. {scores} It is no optimizer, and `best` cannot name it."
    )


def family_section(result: Mapping[str, Any]) -> str:
    """The family tier of a report; nothing where there is none."""
    tier = result.get("family_tier")
    if tier is None:
        return ""
    rows = []
    for name in ("schedule", "start"):
        if name not in result["comparisons"]:
            continue
        for metric in METRICS:
            found = result["comparisons"][name][metric]
            rows.append(
                [
                    LABELS[name],
                    WHERE[metric],
                    number(found["ratio_of_means"]),
                    interval(found["ratio_interval"]),
                    number(found["ratio_of_medians"]),
                    percent(found["share_won"]),
                    found["verdict"],
                ]
            )
    schedule, start = tier["schedule"], tier["start"]
    took = f"The schedules took {schedule['meta_steps']:,} meta-steps and {seconds(schedule['seconds'])}"
    took += f", the starting point {seconds(start['seconds'])}." if "seconds" in start else "."
    note = (
        f"What the family gives without a network, with the {tier['budget']['meta_steps']:,} meta-steps of the "
        f"optimizer's recipe. {took} A ratio below 1 favours the learned optimizer."
    )
    heads = ["learned against", "compared", "ratio of means", "95 %", "ratio of medians", "tasks won", "verdict"]
    said = "".join(f"<p>{escape(told)}</p>" for told in (schedule_sentence(result), start_sentence(result)) if told)
    return table("The family tier", heads, rows, note) + said
