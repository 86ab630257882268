"""A job's loss curve in the caller's format."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Annotated, Any, Literal, assert_never

import numpy as np
import orjson
from fastapi import APIRouter, Depends, Query, Request, Response

from app.api.dependencies import Accept, CallerDep, JobId, Services, ServicesDep, only_parameters
from app.api.schemas import CurveDocument, NonFinite
from app.auth import Caller
from app.http.delivery import NOT_MODIFIED, deliver
from app.http.negotiation import chosen
from app.http.problems import Problem, responses
from app.jobs.documents import not_ready
from app.openapi import examples
from app.report import figures
from app.store import curves
from app.store.curve_format import Curve, Floats
from app.store.curves import Outline, Part
from app.store.jobs import JobRepository
from app.store.tables import JobRow

router = APIRouter(tags=["jobs"])

RENDERING = 2  # part of the ETag: raise it when the same points are written or drawn differently than before
JSON, CSV, BINARY, PNG = "application/json", "text/csv", "application/octet-stream", "image/png"
CSV_EXAMPLE = (
    "step,loss,gradient_norm,validation,learning_rate,skipped\n"
    "1,11.2,0.4,,0.003,false\n2,nan,inf,,0.003,true\n3,10.7,0.6,9.8,0.0029,false\n"
)
BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
COLUMNS = (
    *(("step", "<i8"), ("loss", "<f8"), ("gradient_norm", "<f8"), ("validation", "<f8"), ("learning_rate", "<f8")),
    ("skipped", "<i8"),
)

MaxPoints = Annotated[int | None, Query(ge=4, le=1_000_000, description="Default: every point.")]
FromStep = Annotated[int | None, Query(ge=0, le=2**53, description="The first step wanted; default: the curve's.")]
ToStep = Annotated[int | None, Query(ge=0, le=2**53, description="The last step wanted; default: the curve's.")]
Validated = Annotated[bool, Query(description="Only the points with a validation.")]
Method = Annotated[Literal["minmax"], Query(description="How `max_points` chooses.")]


_PARAMETERS = ("max_points", "method", "from_step", "to_step", "validated")


@router.get(
    "/jobs/{job_id}/curve",
    operation_id="jobs_curve",
    summary="The loss curve, as JSON, CSV, raw columns or PNG by `Accept`",
    description=(
        "`max_points` thins a long curve out and keeps its spikes: each stretch keeps its lowest and highest loss. "
        "`from_step` and `to_step` (both inclusive) ask for a part of it, `validated` for the points with a "
        "validation; `total_points` counts the whole curve all the same. "
        "JSON has no NaN: such values are null there, and `non_finite` says which they were. The raw form is the six "
        "columns step (int64), loss, gradient_norm, validation and learning_rate (float64) and skipped (int64: 0, 1), "
        "little-endian, one after another; `X-Points` counts the points. The PNG draws every point. Each form has an "
        "address of its own too: `curve.json`, `curve.csv`, `curve.bin`, `curve.png`."
    ),
    response_model=CurveDocument,
    responses={
        200: {
            "content": {
                JSON: {"example": examples.CURVE},
                CSV: {"schema": {"type": "string"}, "example": CSV_EXAMPLE},
                BINARY: BYTES,
                PNG: BYTES,
            },
            "headers": {name: {"schema": {"type": "string"}} for name in ("ETag", "Cache-Control", "Vary", "X-Points")},
        },
        304: NOT_MODIFIED,
        **responses(
            "job_not_found",
            "no_curve",
            "not_acceptable",
            "precondition_failed",
            "not_ready",
            "no_result",
            "invalid_request",
            "damaged_data",
        ),
    },
    dependencies=[Depends(only_parameters(*_PARAMETERS))],
)
def jobs_curve(
    job_id: JobId,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    max_points: MaxPoints = None,
    method: Method = "minmax",  # noqa: ARG001
    from_step: FromStep = None,
    to_step: ToStep = None,
    validated: Validated = False,
    accept: Accept = None,
) -> Response:
    wanted, part = chosen(accept, (JSON, CSV, BINARY, PNG)), Part(from_step, to_step, validated)
    return _answer(request, services, caller, job_id, wanted, max_points, part, negotiated=True)


def _has_an_address(form: str, media_type: str, content: dict[str, Any]) -> None:
    """GET /jobs/{job_id}/curve.<form>: one form of the curve, whatever `Accept` says."""

    def thinned(
        job_id: JobId,
        request: Request,
        services: ServicesDep,
        caller: CallerDep,
        max_points: MaxPoints = None,
        method: Method = "minmax",  # noqa: ARG001
        from_step: FromStep = None,
        to_step: ToStep = None,
        validated: Validated = False,
    ) -> Response:
        part = Part(from_step, to_step, validated)
        return _answer(request, services, caller, job_id, media_type, max_points, part, negotiated=False)

    def whole(job_id: JobId, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
        return _answer(request, services, caller, job_id, media_type, None, Part(), negotiated=False)

    parameters = () if media_type == PNG else _PARAMETERS
    headers = ("ETag", "Cache-Control", "X-Points")
    router.add_api_route(
        f"/jobs/{{job_id}}/curve.{form}",
        thinned if parameters else whole,
        operation_id=f"jobs_curve_{form}",
        summary=f"The loss curve as `{media_type}`, whatever `Accept` says",
        response_class=Response,
        responses={
            200: {
                "content": {media_type: content},
                "headers": {name: {"schema": {"type": "string"}} for name in headers},
            },
            304: NOT_MODIFIED,
            **responses(
                "job_not_found",
                "no_curve",
                "precondition_failed",
                "not_ready",
                "no_result",
                "invalid_request",
                "damaged_data",
            ),
        },
        dependencies=[Depends(only_parameters(*parameters))],
    )


_has_an_address("json", JSON, {"schema": {"$ref": "#/components/schemas/CurveDocument"}, "example": examples.CURVE})
_has_an_address("csv", CSV, {"schema": {"type": "string"}, "example": CSV_EXAMPLE})
_has_an_address("bin", BINARY, BYTES)
_has_an_address("png", PNG, BYTES)


def _answer(
    request: Request,
    services: Services,
    caller: Caller,
    job_id: str,
    wanted: str,
    max_points: int | None,
    part: Part,
    *,
    negotiated: bool,
) -> Response:
    """A picture shows the whole curve, whatever `part` says."""
    shown = 0
    part = Part() if wanted == PNG else part

    def content() -> bytes:
        nonlocal shown
        if not part.is_whole:
            curve, total = curves.part(session, outline, part, max_points)
        elif max_points is None or wanted == PNG:
            curve = curves.read(session, job_id)
            total = len(curve)
        else:
            curve, total = curves.thinned(session, outline, max_points)
        if not total:
            raise none_yet()
        shown = len(curve)
        if wanted == PNG:
            return _png(JobRepository(session, caller.workspace).get(job_id), curve)
        return _FORMS[wanted](outline, curve, total)

    def none_yet() -> Problem:
        job = JobRepository(session, caller.workspace).get(job_id)
        return not_ready(job, "loss curve", within_seconds=services.settings.curve_flush_seconds)

    # Of one statement each: what is read later may be newer than the ETag, which then does its holder no harm.
    with services.database.autocommit_read() as session:
        # who has an answer already will mostly keep it, and needs no overviews
        thins = max_points is not None and wanted != PNG and part.is_whole
        certain = thins and "if-none-match" not in request.headers
        outline = curves.outline(session, job_id, caller.workspace, with_overviews=certain)
        match outline.kind:
            case "meta_train":
                pass
            case "evaluate" | "preview" as kind:
                raise Problem(
                    "no_curve",
                    f"Job {job_id} ({kind}) trains nothing and has no such curve: see /jobs/{job_id}/report.",
                )
            case "sweep":
                raise Problem(
                    "no_curve",
                    f"Job {job_id} (sweep) has the curves of its children: GET /jobs?sweep={job_id} lists them.",
                )
            case never:
                assert_never(never)
        if outline.is_empty:
            raise none_yet()  # whatever the conditions of the request: there is nothing that they could be about
        answer = deliver(
            request.headers,
            content,
            wanted,
            cache_control="private, no-cache",
            etag=_etag(outline, wanted, max_points, part),
            negotiated=negotiated,
        )
    if answer.status_code == 200:
        answer.headers["X-Points"] = str(shown)
    return answer


def _etag(outline: Outline, wanted: str, max_points: int | None, part: Part) -> str:
    """Weak, and known without reading a point: all that the answer is made of, in a few words."""
    thinned = [max_points] if max_points is not None and wanted != PNG else []
    cut = [] if part.is_whole else [part.from_step, part.to_step, int(part.validated)]
    progress = [outline.step] if wanted == PNG else []  # stands under the picture
    job = [outline.job_id, outline.attempt, outline.status]
    parts = [*job, *outline.state, *progress, wanted.partition("/")[2], *thinned, *cut, RENDERING]
    return 'W/"' + "-".join(map(str, parts)) + '"'


def _json(outline: Outline, curve: Curve, total_points: int) -> bytes:
    # orjson writes a column as it lies in memory, NaN and infinities as null: a sixth of the time of lists
    document = {
        "job": outline.job_id,
        "attempt": outline.attempt,
        "status": outline.status,
        "total_points": total_points,
        **{name: np.ascontiguousarray(getattr(curve, name)) for name, _ in COLUMNS},
        "non_finite": [found.model_dump() for found in _non_finite(curve)],
    }
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _non_finite(curve: Curve) -> list[NonFinite]:
    names: tuple[Literal["loss", "gradient_norm"], ...] = ("loss", "gradient_norm")
    found = []
    for name in names:
        values: Floats = getattr(curve, name)
        for index in np.flatnonzero(~np.isfinite(values)):
            value: Any = "nan" if np.isnan(values[index]) else "inf" if values[index] > 0 else "-inf"
            found.append(NonFinite(index=int(index), column=name, value=value))
    return found


def _csv(_outline: Outline, curve: Curve, _total_points: int) -> bytes:
    """`nan` and `inf` as they are; an empty cell where nothing was validated, or no learning rate was stored."""
    out = io.StringIO()
    out.write(",".join(name for name, _ in COLUMNS) + "\n")
    columns = (getattr(curve, name).tolist() for name, _ in COLUMNS)
    for step, loss, gradient_norm, validation, learning_rate, skipped in zip(*columns, strict=True):
        score, rate = ("" if value != value else repr(value) for value in (validation, learning_rate))
        out.write(f"{step},{loss!r},{gradient_norm!r},{score},{rate},{'true' if skipped else 'false'}\n")
    return out.getvalue().encode()


def _binary(_outline: Outline, curve: Curve, _total_points: int) -> bytes:
    return b"".join(np.ascontiguousarray(getattr(curve, name), dtype).tobytes() for name, dtype in COLUMNS)


def _png(job: JobRow, curve: Curve) -> bytes:
    attempt = f", attempt {job.attempt}" if job.attempt > 1 else ""
    return figures.loss_curve(
        {name: getattr(curve, name) for name, _ in COLUMNS},
        title=f"Meta-training on {job.family}",
        subtitle=f"{job.id}, seed {job.spec['seed']}{attempt}: {job.status}, step {job.step:,} of {job.total:,}",
        windows_per_trajectory=job.spec["recipe"]["horizon"] // job.spec["recipe"]["unroll_steps"],
    )


_FORMS: dict[str, Callable[[Outline, Curve, int], bytes]] = {JSON: _json, CSV: _csv, BINARY: _binary}
