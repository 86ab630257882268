"""What the registry knows of optimizers beside their rows, for a whole page of them in a few queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.aliases import RESERVED, Aliases
from app.store.references import named
from app.store.tables import TERMINAL_STATUSES, EvaluationRow, JobRow, OptimizerRow, WeightsRow

_FACTS = (
    ("horizon",),
    ("test_tasks",),
    ("tiers",),
    ("on",),
    ("held_out",),
    ("validation",),
    ("seconds", "comparisons", "best_baseline"),
    ("optimizers", "learned", "diverged"),
)


@dataclass(frozen=True)
class Measured:
    """An evaluation without its curves, which are long."""

    job: str
    family: str
    overrides: dict[str, Any]  # what its job changed of the family's tasks
    verdict: dict[str, str]
    verdict_in_seconds: dict[str, str] | None  # evaluations of older versions have none, and no break-even
    break_even: dict[str, Any] | None
    best_baseline: dict[str, Any]
    created_at: datetime
    facts: dict[str, Any]  # those parts of the result that app.report.pays reads, as they are in it


@dataclass(frozen=True)
class Record:
    row: OptimizerRow
    aliases: list[str]  # which name it now: `best` and `latest` first, then the user's own by name
    tags: dict[str, str]  # the labels (`metadata`) of the job that made it
    overrides: dict[str, Any]  # what that job changed of the family's tasks
    objective: str | None  # of the recipe that it was made with; None where another version has none
    horizon: int | None  # steps, of the same
    size_bytes: int
    evaluations: list[Measured]  # newest first


def records(session: Session, workspace: str, rows: Sequence[OptimizerRow]) -> list[Record]:
    """Records of `rows`, in their order. All must be optimizers of `workspace`."""
    if not rows:
        return []
    ids, hashes = [row.id for row in rows], {row.sha256 for row in rows}
    aliases = Aliases(session, workspace).names_of(ids)
    reserved = _reserved(session, workspace, {row.family for row in rows})
    sized = session.execute(select(WeightsRow.sha256, WeightsRow.size).where(WeightsRow.sha256.in_(hashes)))
    sizes = {sha256: size for sha256, size in sized}  # noqa: C416  (a row is no pair to mypy)
    asked = select(JobRow.id, JobRow.labels, JobRow.spec[("family", "overrides")], JobRow.spec["recipe"])
    made = [row.job for row in rows if row.job is not None]
    jobs = {job: told for job, *told in session.execute(asked.where(JobRow.id.in_(made)))}
    evaluations = _evaluations(session, workspace, ids)
    recipes = {row.id: row.card.get("recipe") or (jobs[row.job][2] if row.job else None) or {} for row in rows}
    return [
        Record(
            row=row,
            objective=recipes[row.id].get("objective"),
            horizon=recipes[row.id].get("horizon"),
            aliases=reserved.get(row.id, []) + aliases.get(row.id, []),
            tags=jobs[row.job][0] if row.job is not None else {},
            overrides=_overrides(row, jobs),
            size_bytes=sizes[row.sha256],
            evaluations=evaluations.get(row.id, []),
        )
        for row in rows
    ]


def _overrides(row: OptimizerRow, jobs: dict[str, list[Any]]) -> dict[str, Any]:
    if row.uploaded is not None:
        found: dict[str, Any] = row.uploaded["made_with"]["family"]["overrides"]
        return found
    assert row.job is not None, "a job made what was not uploaded"
    return jobs[row.job][1] or {}  # jobs of older versions have none


def unfinished_evaluations(session: Session, optimizer: OptimizerRow) -> list[tuple[str, str]]:
    """The id and status of each `evaluate` job of this optimizer that has not ended, newest first."""
    query = (
        select(JobRow.id, JobRow.status)
        .where(
            JobRow.workspace == optimizer.workspace,
            JobRow.kind == "evaluate",
            JobRow.optimizer == optimizer.id,
            JobRow.status.not_in(TERMINAL_STATUSES),
        )
        .order_by(JobRow.id.desc())
    )
    return [(job, status) for job, status in session.execute(query)]


def _reserved(session: Session, workspace: str, families: set[str]) -> dict[str, list[str]]:
    """Which of `best` and `latest` name an optimizer (id) now."""
    names: dict[str, list[str]] = {}
    for family in families:
        for alias in RESERVED:
            if (found := named(session, workspace, family, alias)) is not None:
                names.setdefault(found.id, []).append(alias)
    return names


def _evaluations(session: Session, workspace: str, optimizers: Sequence[str]) -> dict[str, list[Measured]]:
    result = EvaluationRow.result
    query = (
        select(
            EvaluationRow.optimizer,
            EvaluationRow.job,
            EvaluationRow.family,
            result["overrides"],
            result["verdict"],
            result[("seconds", "verdict")],
            result["break_even"],
            result["comparisons"],
            EvaluationRow.created_at,
            *(result[path] for path in _FACTS),
        )
        .where(EvaluationRow.workspace == workspace, EvaluationRow.optimizer.in_(optimizers))
        .order_by(EvaluationRow.job.desc())
    )
    found: dict[str, list[Measured]] = {}
    rows = session.execute(query)
    for optimizer, job, family, overrides, verdict, in_seconds, pays, compared, created_at, *parts in rows:
        others: dict[str, Any] = compared or {}
        facts = {"family": family, "overrides": overrides, "break_even": pays, "comparisons": others}
        facts |= _nested(dict(zip(_FACTS, parts, strict=True)))
        best: Any = others.get("best_baseline")
        measured = Measured(job, family, overrides or {}, verdict, in_seconds, pays, best, created_at, facts)
        found.setdefault(optimizer, []).append(measured)
    return found


def _nested(values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """The parts of a result at their places; what it does not have is left out."""
    found: dict[str, Any] = {}
    for path, value in values.items():
        if value is not None:
            place = found
            for name in path[:-1]:
                place = place.setdefault(name, {})
            place[path[-1]] = value
    return found
