"""Is the process alive, and can it serve? For supervisors and load balancers."""

from __future__ import annotations

from fastapi import APIRouter
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from app.api.dependencies import ServicesDep
from app.api.schemas import Health
from app.errors import responses

router = APIRouter(tags=["health"])


@router.get(
    "/healthz",
    operation_id="health_live",
    summary="The process answers",
    responses={200: {"content": {"application/json": {"example": {"status": "ok", "checks": {}}}}}, **responses()},
)
async def health_live() -> Health:
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="health_ready",
    summary="The stores can be reached",
    description=(
        "503 while the database is away or not migrated. Without Redis the server still takes jobs and shows results; "
        "they run and stream live when it is back, so that is `degraded` and not an error."
    ),
    responses={
        200: {
            "content": {"application/json": {"example": {"status": "ok", "checks": {"database": "ok", "redis": "ok"}}}}
        },
        **responses(),
    },
)
async def health_ready(services: ServicesDep) -> Health:
    await run_in_threadpool(services.database.check)
    try:
        await services.redis.ping()
    except (RedisError, OSError):
        return Health(status="degraded", checks={"database": "ok", "redis": "cannot be reached"})
    return Health(status="ok", checks={"database": "ok", "redis": "ok"})
