"""Jobs as their users see them: create, look, list, cancel, retry. What workers do with them is in `leases`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from app.store import events, insertion, outbox
from app.store.errors import JobFinished, JobNotFinished, JobNotFound
from app.store.events import EventId, JobEvent
from app.store.ids import new_id
from app.store.pages import Page, page_of
from app.store.queue import Queues
from app.store.sessions import now
from app.store.sql import clock, has_label
from app.store.tables import DEFAULT_WORKSPACE, TERMINAL_STATUSES, JobRow, OutboxRow
from app.store.transitions import Status, move
from models.errors import SpecUnreadable, UnknownKind
from models.families import no_such_kind
from models.spec import JobKind, JobSpec
from models.task_spec import UNKNOWN_KIND

_ONE = select(JobRow).where(JobRow.id == bindparam("job"), JobRow.workspace == bindparam("workspace"))
_LOCKED = _ONE.with_for_update().execution_options(populate_existing=True)

_JOB_SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)


def spec_of(job: JobRow) -> JobSpec:
    """The job's spec as it was resolved when it was created.

    Raises UnknownKind or SpecUnreadable where what is installed here cannot read it.
    """
    try:
        return _JOB_SPEC.validate_python(job.spec)
    except ValidationError as error:
        plugin = job.spec["family"].get("plugin")
        wrong = error.errors(include_url=False)[0]
        if wrong["type"] == UNKNOWN_KIND:
            raise UnknownKind(no_such_kind(wrong["ctx"]["name"], plugin)) from error
        place = ".".join(str(part) for part in wrong["loc"][1:])
        made_with = f"; it was made with {plugin}" if plugin else ""
        raise SpecUnreadable(
            f"What is installed here cannot read the job's spec: {place}: {wrong['msg']}{made_with}. Install the "
            f"version that it was made with, or post the job anew."
        ) from error


def kind_of(job: JobRow) -> JobKind:
    """The job's kind as a type checker knows it: a `match` over it that lacks one does not pass."""
    kind: JobKind = job.kind  # type: ignore[assignment]
    return kind


@dataclass(frozen=True)
class Place:
    """Where a child stands in its sweep: its number and rung, from 0, and what was swept, by field."""

    sweep: str
    trial: int
    rung: int
    values: Mapping[str, Any]


class JobRepository:
    """The jobs of one workspace, within the caller's transaction."""

    def __init__(self, session: Session, workspace: str = DEFAULT_WORKSPACE) -> None:
        self._session = session
        self._workspace = workspace

    def create(
        self,
        spec: JobSpec,
        labels: Mapping[str, str] | None = None,
        *,
        parent: str | None = None,
        priority: int = 0,
        api_key: str | None = None,
    ) -> JobRow:
        """A queued job and its doorbell. `labels` is the API's `metadata`; `api_key` is whose share it counts on."""
        job = self.new(spec, labels, parent=parent, priority=priority, api_key=api_key)
        insertion.write(self._session, [job])
        return job

    def new(
        self,
        spec: JobSpec,
        labels: Mapping[str, str] | None = None,
        *,
        parent: str | None = None,
        priority: int = 0,
        api_key: str | None = None,
        place: Place | None = None,
    ) -> JobRow:
        """Like `create`, but writes nothing: `insertion.write` writes several together. place: of a sweep's child"""
        return JobRow(
            id=new_id("job"),
            workspace=self._workspace,
            kind=spec.kind,
            family=spec.family.name,
            status="queued" if spec.needs_worker else "running",
            spec=spec.model_dump(mode="json"),
            labels=dict(labels or {}),
            api_key=api_key,
            device=spec.resources.device,
            priority=priority,
            attempt=1,
            lost_workers=0,
            step=0,
            total=spec.total,
            parent_job=parent,
            sweep=place.sweep if place else None,
            trial=place.trial if place else None,
            rung=place.rung if place else None,
            swept=dict(place.values) if place else {},
            optimizer=spec.measures,
            runtime={},
        )

    def get(self, job_id: str) -> JobRow:
        """Raises JobNotFound, also for a job of another workspace."""
        return self._one(job_id, lock=False)

    def page(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        family: str | None = None,
        labels: Mapping[str, str] | None = None,
        parent: str | None = None,
        sweep: str | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> Page[JobRow]:
        """Newest first. `after` is the `next` of a page with the same filters, else BadCursor."""
        filters: dict[str, Any] = {"status": status, "kind": kind, "family": family, "parent": parent, "sweep": sweep}
        filters |= {"labels": dict(labels or {})}
        query = select(JobRow).where(JobRow.workspace == self._workspace)
        for column, value in (
            (JobRow.status, status),
            (JobRow.kind, kind),
            (JobRow.family, family),
            (JobRow.parent_job, parent),
            (JobRow.sweep, sweep),
        ):
            if value is not None:
                query = query.where(column == value)
        for key, value in (labels or {}).items():
            query = query.where(has_label(JobRow.__table__.c.labels, key, value))
        return page_of(self._session, query, JobRow.id, limit, after, ["jobs", self._workspace, filters])

    def queue_position(self, job: JobRow) -> int | None:
        """How many jobs for the same device are served before it; None unless it is queued."""
        return self.queue_positions([job]).get(job.id)

    def queue_positions(self, jobs: Sequence[JobRow]) -> dict[str, int]:
        """`queue_position` of those that are queued, by id; as `app.store.queue` knows them."""
        queues: Queues = self._session.info.get("queues") or Queues()
        return queues.positions(self._session, jobs)

    def cancel(self, job_id: str) -> JobRow:
        """Queued: `cancelled` at once. Running: `cancelling`, and the worker ends it. Raises JobFinished otherwise."""
        job = self._one(job_id, lock=True)
        if job.status == "queued":
            outbox.cancel(self._session, job.id)
            end(self._session, job, "cancelled", "cancelled while queued", None)
        elif job.status == "running":
            move(job, "cancelling", "cancellation was requested")
        elif job.status not in ("cancelling", "cancelled"):
            raise JobFinished(job.id, job.status, "it can no longer be cancelled.")
        self._session.flush()
        return job

    def retry(self, job_id: str) -> JobRow:
        """A new attempt of a failed or cancelled job, from its newest checkpoint if it has one.

        Raises JobNotFinished while it is queued or running, JobFinished when it succeeded, and what `spec_of` raises:
        no attempt could run.
        """
        job = self._one(job_id, lock=True)
        if job.status == "succeeded":
            raise JobFinished(job.id, job.status, "there is nothing to retry. POST /jobs runs it again as a new job.")
        if job.status not in TERMINAL_STATUSES:
            raise JobNotFinished(job.id, job.status, "only a failed or cancelled job can be retried.")
        if job.sweep is not None:
            advice = f"it is trial {job.trial} of {job.sweep}, with which it is retried: POST /jobs/{job.sweep}/retry."
            raise JobFinished(job.id, job.status, advice)
        spec = spec_of(job)
        moment = now(self._session)
        job.lost_workers = 0
        job.queue_key = insertion.queue_key(moment, job.priority)
        if spec.needs_worker:
            requeue(self._session, job, "retried")
        else:
            again(self._session, job, "running", "retried")
            job.started_at = moment
        return job

    def newest_unfinished(self, family: str) -> JobRow | None:
        """The newest `meta_train` job of a family that has not ended: what `family@latest` may be waiting for."""
        return self._session.scalar(
            select(JobRow)
            .where(
                JobRow.workspace == self._workspace,
                JobRow.family == family,
                JobRow.kind == "meta_train",
                JobRow.status.not_in(TERMINAL_STATUSES),
            )
            .order_by(JobRow.id.desc())
            .limit(1)
        )

    def _one(self, job_id: str, *, lock: bool) -> JobRow:
        job = self._session.scalar(_LOCKED if lock else _ONE, {"job": job_id, "workspace": self._workspace})
        if job is None:
            raise JobNotFound(job_id)
        return job


def requeue(session: Session, job: JobRow, reason: str, *, delay_seconds: float = 0.0) -> JobEvent:
    """Put a locked job back into the queue as its next attempt, with doorbell and event; nobody holds it then."""
    job.not_before = clock(delay_seconds) if delay_seconds > 0 else None
    session.add(OutboxRow(job=job.id, attempt=job.attempt + 1, created_at=clock()))
    return again(session, job, "queued", reason)


def again(session: Session, job: JobRow, status: Status, reason: str) -> JobEvent:
    """Begin the next attempt of a locked job with this status."""
    move(job, status, reason)
    job.attempt += 1
    job.lease_owner = job.lease_expires_at = job.finished_at = job.eta_seconds = None
    event = JobEvent.of(EventId(job.attempt, 1), "status", {"status": status, "attempt": job.attempt, "reason": reason})
    events.append(session, job.id, [event])
    session.flush()
    return event


def end(session: Session, job: JobRow, status: str, reason: str | None, event_id: EventId | None) -> JobEvent:
    """Give a locked job its terminal status and its `done` event (with the next free id, unless one is given).

    A job that is being cancelled ends as cancelled, whatever `status` says.
    """
    if job.status == "cancelling":
        status, reason = "cancelled", "cancelled while running"
    move(job, status, reason)  # type: ignore[arg-type]  # the table checks it
    match kind_of(job):
        case "meta_train" | "sweep":
            if status != "succeeded":
                job.optimizer = None
        case "evaluate" | "preview":
            pass  # what it measures, whether or not it did
        case never:
            assert_never(never)
    job.lease_owner = job.lease_expires_at = job.not_before = job.eta_seconds = None
    job.finished_at = clock()
    event = JobEvent.of(
        event_id or events.next_id(session, job.id, job.attempt),
        "done",
        {"status": status, "reason": reason, "optimizer": job.optimizer},
    )
    events.append(session, job.id, [event])
    session.flush()
    return event
