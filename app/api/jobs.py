"""Jobs: post, look, list, cancel, retry."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from app.api.dependencies import (
    After,
    CallerDep,
    IdempotencyKey,
    JobId,
    Limit,
    ServicesDep,
    only_parameters,
)
from app.api.previews import pricing
from app.api.schemas import Page
from app.http.delivery import NOT_MODIFIED, deliver
from app.http.fields import MAX_LABELS, Labels, Name
from app.http.problems import field_errors, invalid_request, responses
from app.jobs.documents import job_document, job_documents
from app.jobs.kinds import JobRequest
from app.jobs.schemas import Job, JobStatus, Price
from app.jobs.submission import prepared
from app.openapi import examples
from app.store import sweeps
from app.store.jobs import JobRepository
from app.store.keys import quotas
from app.store.sql import LOCK_SECONDS, wait_for_locks
from models.spec import JobKind

router = APIRouter(tags=["jobs"])

_LABELS: TypeAdapter[dict[str, str]] = TypeAdapter(Labels)
_ONE_JOB: dict[str, Any] = {"content": {"application/json": {"example": examples.JOB}}}


@router.post(
    "/jobs",
    operation_id="jobs_create",
    summary="Start a job: train a rule on a family, sweep recipes, measure an optimizer, or preview a family",
    description=(
        "Only `kind` and `family` (or `optimizer`) are required; the answer shows the whole resolved spec. Also "
        "accepted while Redis is away: the job runs when it is back. With `dry_run=true` nothing is queued: the answer "
        "is 200 with what the job would need, or the refusal that the job would have met."
    ),
    status_code=202,
    response_model=Job,
    responses={
        200: {
            "description": "The price, for `dry_run=true`.",
            "model": Price,
            "content": {"application/json": {"example": examples.PRICE}},
        },
        202: {
            "description": "Queued. `Location` is the job's address.",
            "content": {"application/json": {"example": examples.QUEUED_JOB}},
            "headers": {
                "Location": {"schema": {"type": "string"}},
                "Idempotent-Replayed": {
                    "description": "`true` when the key had this answer already.",
                    "schema": {"type": "string"},
                },
            },
        },
        **responses(
            "invalid_json", "cross_origin", "idempotency_in_flight", "body_too_large",
            "unsupported_media_type", "invalid_request", "unknown_family", "unknown_optimizer", "not_installed",
            "data_set_missing", "job_too_large", "idempotency_conflict", "quota_exceeded",
        ),
    },
    dependencies=[Depends(only_parameters("dry_run"))],
)  # fmt: skip
async def jobs_create(
    body: Annotated[
        JobRequest,
        Body(
            openapi_examples={
                "smallest": {"summary": "Train with the family's recipe", "value": examples.META_TRAIN},
                "changed": {"summary": "Change parts of the recipe", "value": examples.META_TRAIN_CHANGED},
                "evaluate": {"summary": "Measure an optimizer", "value": examples.EVALUATE},
                "preview": {"summary": "See how tuned baselines do on a family", "value": examples.PREVIEW},
                "sweep": {"summary": "Train with many recipes and keep the best", "value": examples.SWEEP},
            }
        ),
    ],
    services: ServicesDep,
    caller: CallerDep,
    idempotency_key: IdempotencyKey = None,
    dry_run: Annotated[
        bool, Query(description="Whether to queue nothing, and to tell what the job would need.")
    ] = False,
) -> Response:
    if dry_run:
        return _written(await run_in_threadpool(pricing(services).priced, body, caller))
    given = (body, caller, services.settings, idempotency_key)
    asked = await run_in_threadpool(prepared, *given) if body.slow_to_resolve else prepared(*given)
    answer = await services.submissions.ask(asked)
    services.dispatcher.wake()
    services.sweeps.wake()
    headers = answer.headers | ({"Idempotent-Replayed": "true"} if answer.replayed else {})
    return Response(answer.body, answer.status_code, headers, media_type="application/json")


@router.get(
    "/jobs",
    operation_id="jobs_list",
    summary="List jobs, newest first",
    description=(
        f"`metadata.<key>=<value>` filters by your labels, up to {MAX_LABELS} of them. `brief` leaves `spec` and "
        "`runtime` empty: a tenth of the bytes for whoever asks again and again. The `ETag` changes when an answer "
        "would."
    ),
    responses={
        200: {"content": {"application/json": {"example": {"data": [examples.JOB], "has_more": False, "next": None}}}},
        304: NOT_MODIFIED,
        **responses("bad_cursor", "invalid_request", "precondition_failed"),
    },
    response_model=Page[Job],
    dependencies=[
        Depends(only_parameters("status", "kind", "family", "sweep", "brief", "limit", "after", prefix="metadata."))
    ],
)
def jobs_list(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    status: Annotated[JobStatus | None, Query()] = None,
    kind: Annotated[JobKind | None, Query()] = None,
    family: Annotated[Name | None, Query()] = None,
    sweep: Annotated[Name | None, Query(description="The id of a sweep: its children.")] = None,
    brief: Annotated[bool, Query(description="Whether to leave `spec` and `runtime` empty.")] = False,
    limit: Limit = 20,
    after: After = None,
) -> Response:
    labels = _labels_of(request)
    with services.database.read() as session:
        page = JobRepository(session, caller.workspace).page(
            status=status, kind=kind, family=family, sweep=sweep, labels=labels, limit=limit, after=after
        )
        documents = job_documents(session, page.rows, services.dispatcher)
    if brief:
        documents = [document.model_copy(update={"spec": {}, "runtime": {}}) for document in documents]
    content = Page[Job](data=documents, has_more=page.has_more, next=page.next).model_dump_json().encode()
    return deliver(request.headers, content, "application/json", cache_control="private, no-cache", negotiated=False)


@router.get(
    "/jobs/{job_id}",
    operation_id="jobs_get",
    summary="One job: status, progress, resolved spec",
    response_model=Job,
    responses={200: _ONE_JOB, **responses("job_not_found")},
)
def jobs_get(job_id: JobId, services: ServicesDep, caller: CallerDep) -> Response:
    with services.database.autocommit_read() as session:  # what follows the job's row is asked for a few of them only
        job = job_document(session, JobRepository(session, caller.workspace).get(job_id), services.dispatcher)
    return _written(job)


@router.post(
    "/jobs/{job_id}/cancel",
    operation_id="jobs_cancel",
    summary="Cancel a job",
    description=(
        "A queued job is cancelled at once (200); a running one is asked to stop (202, `cancelling`). The children of "
        "a sweep are cancelled with it."
    ),
    responses={
        200: _ONE_JOB,
        202: {"description": "It is being cancelled.", "model": Job, **_ONE_JOB},
        **responses("cross_origin", "job_not_found", "job_finished", "unsupported_media_type", "body_too_large"),
    },
)
def jobs_cancel(job_id: JobId, services: ServicesDep, caller: CallerDep, response: Response) -> Job:
    with services.database.write() as session:
        job = JobRepository(session, caller.workspace).cancel(job_id)
        sweeps.cancel_children(session, job)
        response.status_code = 202 if job.status == "cancelling" else 200
        return job_document(session, job)


@router.post(
    "/jobs/{job_id}/retry",
    operation_id="jobs_retry",
    summary="Run a failed or cancelled job again",
    description=(
        "A new attempt, from its last checkpoint where it has one. A sweep goes on, with those of its children that "
        "failed or were cancelled; such a child is retried with its sweep alone."
    ),
    status_code=202,
    responses={
        202: _ONE_JOB,
        **responses(
            "cross_origin", "job_not_found", "job_finished", "job_not_finished", "unsupported_media_type",
            "body_too_large", "not_installed", "quota_exceeded",
        ),
    },
)  # fmt: skip
def jobs_retry(job_id: JobId, services: ServicesDep, caller: CallerDep, response: Response) -> Job:
    with services.database.write() as session:
        wait_for_locks(session, LOCK_SECONDS)
        job = JobRepository(session, caller.workspace).retry(job_id)
        sweeps.retry_children(session, job)
        if job.api_key is not None:
            quotas(session, [job.api_key], services.settings.max_active_jobs, besides=job.id)[job.api_key].take()
        document = job_document(session, job, services.dispatcher)
    services.dispatcher.wake()
    services.sweeps.wake()
    response.headers["Location"] = f"/jobs/{job_id}"
    return document


def _written(document: BaseModel) -> Response:
    """FastAPI itself would validate it once more, and in one more thread: no small part of a small answer."""
    return Response(document.model_dump_json(), media_type="application/json")


def _labels_of(request: Request) -> dict[str, str]:
    given = {
        name.removeprefix("metadata."): value
        for name, value in request.query_params.items()
        if name.startswith("metadata.")
    }
    try:
        return _LABELS.validate_python(given)
    except ValidationError as error:
        errors = field_errors(error.errors(include_url=False), location="query", within=("metadata",))
        raise invalid_request(errors) from error
