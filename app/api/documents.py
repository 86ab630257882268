"""Rows of the store as the documents that users read: each is written in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.api.schemas import Alias, EvaluationSummary, Job, Optimizer, Progress
from app.dispatch import Dispatcher
from app.errors import Problem
from app.report.card import CardFacts
from app.store.aliases import tag_of
from app.store.jobs import JobRepository
from app.store.records import records, unfinished_evaluations
from app.store.registry import Registry
from app.store.tables import TERMINAL_STATUSES, AliasRow, JobRow, OptimizerRow


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
    """The id of the newest `evaluate` job that this `meta_train` job asked for."""
    if job.kind != "meta_train" or job.status != "succeeded":
        return None
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
        metadata=job.labels,
        spec=job.spec,
        runtime=job.runtime,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
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


def optimizer_documents(session: Session, workspace: str, rows: Sequence[OptimizerRow]) -> list[Optimizer]:
    """The optimizers of these rows, all of which belong to that workspace."""
    return [
        Optimizer(
            id=record.row.id,
            family=record.row.family,
            version=record.row.version,
            reference=f"{record.row.family}@{record.row.version}",
            aliases=record.aliases,
            tags=record.tags,
            job=record.row.job,
            sha256=record.row.sha256,
            size_bytes=record.size_bytes,
            validation_score=record.row.validation_score,
            automatic=record.row.automatic,
            card=record.row.card,
            evaluations=[EvaluationSummary(**vars(measured)) for measured in record.evaluations],
            created_at=record.row.created_at,
        )
        for record in records(session, workspace, rows)
    ]


def etag_of_alias(row: AliasRow) -> str:
    return f'"{tag_of(row)}"'


def alias_document(row: AliasRow, optimizer: OptimizerRow) -> Alias:
    return Alias(
        family=row.family,
        alias=row.alias,
        reference=f"{row.family}@{row.alias}",
        optimizer=row.optimizer,
        version=optimizer.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        etag=etag_of_alias(row),
    )


def card_facts(session: Session, row: OptimizerRow) -> CardFacts:
    registry, job = Registry(session, row.workspace), JobRepository(session, row.workspace).get(row.job)
    [record] = records(session, row.workspace, [row])
    return CardFacts(
        id=row.id,
        reference=f"{row.family}@{row.version}",
        created_at=row.created_at,
        sha256=row.sha256,
        size_bytes=record.size_bytes,
        aliases=[f"{row.family}@{alias}" for alias in record.aliases],
        validation_score=row.validation_score,
        shortfall=None if row.automatic else job.status_reason,
        job=row.job,
        spec=job.spec,
        runtime=job.runtime,
        summary=row.card,
        evaluations=[(evaluation.job, evaluation.result) for evaluation in registry.evaluations(row.id)],
        measuring=unfinished_evaluations(session, row),
    )
