"""The curves of several jobs at once, as lines to draw."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from app.api.curves import FromStep, ToStep
from app.api.dependencies import CallerDep, ServicesDep, only_parameters
from app.http.delivery import NOT_MODIFIED, deliver
from app.http.problems import responses
from app.jobs.schemas import JobStatus
from app.openapi.examples import JOB_ID
from app.store import curves
from app.store.curve_format import Curve
from app.store.curves import Outline, Part
from app.store.errors import JobNotFound
from app.store.ids import is_id

router = APIRouter(tags=["jobs"])

MOST_JOBS = 32
RENDERING = 1  # part of the ETag: raise it when the same points are written differently than before


class Line(BaseModel):
    """A curve to draw: columns of equal length, by rising step, of seven digits."""

    job: str
    attempt: int
    status: JobStatus
    total_points: int = Field(description="Points of the whole curve; more than sent when it was thinned out.")
    step: list[int]
    loss: list[float | None] = Field(description="Null where it is not finite.")
    validation: list[float | None] = Field(description="Null where none was measured.")


class Lines(BaseModel):
    data: list[Line] = Field(description="In the order of the request.")


_EXAMPLE = {"job": JOB_ID, "attempt": 1, "status": "running", "total_points": 3, "step": [1, 2, 3]}
_COLUMNS = {"loss": [11.2, 10.9, 10.7], "validation": [None, None, 9.8]}


@router.get(
    "/curves",
    operation_id="jobs_curves",
    summary="The loss curves of several jobs, as lines to draw",
    description=(
        f"Up to {MOST_JOBS} jobs, each as `job=<id>`. Every curve is thinned to `max_points` as by "
        "`/jobs/{job_id}/curve`, which has all columns and all digits; a job without points has empty columns here. "
        "The `ETag` changes when an answer would."
    ),
    response_model=Lines,
    responses={
        200: {"content": {"application/json": {"example": {"data": [_EXAMPLE | _COLUMNS]}}}},
        304: NOT_MODIFIED,
        **responses("job_not_found", "invalid_request", "precondition_failed", "damaged_data"),
    },
    dependencies=[Depends(only_parameters("job", "max_points", "from_step", "to_step", several=("job",)))],
)
def jobs_curves(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    job: Annotated[list[str], Query(min_length=1, max_length=MOST_JOBS, description="A job's id.")],
    max_points: Annotated[int, Query(ge=4, le=10_000, description="Points of each curve.")] = 500,
    from_step: FromStep = None,
    to_step: ToStep = None,
) -> Response:
    part = Part(from_step, to_step)
    for job_id in job:
        if not is_id("job", job_id):
            raise JobNotFound(job_id)
    with services.database.autocommit_read() as session:
        outlines = [curves.outline(session, job_id, caller.workspace) for job_id in job]
        asked = [max_points, from_step, to_step, RENDERING]
        states = [[each.job_id, each.attempt, each.status, *each.state] for each in outlines]
        digest = hashlib.sha256(orjson.dumps([asked, states])).hexdigest()

        def content() -> bytes:
            lines = [_line(each, *curves.part(session, each, part, max_points)) for each in outlines]
            return orjson.dumps({"data": lines}, option=orjson.OPT_SERIALIZE_NUMPY)

        return deliver(
            request.headers,
            content,
            "application/json",
            cache_control="private, no-cache",
            etag=f'W/"{digest}"',
            negotiated=False,
        )


def _line(outline: Outline, curve: Curve, total_points: int) -> dict[str, Any]:
    return {
        "job": outline.job_id,
        "attempt": outline.attempt,
        "status": outline.status,
        "total_points": total_points,
        "step": np.ascontiguousarray(curve.step),
        # seven digits: half the bytes of all of them
        "loss": np.ascontiguousarray(curve.loss, np.float32),
        "validation": np.ascontiguousarray(curve.validation, np.float32),
    }
