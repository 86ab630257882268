"""Sentences about a result, which pages and cards share: verdicts, seconds, targets, break-even."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.report.words import LABELS, VERB, interval, meaning, number, percent, seconds, shown


def verdict_sentence(result: Mapping[str, Any], found: Mapping[str, Any], metric: str) -> str:
    """`beats tuned Adam, the best baseline: its mean loss of the last 5 steps is 0.31 times Adam's (95 % interval ...`.

    found: the comparison with the best baseline
    """
    name = shown(result, found["baseline"], metric)
    medians = f"{number(found['ratio_of_medians'])} by medians"
    if "medians_interval" in found:
        medians += f" ({interval(found['medians_interval'])})"
    return (
        f"{VERB[found['verdict']]} tuned {name}, the best baseline: its {meaning(result, metric)} is "
        f"{number(found['ratio_of_means'])} times {name}'s (95 % interval {interval(found['ratio_interval'])}), "
        f"{medians}, and it is better on {percent(found['share_won'])} of the tasks"
    )


def seconds_sentence(result: Mapping[str, Any]) -> str | None:
    """The verdicts in equal time; None where no seconds were measured."""
    timed = result.get("seconds")
    if timed is None:
        return None
    found = timed["comparisons"]["best_baseline"]
    parts = []
    for metric, where in (("final", "at the end"), ("area", "over the whole curve")):
        best = found[metric]
        doubt = "" if best["certain"] else ", within the noise of the timing"
        against = shown(result, best["baseline"], metric)
        parts.append(
            f"{best['verdict']} {where} against tuned {against} ({number(best['ratio_of_means'])} "
            f"times, {interval(best['ratio_interval'])}{doubt})"
        )
    own = timed["step"]["learned"]
    return (
        f"in equal time {' and '.join(parts)}; its own step takes {seconds(own['median'])} (quartiles "
        f"{seconds(own['low'])} to {seconds(own['high'])}) beside {seconds(timed['gradient']['median'])} for the "
        f"gradient of one task of {timed['coordinates']:,} coordinates"
    )


def validation_sentence(result: Mapping[str, Any]) -> str | None:
    """Whether the optimizer beats the best tuned baseline by validation; None where the two were not compared."""
    found = result.get("validation")
    if found is None:
        return None
    name = LABELS.get(found["baseline"], found["baseline"])
    baseline = f"{name} with learning rate {number(found['learning_rate'])} and a {found['schedule']} schedule"
    scores = (
        f"on the validation tasks ({found['criterion']}) it scores {number(found['learned'])}, and the best tuned "
        f"baseline, {baseline} over {found['steps']} steps, scores {number(found['tuned'])}"
    )
    if found["learned"] == found["tuned"]:
        return f"By validation it is as good as the best tuned baseline: {scores}."
    if found["better"] == "learned":
        return f"By validation it is better than every tuned baseline: {scores}."
    return f"By validation a tuned baseline is better, so that `best` names that one before it: {scores}."


def target_sentence(result: Mapping[str, Any]) -> str | None:
    """The scores of the performance profiles; None where there are none."""
    timed = result.get("time_to_target")
    if timed is None:
        return None

    def scores(unit: str) -> str:
        found = {name: each["score"] for name, each in timed[unit].items()}
        rival = max((name for name in found if name != "learned"), key=lambda name: float(found[name]))
        return f"{number(found['learned'])} in {unit} against {number(found[rival])} of {shown(result, rival, 'final')}"

    return (
        f"has time-to-target scores of {scores('steps')}, and {scores('seconds')} (mean height of the performance "
        f"profile up to a factor of {number(timed['up_to'])}, 1 is best)"
    )


def _trainings(found: Mapping[str, Any]) -> str:
    count = found.get("trainings") or 1  # older versions counted one
    return "training" if count == 1 else f"the {count} trainings of its sweep"


def break_even_sentence(result: Mapping[str, Any]) -> str | None:
    """After how many runs training has paid, or why never; None where it was not measured."""
    found = result.get("break_even")
    if found is None:
        return None
    name = shown(result, found["baseline"], "final")
    tuning = f"Tuning {name} on one task takes {found['tuning_runs']} runs, {seconds(found['tuning_seconds'])} in all."
    if found["never"] == "does_not_reach":
        return (
            f"Never: it reaches the final loss of tuned {name} on {percent(found['reached'])} of the tasks, and the "
            f"median task has to reach it. {tuning}"
        )
    took = (
        f"the median run reaches the final loss of tuned {name} in {seconds(found['learned_seconds'])}, and {name} "
        f"takes {seconds(found['baseline_seconds'])}"
    )
    if found["never"] is not None:
        return f"Never: {took}. {tuning}"
    saved = f"{took}, which saves {seconds(found['saved_seconds'])} a run"
    if found["runs"] is None:
        return f"Not known, because the cost of training was not recorded; {saved}. {tuning}"
    return (
        f"After {found['runs']:,} run{'s' if found['runs'] != 1 else ''}: {_trainings(found)} took "
        f"{seconds(found['training_seconds'])} and selection {seconds(found['selection_seconds'])}; {saved}. {tuning} "
        f"Whoever would have tuned {name} once breaks even after {found['runs_beside_tuning']:,} runs."
    )
