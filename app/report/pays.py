"""Does it pay? Two sentences that answer "should I use this?", from the numbers of a verdict.

The first says whether to use an optimizer and why: its loss beside that of the best tuned baseline by the criterion
that it was trained for, after as many steps and as many seconds, and on held-out data where that was measured. An
optimizer that nothing was tuned for, such as FISTA, counts too where it is better than the learned one. The second says
what making it took, after how many runs that has paid, and where it must not be used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.report.words import LABELS, WHERE, judged_on, measured_on, number, on_held_out, percent, rival, seconds

Advice = Literal["use", "use_by_steps", "no_difference", "do_not_use", "unknown"]
_METRICS: dict[str, tuple[str, ...]] = {"area": ("area",), "final": ("final",), "both": ("area", "final")}
_WITHOUT_RATIO = {"wins": "lower than that", "ties": "no different from that", "loses": "higher than that"}
_ROUNDS_TO_ONE = 0.001
_PLACES = 3  # that are named where it lost


@dataclass(frozen=True)
class Subject:
    """The optimizer that is asked about.

    horizon: steps that it was trained for; None where its record does not say
    objective: of its recipe, which is the user's criterion
    overrides: what its job changed of the family's tasks
    shortfall: why `best` may not name it; tuned: the settings of a tuned baseline; stands_for: of a learned schedule
    """

    reference: str
    family: str
    horizon: int | None = None
    objective: str = "area"
    overrides: Mapping[str, Any] | None = None
    shortfall: str | None = None
    tuned: Mapping[str, Any] | None = None
    stands_for: str | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        return _METRICS.get(self.objective, _METRICS["both"])

    def is_own(self, result: Mapping[str, Any]) -> bool:
        """Whether a result is of the tasks that it was trained on."""
        own = self.family, dict(self.overrides or {})
        return (result["family"], dict(result.get("overrides") or {})) == own


@dataclass(frozen=True)
class Pays:
    """advice: for programs; answer: two sentences for people"""

    advice: Advice
    answer: str


def pays(subject: Subject, results: Sequence[Mapping[str, Any]]) -> Pays:
    """The answer for an optimizer. results: of its evaluations, newest first; curves are not needed"""
    own = deciding(subject, results)
    if subject.shortfall is not None:
        return Pays("do_not_use", f"Do not use it: parameters that never move do as well. {_never_made_good(own)}")
    if subject.tuned is not None:
        return Pays("use", _of_tuned(subject))
    if own is None and subject.stands_for is not None:
        return Pays("use", _of_schedule(subject))
    if own is None:
        elsewhere = f", but only on {_listed([measured_on(each) for each in results])}" if results else ""
        return Pays(
            "unknown",
            f"Nobody knows yet: it has not been measured on {subject.family}, which it was trained for{elsewhere}. Do "
            f"not rely on it before `gradsmith evaluate {subject.reference}` has compared it with tuned baselines.",
        )
    return pays_on(subject, own, [each for each in results if not subject.is_own(each)])


def deciding(subject: Subject, results: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The evaluation that the answer rests on: the newest on the tasks of the training, but that one with few baselines
    does not take back what the whole tier has shown after as many steps, on the same losses and no fewer tasks."""
    own = [result for result in results if subject.is_own(result)]
    alike = [
        result
        for result in own
        if all(result.get(name) == own[0].get(name) for name in ("horizon", "on"))
        and (result.get("test_tasks") or 0) >= (own[0].get("test_tasks") or 0)
    ]
    return max(alike, key=lambda result: len(result["comparisons"]), default=None)  # the first of equals


def pays_on(subject: Subject, result: Mapping[str, Any], others: Sequence[Mapping[str, Any]] = ()) -> Pays:
    """The answer that one evaluation gives. others: evaluations elsewhere, whose losses are places to avoid"""
    advice = _advice(subject, result)
    return Pays(advice, f"{_whether(subject, result, advice)} {_cost_and_limits(subject, result, others)}")


def _advice(subject: Subject, result: Mapping[str, Any]) -> Advice:
    in_steps = {_best(result)[metric]["verdict"] for metric in subject.metrics}
    if _better_untuned(subject, result):
        in_steps.add("loses")
    timed = _best_in_seconds(result)
    in_seconds = {timed[metric]["verdict"] for metric in subject.metrics} if timed else {"wins"}
    if "loses" in in_steps:
        return "do_not_use"
    if "wins" not in in_steps:
        return "no_difference"
    return "use" if "wins" in in_seconds and "loses" not in in_seconds else "use_by_steps"


def _whether(subject: Subject, result: Mapping[str, Any], advice: Advice) -> str:
    place, best = measured_on(result), _best(result)
    instead = ""
    match advice:
        case "use":
            said = f"Use it on {place}"
        case "use_by_steps":
            said = f"Use it on {place} only where computing the gradient takes most of the time"
        case "no_difference":
            said = f"On {place} it makes no difference"
        case _:
            said = f"Do not use it on {place}"
            beaten = [rival(best[metric]) for metric in subject.metrics if best[metric]["verdict"] == "loses"]
            untuned = _better_untuned(subject, result)
            instead = _untuned_ratios(result, untuned)
            instead += f"; take {LABELS.get(untuned[0][0], untuned[0][0]) if untuned else f'tuned {beaten[0]}'} instead"
    besides = _held_out(result) + _mostly_better(subject, result) + instead + _by_validation(result)
    return f"{said}: {_ratios(subject, result)}{besides}."


def _share_won(comparison: Mapping[str, Any]) -> float:
    found = comparison.get("share_won")  # an older version may have none
    return 1.0 if found is None else float(found)


def _mostly_better(subject: Subject, result: Mapping[str, Any]) -> str:
    """`; tuned L-BFGS is better on 99 % of the tasks at the end, though not on average`: its mean is that of few tasks
    on which it diverges."""
    said = [
        f"; tuned {LABELS.get(name, name)} is better on {percent(1 - found[metric]['share_won'])} of the tasks "
        f"{WHERE[metric]}, though not on average"
        for name, found in result["comparisons"].items()
        if name in (result.get("tiers") or {}).get("tuned", ())
        for metric in subject.metrics
        if found[metric]["verdict"] == "wins" and _share_won(found[metric]) < 0.5
    ]
    return "".join(said)


def _better_untuned(subject: Subject, result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Optimizers that nothing was tuned for and that the learned one loses to, each with the metric."""
    compared = result["comparisons"]
    names = [name for name in (result.get("tiers") or {}).get("untuned", ()) if name in compared]
    return [
        (name, metric) for metric in subject.metrics for name in names if compared[name][metric]["verdict"] == "loses"
    ]


def _untuned_ratios(result: Mapping[str, Any], better: Sequence[tuple[str, str]]) -> str:
    """`; over the whole curve its loss is 1.04 times that of FISTA, which nothing was tuned for`"""
    said = []
    for name, metric in better:
        size = _size(result["comparisons"][name][metric])
        said.append(f"; {WHERE[metric]} its loss is {size} of {LABELS.get(name, name)}, which nothing was tuned for")
    return "".join(said)


def _ratios(subject: Subject, result: Mapping[str, Any]) -> str:
    """`over the whole curve its loss is 0.71 times that of tuned Adam after as many steps and 0.83 times ...`"""
    timed, parts = _best_in_seconds(result), []
    data = " on held-out data" if on_held_out(result) else ""
    for metric in subject.metrics:
        found = _best(result)[metric]
        said = f"{WHERE[metric]} its loss{data} is {_compared(found, rival(found))} after as many steps"
        if timed:
            other = timed[metric]
            doubt = "" if other.get("certain", True) else ", within the noise of the timing"
            said += f" and {_compared(other, LABELS.get(other['baseline'], other['baseline']))} after as many seconds"
            said += doubt
        parts.append(said)
    return ", and ".join(parts) + ("" if timed else " (seconds were not measured)")


def _compared(found: Mapping[str, Any], baseline: str) -> str:
    tie = ", a tie," if found["verdict"] == "ties" else ""
    return f"{_size(found)} of tuned {baseline}{tie}"


def _size(found: Mapping[str, Any]) -> str:
    ratio = found["ratio_of_means"]  # None where losses have no ratio, or the optimizer diverged
    if ratio is None:
        return _WITHOUT_RATIO[found["verdict"]]
    if found["verdict"] != "ties" and abs(ratio - 1) < _ROUNDS_TO_ONE:
        return f"less than 0.1 % {'below' if ratio < 1 else 'above'} that"
    return f"{number(ratio)} times that"


def _held_out(result: Mapping[str, Any]) -> str:
    """Its loss on held-out data at the end, where the verdict is about training data; "" where none was measured."""
    ratio = _held_out_ratio(result)
    baseline = rival(_best(result)["final"])
    return (
        "" if ratio is None else f"; on held-out data its loss is {number(ratio)} times that of {baseline} at the end"
    )


def _held_out_ratio(result: Mapping[str, Any]) -> float | None:
    found = result.get("held_out") or {}
    baseline = _best(result)["final"]["baseline"]
    own, other = (found.get(name, {}).get("loss") for name in ("learned", baseline))
    if on_held_out(result) or own is None or other is None or own < 0 or other <= 0:
        return None
    return float(own / other)


def _by_validation(result: Mapping[str, Any]) -> str:
    found = result.get("validation") or {}
    if found.get("better") != "tuned":
        return ""
    name = LABELS.get(found["baseline"], found["baseline"])
    return f"; by validation tuned {name} is better, so `{result['family']}@best` does not name it"


def _cost_and_limits(subject: Subject, result: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    limits = _limits(subject, result, others)
    return f"{_cost(result)}; do not use it {', or '.join(limits)}."


def _cost(result: Mapping[str, Any]) -> str:
    found = result.get("break_even")
    if found is None:
        return "What it costs was not measured"
    known = found["training_seconds"] is not None
    count = found.get("trainings") or 1  # older versions counted one
    what = "Making it" if count == 1 else f"The {count:,} trainings of its sweep"
    took = f"{what} took {seconds(found['training_seconds'] + found['selection_seconds'])}" if known else ""
    name = f"tuned {LABELS.get(found['baseline'], found['baseline'])}"
    match found["never"]:
        case "does_not_reach":
            why = f"it reaches the final loss of {name} on {percent(found['reached'])} of the tasks"
        case "not_faster":
            why = (
                f"it takes {seconds(found['learned_seconds'])} to the final loss of {name}, which takes "
                f"{seconds(found['baseline_seconds'])}"
            )
        case _:
            saved = f"each run saves {seconds(found['saved_seconds'])}"
            if not known:
                return f"What making it took was not recorded, and {saved} to the final loss of {name}"
            return f"{took}, which {_runs(found['runs'])} ({saved} to the final loss of {name})"
    return f"{took or 'Its training'}{', which' if known else ''} never pays back, because {why}"


def _runs(count: int) -> str:
    return "1 run pays back" if count == 1 else f"{count:,} runs pay back"


def _limits(subject: Subject, result: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where it must not be used, each as it follows "do not use it"."""
    horizon = result["horizon"]
    trained = subject.horizon or horizon
    if horizon > trained and _advice(subject, result) == "use":
        limits = [f"for more than {horizon:,} steps, which were not measured"]
    else:
        limits = [f"for more than {trained:,} steps, which it was not trained for"]
    if (ratio := _held_out_ratio(result)) is not None and ratio > 1:
        limits.append("where the loss on held-out data counts, which is worse")
    diverged = (result.get("optimizers") or {}).get("learned", {}).get("diverged") or 0
    if diverged:
        limits.append(f"where a run may not diverge, as {diverged:,} of {result['test_tasks']:,} did")
    lost = [judged_on(each) for each in others if _advice(subject, each) == "do_not_use"]
    if lost:
        limits.append(f"on {_listed(lost)}, where tuned baselines beat it")
    return limits


def _never_made_good(own: Mapping[str, Any] | None) -> str:
    cost = "Its training was not worth what it took" if own is None else _cost(own)
    return f"{cost}; train again with a lower learning rate before you use it anywhere."


def _of_tuned(subject: Subject) -> str:
    assert subject.tuned is not None
    own = subject.tuned
    name = LABELS.get(own["baseline"], own["baseline"])
    return (
        f"Use it on {subject.family} where you would tune an optimizer yourself: it is {name} with the learning rate "
        f"{number(own['learning_rate'])} and a {own['schedule']} schedule, the best that an evaluation tuned, and "
        f"nothing was learned. There is no training to pay back; do not use it for another number of steps than "
        f"{own['steps']:,} or on other tasks, for which it is not tuned."
    )


def _of_schedule(subject: Subject) -> str:
    steps = "" if subject.horizon is None else f" or for another number of steps than {subject.horizon:,}"
    return (
        f"Use it on {subject.family} in the place of `{subject.stands_for}`: it is a learned schedule without a "
        f"network, and as good on fresh validation tasks. An evaluation trained it on the way, so that it has no "
        f"break-even of its own; do not use it on other tasks{steps}, for which it was not trained."
    )


def _best(result: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = result["comparisons"]["best_baseline"]
    return found


def _best_in_seconds(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """None where an older version made the evaluation."""
    timed = result.get("seconds")
    return None if not timed else timed["comparisons"]["best_baseline"]


def _listed(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:_PLACES]) + (" and more" if len(unique) > _PLACES else "")
