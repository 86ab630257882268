"""Which evaluations of an optimizer are of the tasks that it was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def own_evaluation(
    evaluations: Iterable[Mapping[str, Any]], family: Any, overrides: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """What counts of an optimizer's evaluations, newest first: the one on the tasks that it was made for by which the
    server answers whether to use it; the newest there, where none says so. None where there is none.

    family, overrides: of the optimizer: what it was trained on, and what its job changed of that
    """
    own = [each for each in evaluations if is_own(each, family, overrides)]
    return next((each for each in own if each.get("decides") is True), own[0] if own else None)


def is_own(evaluation: Mapping[str, Any], family: Any, overrides: Mapping[str, Any] | None) -> bool:
    """Whether an evaluation was on the tasks that its optimizer was made for. One that names no family was."""
    tasks = evaluation.get("family", family), evaluation.get("overrides") or {}
    return tasks == (family, overrides or {})


def tasks_of(evaluation: Mapping[str, Any]) -> str:
    """What an evaluation was on, in words."""
    changes = ", ".join(f"{name} {value}" for name, value in (evaluation.get("overrides") or {}).items())
    return f"{evaluation.get('family', 'its family')}{f' with {changes}' if changes else ''}"
