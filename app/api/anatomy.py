"""What an optimizer's updates look like, as its newest evaluation saw them."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from app.api.dependencies import Accept, CallerDep, Services, ServicesDep
from app.api.optimizers import locate
from app.auth import Caller
from app.http.delivery import NOT_MODIFIED, deliver
from app.http.negotiation import chosen
from app.http.problems import Problem, responses
from app.jobs.documents import not_ready
from app.openapi import examples
from app.report.anatomy import anatomy
from app.report.order import in_order
from app.store.jobs import JobRepository
from app.store.records import unfinished_evaluations
from app.store.registry import Anatomy, Registry
from app.store.tables import OptimizerRow

router = APIRouter(tags=["optimizers"])

JSON, SVG, PNG = "application/json", "image/svg+xml", "image/png"
RENDERING = 1  # part of the ETag: raise it when the same numbers are written or drawn differently than before

_CONTENT: dict[str, dict[str, Any]] = {
    JSON: {"schema": {"type": "object"}, "example": examples.ANATOMY},
    SVG: {"schema": {"type": "string"}, "example": "<svg> ... </svg>"},
    PNG: {"schema": {"type": "string", "format": "binary"}},
}


@router.get(
    "/optimizers/{reference}/anatomy",
    operation_id="optimizers_anatomy",
    summary="Its updates beside Adam's and RMSprop's, as JSON, SVG or PNG by `Accept`",
    description=(
        "On one held-out task of its family: the update of a coordinate as a function of its gradient, after chosen "
        "histories of gradients, and the updates of sampled coordinates over the first steps of a run "
        "(Andrychowicz et al. 2016, appendix B). Every evaluation writes them down; this shows those of the newest one "
        "on the family's own tasks, else of the newest. Each form has an address of its own too: `anatomy.json`, "
        "`anatomy.svg`, `anatomy.png`."
    ),
    responses={
        200: {"content": _CONTENT},
        304: NOT_MODIFIED,
        **responses("optimizer_not_found", "not_acceptable", "not_ready", "not_measured", "precondition_failed"),
    },
)
def optimizers_anatomy(
    reference: str, request: Request, services: ServicesDep, caller: CallerDep, accept: Accept = None
) -> Response:
    return _answer(request, services, caller, reference, chosen(accept, (JSON, SVG, PNG)), "anatomy")


def _has_an_address(form: str, media_type: str) -> None:
    """GET /optimizers/{reference}/anatomy.<form>: one form, whatever `Accept` says."""

    def one_form(reference: str, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
        return _answer(request, services, caller, reference, media_type, f"anatomy.{form}", negotiated=False)

    router.add_api_route(
        f"/optimizers/{{reference}}/anatomy.{form}",
        one_form,
        operation_id=f"optimizers_anatomy_{form}",
        summary=f"Its updates beside Adam's and RMSprop's as `{media_type}`, whatever `Accept` says",
        response_class=Response,
        responses={
            200: {"content": {media_type: _CONTENT[media_type]}},
            304: NOT_MODIFIED,
            **responses("optimizer_not_found", "not_ready", "not_measured", "precondition_failed"),
        },
    )


_has_an_address("json", JSON)
_has_an_address("svg", SVG)
_has_an_address("png", PNG)


def _answer(
    request: Request,
    services: Services,
    caller: Caller,
    reference: str,
    wanted: str,
    address: str,
    *,
    negotiated: bool = True,
) -> Response:
    """address: the last part of its path, which `Content-Location` repeats."""
    with services.database.read() as session:
        row = session.get_one(OptimizerRow, locate(session, caller.workspace, reference).id)
        found = _found(session, row)
    document = {
        "optimizer": row.id,
        "job": found.job,
        "family": found.family,
        "overrides": found.overrides,
        "seed": found.seed,
        **found.content,
    }

    def content() -> bytes:
        if wanted == JSON:
            return json.dumps(in_order(document)).encode()
        reference = f"{row.family}@{row.version}"
        return anatomy(document, reference=reference, image_format="svg" if wanted == SVG else "png")

    form = wanted.partition("/")[2].partition("+")[0]
    return deliver(
        request.headers,
        content,
        wanted,
        cache_control="private, no-cache",
        etag=f'W/"{row.id}-{found.job}-{form}-{RENDERING}"',  # what an evaluation saw never changes
        headers={"Content-Location": f"/optimizers/{row.id}/{address}"},
        negotiated=negotiated,
    )


def _found(session: Session, row: OptimizerRow) -> Anatomy:
    """Raises Problem `not_measured`, or `not_ready` where an evaluation is under way."""
    found = Registry(session, row.workspace).anatomy(row)
    if found is not None:
        return found
    for job, _ in unfinished_evaluations(session, row):
        raise not_ready(JobRepository(session, row.workspace).get(job), f"anatomy of {row.family}@{row.version}")
    raise Problem(
        "not_measured",
        f"No evaluation of {row.family}@{row.version} has written down its updates (those of older versions did not). "
        f'POST /jobs with {{"kind": "evaluate", "optimizer": "{row.id}"}} does.',
    )
