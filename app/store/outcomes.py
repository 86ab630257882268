"""How a job ends well: its product is registered in the very transaction that makes it `succeeded`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.store import events
from app.store.events import EventId, JobEvent
from app.store.jobs import JobRepository, end, spec_of
from app.store.leases import Lease, held
from app.store.registry import Registry
from app.store.sql import clock
from app.store.tables import EvaluationRow, JobRow, OptimizerRow
from models.spec import MetaTrainSpec


@dataclass(frozen=True)
class Outcome:
    """What was written. `event` is the `done` event, to be sent live once the transaction is committed.

    A job that was being cancelled ends as cancelled: then there is no `optimizer` and no `follow_up`.
    """

    job: JobRow
    event: JobEvent
    optimizer: OptimizerRow | None = None
    follow_up: JobRow | None = None  # the `evaluate` job of a `meta_train` job's own result


def finish_training(
    session: Session,
    lease: Lease,
    event_id: EventId,
    *,
    weights: bytes,
    validation_score: float | None,
    card: dict[str, Any],
    shortfall: str | None = None,
    last_events: Sequence[JobEvent] = (),
) -> Outcome:
    """Store the last events (with the end of the curve), register the optimizer, set the job `succeeded`, and enqueue
    its evaluation when its spec asks for one.

    event_id: id of the `done` event
    shortfall: why `latest` and `best` may not name the optimizer; this becomes the job's reason
    Raises LeaseLost.
    """
    job = held(session, lease)
    spec = spec_of(job)
    assert isinstance(spec, MetaTrainSpec), f"job {job.id} is no meta_train job"
    events.append(session, job.id, last_events)
    if job.status == "cancelling":
        return Outcome(job, end(session, job, "cancelled", None, event_id))
    optimizer = Registry(session, job.workspace).register(
        job, weights, validation_score, card, automatic=shortfall is None, criterion=spec.recipe.criterion
    )
    job.optimizer = optimizer.id
    job.step = job.total
    follow_up, evaluation = None, spec.follow_up(optimizer.id)
    if evaluation is not None:
        follow_up = JobRepository(session, job.workspace).create(
            evaluation, job.labels, parent=job.id, priority=job.priority, api_key=job.api_key
        )
    return Outcome(job, end(session, job, "succeeded", shortfall, event_id), optimizer, follow_up)


@dataclass(frozen=True)
class Found:
    """An optimizer that an evaluation found, and that `best` may name: the best tuned baseline, or a learned schedule.

    weights: its file, the same bytes for the same settings
    criterion: what the score is of
    shortfall: why `best` may not name it
    stands_for: the id of the optimizer in whose place `best` names a schedule; None for a tuned baseline
    """

    weights: bytes
    validation_score: float
    criterion: str
    card: dict[str, Any]
    shortfall: str | None
    stands_for: str | None = None


@dataclass(frozen=True)
class Own:
    """The validation score that an evaluation gave to an optimizer which was uploaded.

    criterion: what the score is of; shortfall: why `latest` and `best` may not name it
    """

    validation_score: float
    criterion: str
    shortfall: str | None


def finish_with_result(
    session: Session,
    lease: Lease,
    event_id: EventId,
    *,
    result: dict[str, Any],
    found: Found | None = None,
    own: Own | None = None,
    last_events: Sequence[JobEvent] = (),
) -> Outcome:
    """Store the last events and what the job measured, register what it found unless that is there, and set the job
    `succeeded`. `result` is JSON without NaN. own: from now on `latest` and `best` may name the uploaded optimizer.

    Raises LeaseLost.
    """
    job = held(session, lease)
    events.append(session, job.id, last_events)
    if job.status == "cancelling":
        return Outcome(job, end(session, job, "cancelled", None, event_id))
    if own is not None:
        _score(session, job, own)
    if found is not None:
        Registry(session, job.workspace).register(
            *(job, found.weights, found.validation_score, found.card),
            automatic=found.shortfall is None,
            criterion=found.criterion,
            tuned=found.stands_for is None,
            stands_for=found.stands_for,
        )
    session.add(
        EvaluationRow(
            job=job.id,
            workspace=job.workspace,
            optimizer=job.optimizer,
            family=job.family,
            result=result,
            created_at=clock(),
        )
    )
    job.step = job.total
    return Outcome(job, end(session, job, "succeeded", None, event_id))


def _score(session: Session, job: JobRow, own: Own) -> None:
    """The first score stays: the same weights on the same tasks have no other."""
    row = session.get_one(OptimizerRow, job.optimizer, with_for_update=True)
    if row.uploaded is None or row.validation_score is not None:
        return
    row.automatic = own.shortfall is None and math.isfinite(own.validation_score)
    row.criterion = own.criterion
    if math.isfinite(own.validation_score):
        row.validation_score = own.validation_score
    if own.shortfall is not None:
        row.card = row.card | {"shortfall": own.shortfall}
