"""A job's events: what its live stream carried, kept so that a client can read all of it later, bit for bit.

An event's id is `<attempt>-<sequence>`; sequences count 1, 2, 3 ... within an attempt, whoever writes them. Metrics
are not stored as events: the points of a curve chunk remember the sequence that carried them (`app.store.curves`),
and `after` makes the same events from them again.

Only the holder of a job's lease writes; where no worker has claimed the attempt, `JobRepository` and the reconciler do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from app.store import curves
from app.store.curve_format import Points
from app.store.errors import BadEventId
from app.store.sql import clock
from app.store.tables import TERMINAL_STATUSES, CurveChunkRow, JobEventRow, JobRow

EventKind = Literal[
    "status", "metrics", "log", "checkpoint", "resumed", "rolled_back", "start_ended", "stopped_early", "done"
]


class EventId(NamedTuple):
    """Where an event stands in its job; ids compare as the events follow each other."""

    attempt: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> EventId:
        """Raises BadEventId unless `text` is `<attempt>-<sequence>`, each below 2**31 and 2**63."""
        match = re.fullmatch(r"([0-9]{1,10})-([0-9]{1,19})", text)
        if match is None or int(match[1]) >= 2**31 or int(match[2]) >= 2**63:
            raise BadEventId(text)
        return cls(int(match[1]), int(match[2]))

    def precedes(self, other: EventId) -> bool:
        """Whether nothing can stand between: `other` is the next of this attempt, or the first of all.

        Between the last event that is known of one attempt and the first of the next, there may be more.
        """
        return other == (self.attempt, self.sequence + 1) or (self == START and other == (1, 1))


START = EventId(0, 0)  # before every event of a job


@dataclass(frozen=True)
class JobEvent:
    """One event of a job.

    text: what a client reads, as canonical JSON without NaN: the same bytes whether the event came live or from either
        database
    points: of metrics, the exact numbers
    """

    id: EventId
    kind: EventKind
    text: str
    points: Points | None = None

    @classmethod
    def of(cls, event_id: EventId, kind: EventKind, data: Mapping[str, Any]) -> JobEvent:
        """Raises ValueError for NaN and infinity."""
        return cls(event_id, kind, _canonical(data))

    @classmethod
    def metrics(cls, event_id: EventId, points: Points) -> JobEvent:
        return cls(event_id, "metrics", _canonical(points.as_json()), points)

    @cached_property
    def data(self) -> dict[str, Any]:
        """`text`, parsed."""
        found: dict[str, Any] = json.loads(self.text)
        return found


def _canonical(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def append(session: Session, job_id: str, events: Sequence[JobEvent]) -> None:
    """Store events of one job: curve chunks for metrics, a row for each other. Check the lease first.

    To leave no hole for readers, store all events up to the newest in one transaction, in order.
    """
    moment = clock()
    for event in events:
        if event.points is None:
            session.add(
                JobEventRow(
                    job=job_id,
                    attempt=event.id.attempt,
                    sequence=event.id.sequence,
                    kind=event.kind,
                    data=event.data,
                    created_at=moment,
                )
            )
    session.flush()
    curves.append(session, job_id, [(event.id, event.points) for event in events if event.points is not None])


def next_id(session: Session, job_id: str, attempt: int) -> EventId:
    """The id after the newest durable event of this attempt: where its worker starts to count once it has claimed."""
    events = select(func.max(JobEventRow.sequence)).where(JobEventRow.job == job_id, JobEventRow.attempt == attempt)
    chunks = select(func.max(CurveChunkRow.last_sequence)).where(
        CurveChunkRow.job == job_id, CurveChunkRow.attempt == attempt
    )
    return EventId(attempt, max(session.scalar(events) or 0, session.scalar(chunks) or 0) + 1)


@dataclass(frozen=True)
class Replay:
    """Durable events after a position, in order.

    Nothing that precedes them is still to be stored, so a missing sequence stays missing (a worker was killed before it
    stored what it had streamed).
    """

    events: list[JobEvent]
    more: bool
    """The limit was reached; read on after the last event."""
    ended: bool
    """The job has ended and these are its last events."""


def after(session: Session, job_id: str, position: EventId = START, limit: int = 500) -> Replay:
    """The job's durable events after `position`, in order, about `limit` of them; those that a reader must wait for
    (a hole in the attempt that still runs) are left out, with all after it."""
    # The job first: if it has ended by now, all of its events are there by the next query (read committed).
    job = session.execute(select(JobRow.status, JobRow.attempt).where(JobRow.id == job_id)).one_or_none()
    if job is None:
        return Replay([], more=False, ended=True)
    rows = session.scalars(
        select(JobEventRow)
        .where(JobEventRow.job == job_id, tuple_(JobEventRow.attempt, JobEventRow.sequence) > tuple_(*position))
        .order_by(JobEventRow.attempt, JobEventRow.sequence)
        .limit(limit)
    ).all()
    events = [JobEvent.of(EventId(row.attempt, row.sequence), row.kind, row.data) for row in rows]  # type: ignore[arg-type]
    metrics, chunks_left = curves.points_after(session, job_id, position, limit)
    events += [JobEvent.metrics(EventId(*event_id), points) for event_id, points in metrics]
    events.sort(key=lambda event: event.id)

    # Where one of the two queries met its limit, what the other has beyond that point comes next time.
    ends = []
    if len(rows) == limit:
        ends.append(EventId(rows[-1].attempt, rows[-1].sequence))
    if chunks_left:
        ends.append(EventId(*metrics[-1][0]))
    if ends:
        events = [event for event in events if event.id <= min(ends)]
    ended = job.status in TERMINAL_STATUSES
    for index, event in enumerate(events):
        may_wait = not ended and event.id.attempt == job.attempt
        before = events[index - 1].id if index else position
        first_of_attempt = before.attempt < event.id.attempt and event.id.sequence == 1
        if may_wait and not first_of_attempt and before != (event.id.attempt, event.id.sequence - 1):
            return Replay(events[:index], more=False, ended=False)
    return Replay(events, more=bool(ends), ended=ended and not ends)


def is_past_end(session: Session, job_id: str, position: EventId) -> bool:
    """Whether a client at `position` has had the job's last event: its reconnect is answered with 204."""
    done = session.execute(
        select(JobEventRow.attempt, JobEventRow.sequence)
        .join(JobRow, JobRow.id == JobEventRow.job)
        .where(
            JobEventRow.job == job_id,
            JobEventRow.kind == "done",
            JobEventRow.attempt == JobRow.attempt,
            JobRow.status.in_(TERMINAL_STATUSES),
        )
    ).first()
    return done is not None and position >= EventId(*done)
