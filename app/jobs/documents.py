"""Rows of jobs as the documents that users read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from sqlalchemy.orm import Session

from app.http.problems import Problem
from app.jobs.dispatch import Dispatcher
from app.jobs.schemas import Job, JobPrice, Progress, TrialPlace
from app.store.jobs import JobRepository, kind_of
from app.store.tables import TERMINAL_STATUSES, JobRow


def progress_of(job: JobRow) -> Progress:
    return Progress(step=job.step, total=job.total, eta_seconds=job.eta_seconds)


def job_document(session: Session, job: JobRow, dispatcher: Dispatcher | None = None) -> Job:
    """The job as the API shows it. Without a dispatcher its reason is the stored one, not what it waits for now."""
    jobs = JobRepository(session, job.workspace)
    return _job(job, jobs.queue_position(job), evaluation_of(jobs, job), reason_of(job, dispatcher))


def job_documents(session: Session, rows: Sequence[JobRow], dispatcher: Dispatcher | None = None) -> list[Job]:
    """`job_document` for several jobs; one query finds all their places in the queue."""
    if not rows:
        return []
    positions = JobRepository(session, rows[0].workspace).queue_positions(rows)
    repositories = {row.workspace: JobRepository(session, row.workspace) for row in rows}
    return [
        _job(row, positions.get(row.id), evaluation_of(repositories[row.workspace], row), reason_of(row, dispatcher))
        for row in rows
    ]


def reason_of(job: JobRow, dispatcher: Dispatcher | None) -> str | None:
    """`status_reason`: of a queued job also what it waits for, as `dispatcher` saw it last."""
    waits_for = dispatcher.obstacle(job.device) if dispatcher is not None and job.status == "queued" else None
    return "; ".join(reason for reason in (job.status_reason, waits_for) if reason) or None


def evaluation_of(jobs: JobRepository, job: JobRow) -> str | None:
    """The id of the newest `evaluate` job that this `meta_train` or `sweep` job asked for."""
    match kind_of(job):
        case "evaluate" | "preview":
            return None
        case "meta_train" | "sweep":
            if job.status != "succeeded":
                return None
        case never:
            assert_never(never)
    children = jobs.page(parent=job.id, kind="evaluate", limit=1).rows
    return children[0].id if children else None


def _job(job: JobRow, queue_position: int | None, evaluation: str | None, reason: str | None) -> Job:
    return Job(
        id=job.id,
        kind=job.kind,
        family=job.family,
        status=job.status,
        status_reason=reason,
        attempt=job.attempt,
        queue_position=queue_position,
        progress=progress_of(job),
        optimizer=job.optimizer,
        parent=job.parent_job,
        evaluation=evaluation,
        sweep=job.sweep,
        trial=_place(job),
        price=_price_of(job),
        metadata=job.labels,
        spec=job.spec,
        runtime=job.runtime,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _place(job: JobRow) -> TrialPlace | None:
    if job.sweep is None or job.trial is None:
        return None
    return TrialPlace(number=job.trial, rung=job.rung or 0, values=job.swept)


def _price_of(job: JobRow) -> JobPrice | None:
    """Predicted and actual seconds; None where no worker has begun."""
    if job.started_at is None or job.status == "queued":
        return None
    told = job.runtime.get("predicted") or {}
    return JobPrice(
        predicted_seconds=told.get("seconds", {}).get("total"),
        actual_seconds=None if job.finished_at is None else (job.finished_at - job.started_at).total_seconds(),
        rests_on=told.get("rests_on", []),
    )


def not_ready(job: JobRow, what: str, within_seconds: float = 60.0) -> Problem:
    """409: `what` of this job is not there yet, or never will be; with its progress, for programs. `within_seconds`:
    how long it takes at most once the job runs, however long that runs."""
    progress = progress_of(job)
    members: dict[str, Any] = {"job": job.id, "job_status": job.status, "progress": progress.model_dump()}
    if job.status in TERMINAL_STATUSES:
        reason = f": {job.status_reason}" if job.status_reason else ""
        return Problem("no_result", f"Job {job.id} has no {what}; it ended as {job.status}{reason}.", **members)
    doing = {"queued": "still waits in the queue", "cancelling": "is being cancelled"}.get(
        job.status, f"is still running (step {progress.step:,} of {progress.total:,})"
    )
    return Problem(
        "not_ready",
        f"Job {job.id} {doing}, so there is no {what} yet. Follow /jobs/{job.id}/events or try again later.",
        headers={"Retry-After": str(max(1, min(60, round(min(progress.eta_seconds or 2, within_seconds)))))},
        **members,
    )
