"""Doorbells: which attempts of which jobs must be announced to the workers, in the order that jobs are served."""

from __future__ import annotations

from sqlalchemy import and_, delete, exists, func, or_, select
from sqlalchemy.orm import Session

from app.store.sql import clock, insert_if_absent
from app.store.tables import JobRow, OutboxRow

_READY = and_(JobRow.status == "queued", or_(JobRow.not_before.is_(None), JobRow.not_before <= clock()))


def due(session: Session, device: str, limit: int) -> list[tuple[str, int]]:
    """Up to `limit` (job id, attempt) to ring now, next first. Locked until the transaction ends: another dispatcher
    on Postgres passes them by. Call `rung` for each in the same transaction, once RQ has it."""
    rows = session.execute(
        select(OutboxRow.job, OutboxRow.attempt)
        .join(JobRow, and_(JobRow.id == OutboxRow.job, JobRow.attempt == OutboxRow.attempt))
        .where(_READY, JobRow.device == device)
        .order_by(JobRow.queue_key, JobRow.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=OutboxRow)
    )
    return [(job_id, attempt) for job_id, attempt in rows]


def rung(session: Session, job_id: str, attempt: int) -> None:
    """RQ has this doorbell: forget it, and any older one of the job. Ringing twice does no harm."""
    session.execute(delete(OutboxRow).where(OutboxRow.job == job_id, OutboxRow.attempt <= attempt))


def queued(session: Session, device: str) -> list[tuple[str, int]]:
    """(job id, attempt) of ready jobs whose doorbell was rung: those that RQ must know, or that Redis has lost."""
    waiting = exists().where(OutboxRow.job == JobRow.id, OutboxRow.attempt == JobRow.attempt)
    rows = session.execute(
        select(JobRow.id, JobRow.attempt)
        .where(_READY, JobRow.device == device, ~waiting)
        .order_by(JobRow.queue_key, JobRow.id)
    )
    return [(job_id, attempt) for job_id, attempt in rows]


def ring_again(session: Session, job_id: str, attempt: int) -> bool:
    """Put a doorbell back that Redis has lost; False when the job has moved on meanwhile."""
    still = session.scalar(
        select(JobRow.id)
        .where(JobRow.id == job_id, JobRow.attempt == attempt, JobRow.status == "queued")
        .with_for_update()
    )
    return still is not None and insert_if_absent(session, OutboxRow, job=job_id, attempt=attempt, created_at=clock())


def waiting(session: Session) -> int:
    """How many doorbells are still to be rung, for all devices: rises while Redis is away."""
    return session.scalar(select(func.count()).select_from(OutboxRow)) or 0
