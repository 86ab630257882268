"""Where a rule comes from, as its file tells it: the family, how long its runs were, and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradsmith.own_tasks import own_evaluation

_JUDGED = {"area": ("area",), "final": ("final",), "both": ("final", "area")}
_WHEN = {"final": "at the end of a run", "area": "over the whole curve"}


@dataclass(frozen=True)
class Origin:
    """What a file knows; None where it says nothing of it.

    name: what the optimizer is called, such as "quadratic@3"
    family: what it was trained on
    horizon: the most steps of a run that it was trained or selected for
    coordinates: the parameters of a task that it was trained on
    criterion: what its validation score is of
    worse_than: what beat it where it was measured, in words
    """

    name: str
    family: str | None = None
    horizon: int | None = None
    coordinates: int | None = None
    criterion: str | None = None
    worse_than: str | None = None


def origin_of(extra: Mapping[str, Any], card: Mapping[str, Any] | None) -> Origin | None:
    """extra, card: of a weights file (`gradsmith.rules.weights_file`). None where neither says anything."""
    told = {**extra, **(card or {})}
    family = told.get("family")
    name = told.get("reference") or (f"an optimizer of {family}" if isinstance(family, str) else "this optimizer")
    found = Origin(
        name=str(name),
        family=family if isinstance(family, str) else None,
        horizon=_count(told.get("horizon")),
        coordinates=_count(told.get("coordinates")),
        criterion=told.get("criterion") if isinstance(told.get("criterion"), str) else None,
        worse_than=_worse_than(card or {}),
    )
    return found if found != Origin(name=str(name)) else None


def _count(given: Any) -> int | None:
    """A number that is counted, also where `extra` has it as text."""
    try:
        found = int(given)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found > 0 else None


def _object(given: Any) -> Mapping[str, Any]:
    """What a file has where an object should be: anybody may have written it."""
    return given if isinstance(given, dict) else {}


def _worse_than(card: Mapping[str, Any]) -> str | None:
    """What beat it in the evaluation that counts on its family's own tasks, by what it was selected for: a rule that
    was trained to be low at the end may well be beaten over the curve."""
    if card.get("automatic") is False and not card.get("uploaded"):
        return "parameters that never move"
    given = card.get("evaluations")
    evaluations = [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    own = own_evaluation(evaluations, card.get("family"), card.get("overrides"))
    for each in [own] if own is not None else evaluations[:1]:
        verdict, best = (_object(each.get(name)) for name in ("verdict", "best_baseline"))
        for criterion in _JUDGED.get(str(card.get("objective")), ("final", "area")):
            if verdict.get(criterion) == "loses":
                return f"{best.get(criterion) or 'a tuned baseline'} {_WHEN[criterion]} on {each.get('family')}"
    return None
