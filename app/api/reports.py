"""What a job measured, as JSON, as a page of its own, as a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, assert_never

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from app.api.dependencies import Accept, CallerDep, JobId, Services, ServicesDep
from app.auth import Caller
from app.http.delivery import NOT_MODIFIED, deliver
from app.http.negotiation import chosen
from app.http.problems import Problem, responses
from app.jobs.documents import evaluation_of, not_ready
from app.openapi.examples import BREAK_EVEN, COMPARISON, EVALUATION_ID, OPTIMIZER_ID
from app.report.evaluation_figure import evaluation
from app.report.html import CONTENT_SECURITY_POLICY
from app.report.order import in_order
from app.report.page import evaluation_page
from app.report.preview import preview, preview_page
from app.store.errors import EvaluationNotFound
from app.store.jobs import JobRepository, kind_of
from app.store.registry import Registry
from app.store.tables import EvaluationRow, JobRow

router = APIRouter(tags=["jobs"])

JSON, HTML, PNG = "application/json", "text/html", "image/png"
RENDERING = 5  # part of the ETag: raise it when the same result reads or looks different than before

_EXAMPLE = {
    "format": 3,
    "job": EVALUATION_ID,
    "optimizer": OPTIMIZER_ID,
    "family": "quadratic",
    "seed": 7,
    "horizon": 100,
    "test_tasks": 512,
    "tuning_tasks": 128,
    "criteria": {"final": "mean loss of the last 5 steps", "area": "mean loss of all steps after the start"},
    "verdict": {"final": "wins", "area": "wins"},
    "break_even": BREAK_EVEN,
    "comparisons": {"adam": {"final": COMPARISON, "area": COMPARISON}},
}

_CONTENT: dict[str, dict[str, Any]] = {
    JSON: {"schema": {"type": "object"}, "example": _EXAMPLE},
    HTML: {"schema": {"type": "string"}, "example": '<!doctype html>\n<html lang="en"> ... </html>\n'},
    PNG: {"schema": {"type": "string", "format": "binary"}},
}


@router.get(
    "/jobs/{job_id}/report",
    operation_id="jobs_report",
    summary="What a job measured, as JSON, a self-contained HTML page or PNG by `Accept`",
    description=(
        "The result of an `evaluate` or a `preview` job. A `meta_train` or `sweep` job shows the report of the "
        "evaluation that it asked for. Each form has an address of its own "
        "too: `report.json`, `report.html`, `report.png`."
    ),
    responses={
        200: {"content": _CONTENT},
        304: NOT_MODIFIED,
        **responses("job_not_found", "not_acceptable", "not_ready", "no_result", "precondition_failed"),
    },
)
def jobs_report(
    job_id: JobId, request: Request, services: ServicesDep, caller: CallerDep, accept: Accept = None
) -> Response:
    return _answer(request, services, caller, job_id, chosen(accept, (JSON, HTML, PNG)), "report")


def _has_an_address(form: str, media_type: str) -> None:
    """GET /jobs/{job_id}/report.<form>: one form of the report, whatever `Accept` says."""

    def one_form(job_id: JobId, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
        return _answer(request, services, caller, job_id, media_type, f"report.{form}", negotiated=False)

    router.add_api_route(
        f"/jobs/{{job_id}}/report.{form}",
        one_form,
        operation_id=f"jobs_report_{form}",
        summary=f"What a job measured as `{media_type}`, whatever `Accept` says",
        response_class=Response,
        responses={
            200: {"content": {media_type: _CONTENT[media_type]}},
            304: NOT_MODIFIED,
            **responses("job_not_found", "not_ready", "no_result", "precondition_failed"),
        },
    )


_has_an_address("json", JSON)
_has_an_address("html", HTML)
_has_an_address("png", PNG)


def _answer(
    request: Request,
    services: Services,
    caller: Caller,
    job_id: str,
    wanted: str,
    address: str,
    *,
    negotiated: bool = True,
) -> Response:
    """address: the last part of its path, which `Content-Location` repeats."""
    with services.database.read() as session:
        row, forms = _measured(session, JobRepository(session, caller.workspace).get(job_id))
    named = {"job": row.job} | ({"optimizer": row.optimizer} if row.optimizer is not None else {})

    def content() -> bytes:
        if wanted == PNG:
            return forms.picture(row.result)
        if wanted == HTML:
            return forms.page(row.result, **named).encode()
        return json.dumps(in_order(named | row.result)).encode()

    return deliver(
        request.headers,
        content,
        wanted,
        cache_control="private, no-cache",
        etag=f'W/"{row.job}-{wanted.partition("/")[2]}-{RENDERING}"',  # a result never changes
        headers={"Content-Location": f"/jobs/{row.job}/{address}"}
        | ({"Content-Security-Policy": CONTENT_SECURITY_POLICY} if wanted == HTML else {}),
        negotiated=negotiated,
    )


class _Forms(NamedTuple):
    """What shows a result; `page` takes the ids of its job and, where it has one, its optimizer."""

    picture: Callable[[Mapping[str, Any]], bytes]
    page: Callable[..., str]


def _measured(session: Session, job: JobRow) -> tuple[EvaluationRow, _Forms]:
    """Raises Problem `not_ready` or `no_result`, with the progress of the job that is waited for."""
    match kind_of(job):
        case "meta_train" | "sweep":
            if job.status != "succeeded":
                raise not_ready(job, "report")
            return _measured(session, _own_evaluation(session, job))
        case "evaluate":
            forms = _Forms(evaluation, evaluation_page)
        case "preview":
            forms = _Forms(preview, preview_page)
        case never:
            assert_never(never)
    try:
        return Registry(session, job.workspace).evaluation(job.id), forms
    except EvaluationNotFound:
        raise not_ready(job, "report") from None


def _own_evaluation(session: Session, job: JobRow) -> JobRow:
    """The newest evaluation that a training or a sweep asked for. Raises Problem `no_result`."""
    jobs = JobRepository(session, job.workspace)
    child = evaluation_of(jobs, job)
    if child is None:
        raise Problem(
            "no_result",
            f"Job {job.id} was asked not to evaluate its result. "
            f'POST /jobs with {{"kind": "evaluate", "optimizer": "{job.optimizer}"}} does.',
        )
    return jobs.get(child)
