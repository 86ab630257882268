"""Sweeps in the database: which go on, what became of their trials, and how one ends, whole.

A sweep is its row and its children's rows. Every write locks the sweep's row first, so two processes that advance it
wait for each other; the unique index of (sweep, trial) is the last guard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store import insertion, outbox
from app.store.events import JobEvent
from app.store.jobs import JobRepository, Place, end, requeue
from app.store.tables import TERMINAL_STATUSES, JobRow, OptimizerRow
from app.store.transitions import ACTIVE, move
from models.spec import JobSpec, MetaTrainSpec

_CHILDREN = (
    select(JobRow, OptimizerRow.validation_score, OptimizerRow.automatic)
    .outerjoin(OptimizerRow, OptimizerRow.id == JobRow.optimizer)
    .order_by(JobRow.trial)
)
_COUNTED = select(JobRow.status).order_by(JobRow.trial)


@dataclass(frozen=True)
class Trial:
    """A child of a sweep. score: its optimizer's validation score; None where it has none, or none that is finite.
    automatic: whether it beats standing still"""

    number: int
    rung: int
    values: Mapping[str, Any]
    job: str
    status: str
    reason: str | None
    optimizer: str | None
    score: float | None
    automatic: bool
    seconds: float | None

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL_STATUSES

    @property
    def rank(self) -> tuple[bool, float, int]:
        """The lowest is the best; what is worse than standing still comes last, what has no score after it."""
        return (not self.automatic, math.inf if self.score is None else self.score, self.number)


def unfinished(session: Session) -> list[str]:
    """The sweeps of all workspaces that have not ended, oldest first."""
    query = select(JobRow.id).where(JobRow.status.in_(ACTIVE), JobRow.kind == "sweep").order_by(JobRow.id)
    return list(session.scalars(query))


def trials(session: Session, sweep: str) -> list[Trial]:
    """Its children by their number, which counts from 0 without a gap."""
    return [
        Trial(
            number=row.trial or 0,
            rung=row.rung or 0,
            values=row.swept,
            job=row.id,
            status=row.status,
            reason=row.status_reason,
            optimizer=row.optimizer,
            score=score if row.status == "succeeded" else None,
            automatic=bool(automatic),
            seconds=(row.finished_at - row.started_at).total_seconds() if row.finished_at and row.started_at else None,
        )
        for row, score, automatic in session.execute(_CHILDREN.where(JobRow.sweep == sweep))
    ]


def spent(session: Session, sweep: str) -> list[tuple[float, float]]:
    """Seconds of training and of selection of each child that ran and has ended. A child without an optimizer, such as
    one that failed, trained from the beginning of its last attempt to its end."""
    query = (
        select(JobRow.started_at, JobRow.finished_at, OptimizerRow.card["training"])
        .outerjoin(OptimizerRow, OptimizerRow.job == JobRow.id)
        .where(JobRow.sweep == sweep, JobRow.started_at.is_not(None), JobRow.status.in_(TERMINAL_STATUSES))
        .order_by(JobRow.trial)
    )
    found = []
    for began, ended, training in session.execute(query):
        cost = (training or {}).get("cost") or {"training": {"seconds": (ended - began).total_seconds()}}
        found.append((cost["training"]["seconds"], cost.get("selection", {}).get("seconds", 0.0)))
    return found


def locked(session: Session, sweep: str) -> JobRow | None:
    """Its row, locked, unless it has ended."""
    return session.scalar(
        select(JobRow)
        .where(JobRow.id == sweep, JobRow.status.in_(ACTIVE))
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def statuses(session: Session, sweep: str) -> list[str]:
    """Those of its children, by their number."""
    return list(session.scalars(_COUNTED.where(JobRow.sweep == sweep)))


def add(session: Session, sweep: JobRow, children: Sequence[tuple[MetaTrainSpec, Place]]) -> None:
    """Queue children of a locked sweep, with its labels, key and priority."""
    jobs = JobRepository(session, sweep.workspace)
    rows = [
        jobs.new(spec, sweep.labels, priority=sweep.priority, api_key=sweep.api_key, place=place)
        for spec, place in children
    ]
    insertion.write(session, rows)


def finish(
    session: Session, sweep: JobRow, optimizer: str | None, reason: str | None, follow_up: JobSpec | None
) -> JobEvent:
    """End a locked sweep whose children have all ended, with the optimizer that is its result, and start what follows;
    as failed where there is none."""
    if optimizer is None:
        return end(session, sweep, "failed", reason, None)
    if follow_up is not None and sweep.status == "running":
        JobRepository(session, sweep.workspace).create(
            follow_up, sweep.labels, parent=sweep.id, priority=sweep.priority, api_key=sweep.api_key
        )
    sweep.optimizer = optimizer
    return end(session, sweep, "succeeded", reason, None)


def fail(session: Session, sweep: JobRow, reason: str) -> JobEvent:
    """End a locked sweep that cannot go on, and cancel its children."""
    cancel_children(session, sweep)
    return end(session, sweep, "failed", reason, None)


def cancel_children(session: Session, sweep: JobRow) -> None:
    """Cancel those of a locked job that have not ended: the queued at once, the running by their workers. Other jobs
    than sweeps have none."""
    for child in _locked_children(session, sweep):
        if child.status == "queued":
            outbox.cancel(session, child.id)
            end(session, child, "cancelled", f"its sweep {sweep.id} was cancelled", None)
        elif child.status == "running":
            move(child, "cancelling", f"its sweep {sweep.id} was cancelled")
    session.flush()


def retry_children(session: Session, sweep: JobRow) -> None:
    """Queue those of a locked job's children again that failed or were cancelled, each from its checkpoint. Of the last
    rung alone: what came after the others was chosen without them."""
    children = _locked_children(session, sweep)
    last = max((child.rung or 0 for child in children), default=0)
    for child in children:
        if child.status in ("failed", "cancelled") and child.rung == last:
            child.lost_workers = 0
            requeue(session, child, f"its sweep {sweep.id} was retried")


def _locked_children(session: Session, sweep: JobRow) -> Sequence[JobRow]:
    return session.scalars(
        select(JobRow)
        .where(JobRow.sweep == sweep.id)
        .order_by(JobRow.trial)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
