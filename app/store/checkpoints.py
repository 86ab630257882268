"""The newest checkpoint of a job: what its next attempt goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.store.events import EventId
from app.store.leases import Lease, held
from app.store.sql import clock
from app.store.tables import CheckpointRow


@dataclass(frozen=True)
class Checkpoint:
    """
    step: the meta-step it was made after
    event_id: the `checkpoint` event that told of it
    runtime: the facts of the attempt that wrote it
    identical: whether an uninterrupted run with those facts would have come to the same bits; once an attempt has gone
        on under other facts, no later checkpoint of the run is
    """

    step: int
    event_id: EventId
    content: bytes
    runtime: dict[str, Any]
    identical: bool


def put(
    session: Session,
    lease: Lease,
    step: int,
    event_id: EventId,
    content: bytes,
    *,
    runtime: Mapping[str, Any],
    identical: bool,
) -> None:
    """Replace the job's checkpoint. Store the curve up to `step` in the same transaction. Raises LeaseLost."""
    held(session, lease)
    session.merge(
        CheckpointRow(
            job=lease.job_id,
            attempt=event_id.attempt,
            sequence=event_id.sequence,
            step=step,
            content=content,
            runtime=dict(runtime),
            identical=identical,
            created_at=clock(),
        )
    )
    session.flush()


def newest(session: Session, job_id: str) -> Checkpoint | None:
    row = session.get(CheckpointRow, job_id, populate_existing=True)
    if row is None:
        return None
    return Checkpoint(row.step, EventId(row.attempt, row.sequence), row.content, row.runtime, row.identical)
