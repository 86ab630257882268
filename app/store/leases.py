"""A job in the hands of a worker. Every write is fenced by the lease: job, attempt and owner must still agree.

An attempt has one owner; a lost worker's job goes on as the next attempt. So a worker that comes back from a long
stall, or that was orphaned, cannot write: its attempt is over, and it gets LeaseLost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session

from app.store import events, outbox
from app.store.errors import LeaseLost
from app.store.events import EventId, JobEvent
from app.store.jobs import end, requeue
from app.store.sql import clock
from app.store.tables import JobRow
from app.store.transitions import ACTIVE


@dataclass(frozen=True)
class Lease:
    """What a worker holds, and shows at every write."""

    job_id: str
    attempt: int
    owner: str  # names the worker process, such as host:pid:random


def claim(
    session: Session, lease: Lease, lease_seconds: float, runtime: Mapping[str, Any] | None = None
) -> JobRow | None:
    """Queued -> running, if this attempt is still the job's and nobody was quicker; else None, and the worker leaves.

    The worker then counts its events from `events.next_id(session, job_id, attempt)`.
    """
    claimed = session.scalar(
        update(JobRow)
        .where(JobRow.id == lease.job_id, JobRow.attempt == lease.attempt, JobRow.status == "queued")
        .values(
            status="running",
            status_reason=None,
            lease_owner=lease.owner,
            lease_expires_at=clock(lease_seconds),
            not_before=None,
            started_at=clock(),
            runtime=dict(runtime or {}),
        )
        .returning(JobRow.id)
        .execution_options(synchronize_session=False)
    )
    if claimed is None:
        return None
    outbox.rung(session, [(lease.job_id, lease.attempt)])  # the worker may be quicker than the dispatcher
    return session.get_one(JobRow, lease.job_id, populate_existing=True)


def renew(session: Session, lease: Lease, lease_seconds: float) -> str:
    """Hold the job for `lease_seconds` from now. The answer is its status: `running`, or `cancelling` when the worker
    should stop. Raises LeaseLost."""
    return _fenced_update(session, lease, lease_expires_at=clock(lease_seconds))


def progress(session: Session, lease: Lease, step: int, total: int, eta_seconds: float | None) -> str:
    """Say how far the job is; the answer is its status, as in `renew`. Raises LeaseLost."""
    return _fenced_update(session, lease, step=step, total=total, eta_seconds=eta_seconds)


def ran_on(session: Session, lease: Lease, runtime: Mapping[str, Any]) -> str:
    """Say what computes the job, once that is known; the answer is its status, as in `renew`. Raises LeaseLost."""
    return _fenced_update(session, lease, runtime=dict(runtime))


def record(session: Session, lease: Lease, new_events: Sequence[JobEvent]) -> str:
    """Store events in order: rows, and curve chunks for metrics. The answer is the status. Raises LeaseLost."""
    status = held(session, lease).status
    events.append(session, lease.job_id, new_events)
    return status


def fail(session: Session, lease: Lease, reason: str, event_id: EventId | None = None) -> JobEvent:
    """End the job as failed, or as cancelled when that was asked for; the `done` event, to be sent once committed.

    `event_id` is the next id of the worker's stream; without it, the next after the durable ones. Raises LeaseLost.
    """
    return end(session, held(session, lease), "failed", reason, event_id)


def cancelled(session: Session, lease: Lease, event_id: EventId | None = None) -> JobEvent:
    """End the job as cancelled, because that was asked for. Raises LeaseLost."""
    return end(session, held(session, lease), "cancelled", "cancelled while running", event_id)


def release(session: Session, lease: Lease, reason: str = "preempted") -> JobEvent:
    """Back to the queue as a new attempt that counts as no lost worker; `cancelled` when that was asked for.

    The event (`status` or `done`) is already durable; send it live once committed. Raises LeaseLost.
    """
    job = held(session, lease)
    if job.status == "cancelling":
        return end(session, job, "cancelled", None, None)
    return requeue(session, job, reason)


def lost_part(
    session: Session,
    lease: Lease,
    reason: str,
    max_lost_workers: int,
    backoff_seconds: float,
    event_id: EventId | None = None,
) -> JobEvent:
    """A process that this worker runs the job with was lost: it counts as a lost worker, so the job goes back to the
    queue after a backoff, or fails after `max_lost_workers` of them, or is cancelled where that was asked for.

    Raises LeaseLost.
    """
    job = held(session, lease)
    job.lost_workers += 1
    if job.status == "running" and job.lost_workers < max_lost_workers:
        return requeue(session, job, reason, delay_seconds=_backoff(job, backoff_seconds))
    return end(session, job, "failed", f"{reason}; {job.lost_workers} workers were lost", event_id)


def _holds(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    """The fence: every write of a worker is for the attempt that it claimed, as long as nobody took it over."""
    return (
        JobRow.id == lease.job_id,
        JobRow.attempt == lease.attempt,
        JobRow.lease_owner == lease.owner,
        JobRow.status.in_(ACTIVE),
    )


def held(session: Session, lease: Lease) -> JobRow:
    """The job's row, locked, if this lease still holds it: the first thing in every larger write of a worker."""
    job = session.scalar(
        select(JobRow).where(*_holds(lease)).with_for_update().execution_options(populate_existing=True)
    )
    if job is None:
        raise LeaseLost(lease.job_id, lease.attempt)
    return job


@dataclass(frozen=True)
class Lapse:
    """What became of a job whose worker was lost."""

    job_id: str
    attempt: int
    outcome: str
    """The job's status now."""
    event: JobEvent
    """What its stream says of it."""


def lost(session: Session, lease: Lease, reason: str, max_lost_workers: int, backoff_seconds: float) -> Lapse | None:
    """Count a lost worker: the process that had claimed this attempt, or was to claim it, has ended.

    The job then goes on as after a lease that ran out. None when the attempt is over or another process holds it.
    """
    job = session.scalar(
        select(JobRow)
        .where(
            JobRow.id == lease.job_id,
            JobRow.attempt == lease.attempt,
            or_(JobRow.status == "queued", and_(JobRow.status.in_(ACTIVE), JobRow.lease_owner == lease.owner)),
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if job is None:
        return None
    outbox.cancel(session, job.id)  # an unclaimed attempt may have been put there again
    return _go_on_or_fail(session, job, f"worker_lost: {reason}", max_lost_workers, backoff_seconds)


def lapsed(session: Session, max_lost_workers: int, backoff_seconds: float, limit: int = 100) -> list[Lapse]:
    """Take over the jobs whose lease ran out, by the database's clock: a new attempt after a backoff that doubles with
    each lost worker, `failed` after `max_lost_workers` of them, `cancelled` where that was asked for."""
    jobs = session.scalars(
        select(JobRow)
        .where(JobRow.status.in_(ACTIVE), JobRow.lease_expires_at < clock())
        .order_by(JobRow.lease_expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    return [
        _go_on_or_fail(
            session,
            job,
            f"worker_lost: {job.lease_owner} stopped renewing attempt {job.attempt}",
            max_lost_workers,
            backoff_seconds,
        )
        for job in jobs
    ]


def _go_on_or_fail(session: Session, job: JobRow, reason: str, max_lost_workers: int, backoff_seconds: float) -> Lapse:
    """One more lost worker of a locked job."""
    job.lost_workers += 1
    if job.status != "cancelling" and job.lost_workers < max_lost_workers:
        event = requeue(session, job, reason, delay_seconds=_backoff(job, backoff_seconds))
    else:
        # A new attempt fences the old worker out, and its ids cannot meet those that were streamed live only.
        job.attempt += 1
        told = f"{reason}; {job.lost_workers} workers were lost"
        event = end(session, job, "failed", told, EventId(job.attempt, 1))
    return Lapse(job.id, job.attempt, job.status, event)


def _backoff(job: JobRow, backoff_seconds: float) -> float:
    return float(backoff_seconds * 2 ** (job.lost_workers - 1))


def _fenced_update(session: Session, lease: Lease, **values: Any) -> str:
    status = session.scalar(
        update(JobRow)
        .where(*_holds(lease))
        .values(**values)
        .returning(JobRow.status)
        .execution_options(synchronize_session=False)
    )
    if status is None:
        raise LeaseLost(lease.job_id, lease.attempt)
    return status
