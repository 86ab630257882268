"""Doorbells: which attempts of which jobs must be announced to the workers, in the order that jobs are served."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, bindparam, delete, exists, func, or_, select
from sqlalchemy.orm import Session

from app.store.shares import READY, charge, next_doorbells
from app.store.sql import clock, insert_if_absent
from app.store.tables import JobRow, OutboxRow

_ANY_QUEUED = select(1).where(JobRow.status == "queued", JobRow.device == bindparam("device")).limit(1)


def due(session: Session, device: str, limit: int) -> list[tuple[str, int]]:
    """Up to `limit` (job id, attempt) to ring now, next first: keys take turns (`app.store.shares`).

    Two dispatchers that ask at once get the same ones, so the order stays the same however many there are; RQ has each
    doorbell once, and `rung` counts it once. Ask within `Database.snapshot`: what another dispatcher rings between two
    statements would let a key fall behind, and one that is behind is not owed its turns.
    """
    return next_doorbells(session, device, limit)


def idle(session: Session, device: str) -> bool:
    """Whether no job of this device is queued at all. Costs one look at an index."""
    return session.scalar(_ANY_QUEUED, {"device": device}) is None


def rung(session: Session, doorbells: Sequence[tuple[str, int]]) -> None:
    """RQ has these (job id, attempt): forget them and any older ones of these jobs, and count each on its key's share,
    unless another dispatcher was quicker. Ringing twice does no harm."""
    if not doorbells:
        return
    wanted = or_(
        *(and_(OutboxRow.job == job_id, OutboxRow.attempt <= attempt) for job_id, attempt in sorted(doorbells))
    )
    gone = {
        job_id
        for (job_id,) in session.execute(
            delete(OutboxRow).where(wanted).returning(OutboxRow.job).execution_options(synchronize_session=False)
        )
    }
    charge(session, sorted(gone))


def cancel(session: Session, job_id: str) -> None:
    """Ring no doorbell of this job: it has ended, or goes on as another attempt."""
    session.execute(delete(OutboxRow).where(OutboxRow.job == job_id))


def queued(session: Session, device: str) -> list[tuple[str, int]]:
    """(job id, attempt) of ready jobs whose doorbell was rung: those that RQ must know, or that Redis has lost."""
    waiting = exists().where(OutboxRow.job == JobRow.id, OutboxRow.attempt == JobRow.attempt)
    rows = session.execute(
        select(JobRow.id, JobRow.attempt)
        .where(READY, JobRow.device == device, ~waiting)
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
