"""What an operator asks of the whole store, over all workspaces: how many jobs, how long they wait, what is lost."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.store import outbox
from app.store.insertion import PRIORITY_STEP_SECONDS
from app.store.sessions import now
from app.store.sql import clock
from app.store.tables import JobRow
from app.store.transitions import ACTIVE


@dataclass(frozen=True)
class Census:
    """jobs: by (status, device); waiting_seconds: of the job that waits longest, by device, since it was made or
    retried; doorbells: not rung yet; overdue: running jobs whose lease has run out and that nobody has taken over;
    lost_workers: of all jobs, since each was made or retried; bytes: the database's size."""

    jobs: dict[tuple[str, str], int]
    waiting_seconds: dict[str, float]
    doorbells: int
    overdue: int
    lost_workers: int
    bytes: int


def take(session: Session) -> Census:
    """Indexes find all of it. It grows with the number of jobs, finished ones too: ask once a second at the most."""
    counted = session.execute(
        select(JobRow.status, JobRow.device, func.count()).group_by(JobRow.status, JobRow.device)
    ).all()
    queued_at = func.min(JobRow.queue_key + JobRow.priority * round(PRIORITY_STEP_SECONDS * 1000))
    oldest = session.execute(
        select(JobRow.device, queued_at).where(JobRow.status == "queued").group_by(JobRow.device)
    ).all()
    moment = now(session).timestamp()
    overdue = session.scalar(select(func.count()).where(JobRow.lease_expires_at < clock(), JobRow.status.in_(ACTIVE)))
    # spelt out: SQLite takes the partial index for this very condition, and not for one with a parameter
    lost = session.scalar(select(func.sum(JobRow.lost_workers)).where(text("lost_workers > 0")))
    return Census(
        jobs={(status, device): count for status, device, count in counted},
        waiting_seconds={device: max(0.0, moment - milliseconds / 1000) for device, milliseconds in oldest},
        doorbells=outbox.waiting(session),
        overdue=overdue or 0,
        lost_workers=int(lost or 0),
        bytes=_bytes(session),
    )


def _bytes(session: Session) -> int:
    if session.get_bind().dialect.name == "postgresql":
        return int(session.scalar(text("SELECT pg_database_size(current_database())")) or 0)
    pages, size = (session.scalar(text(f"PRAGMA {name}")) or 0 for name in ("page_count", "page_size"))
    return int(pages) * int(size)
