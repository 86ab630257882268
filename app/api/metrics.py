"""GET /metrics, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from app.api.dependencies import ServicesDep
from app.http.problems import responses
from app.metrics.exposition import MEDIA_TYPE

router = APIRouter(tags=["health"])

_EXAMPLE = """# HELP gradsmith_jobs Jobs by status; `queued` is the queue's depth.
# TYPE gradsmith_jobs gauge
gradsmith_jobs{device="cpu",status="queued"} 3.0
"""


@router.get(
    "/metrics",
    operation_id="metrics_read",
    summary="Metrics in Prometheus' text format",
    description=(
        "Queue depth and age, workers and their speed, lost workers, streams, HTTP latencies, the stores. The same "
        "from every API process: docs/operations.md says what each means and when to worry."
    ),
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE}}},
        **responses(),
    },
)
async def metrics_read(services: ServicesDep) -> Response:
    # a store that is away makes this wait for seconds
    text = await run_in_threadpool(services.metrics.render)
    return Response(text, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})
