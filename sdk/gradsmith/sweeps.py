"""What a sweep has tried, as records."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One training of a sweep.

    number: counts from 0
    rung: of successive halving, from 0; 0 without it
    values: what was swept, such as "recipe.meta_steps", with its value here
    job: the id of the training
    score: its validation score, lower is better; None where there is none
    best_so_far: the lowest score up to this trial, by number
    seconds: that its last attempt ran; None until it has ended
    """

    number: int
    rung: int
    values: dict[str, Any]
    job: str
    status: str
    reason: str | None
    optimizer: str | None
    score: float | None
    best_so_far: float | None
    seconds: float | None


@dataclass(frozen=True)
class Search:
    """What a sweep has tried.

    criterion: what the scores are of: the same validation tasks for all trials
    total: how many trials there will be
    best: the best so far; the sweep's `optimizer` is its
    fields: the names of what was swept
    """

    job: str
    status: str
    criterion: str
    total: int
    best: Trial | None
    fields: list[str]
    trials: list[Trial]
    raw: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Search:
        names = [each.name for each in fields(Trial)]
        trials = [Trial(**{name: each.get(name) for name in names}) for each in raw["trials"]]
        return cls(
            job=raw["job"],
            status=raw["status"],
            criterion=raw["criterion"],
            total=raw["total"],
            best=next((trial for trial in trials if trial.number == raw["best"]), None),
            fields=[each["name"] for each in raw["fields"]],
            trials=trials,
            raw=raw,
        )
