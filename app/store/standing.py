"""How far watched jobs are, all of them in one query: what tells a reader of live events that more is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.store.events import EventId
from app.store.tables import TERMINAL_STATUSES, CurveChunkRow, JobEventRow, JobRow


class Standing(NamedTuple):
    """Changes with everything that is stored of a job's events."""

    status: str
    attempt: int
    last_event: int | None
    last_points: int | None

    @property
    def newest(self) -> EventId:
        """Id of the newest stored event of the current attempt."""
        return EventId(self.attempt, max(self.last_event or 0, self.last_points or 0))

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL_STATUSES


def standings(session: Session, job_ids: Sequence[str]) -> dict[str, Standing]:
    """Those of these jobs that exist, by id."""
    last_event = (
        select(func.max(JobEventRow.sequence))
        .where(JobEventRow.job == JobRow.id, JobEventRow.attempt == JobRow.attempt)
        .scalar_subquery()
    )
    last_points = (
        select(func.max(CurveChunkRow.last_sequence))
        .where(CurveChunkRow.job == JobRow.id, CurveChunkRow.attempt == JobRow.attempt)
        .scalar_subquery()
    )
    query = select(JobRow.id, JobRow.status, JobRow.attempt, last_event, last_points).where(JobRow.id.in_(job_ids))
    return {job_id: Standing(*standing) for job_id, *standing in session.execute(query)}
