"""Is the process alive, and can it serve? For supervisors and load balancers."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from redis.exceptions import RedisError, ResponseError
from starlette.concurrency import run_in_threadpool

from app.api.dependencies import Services, ServicesDep
from app.api.schemas import Health
from app.commands import command
from app.http.problems import Problem, responses
from app.metrics.writable import WRITE, refusal
from app.store.errors import DatabaseUnavailable, SchemaIncomplete, SchemaMismatch
from app.store.sessions import Database

router = APIRouter(tags=["health"])

OK = "ok"
AWAY = "cannot be reached"


@router.get(
    "/healthz",
    operation_id="health_live",
    summary="The process answers",
    responses={
        200: {"content": {"application/json": {"example": {"status": "ok", "checks": {}}}}},
        **responses(public=True),
    },
)
async def health_live() -> Health:
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="health_ready",
    summary="The stores can be reached",
    description=(
        "503 while the database is away, not migrated or lacks tables; `checks` names what is wrong with each store. "
        "Without a Redis that accepts writes, the server still takes jobs and shows results; they run and stream live "
        "when it is back, so that is `degraded` and not an error."
    ),
    responses={
        200: {
            "content": {"application/json": {"example": {"status": "ok", "checks": {"database": "ok", "redis": "ok"}}}}
        },
        **responses(public=True),
    },
)
async def health_ready(services: ServicesDep) -> Health:
    database, redis = await asyncio.gather(run_in_threadpool(_of_database, services.database), _of_redis(services))
    checks = {"database": database, "redis": redis}
    if database != OK:
        raise Problem(
            "store_unavailable",
            f"This server is not ready. The database {database}; Redis " + ("answers." if redis == OK else f"{redis}."),
            checks=checks,
        )
    return Health(status="ok" if redis == OK else "degraded", checks=checks)


def _of_database(database: Database) -> str:
    try:
        database.check()
    except SchemaIncomplete as error:  # its message names hosts and folders, as do those below; the doctor tells them
        return f"is broken, it lacks {error.lacks}: {command('doctor')} says what to do"
    except SchemaMismatch:
        return f"is not migrated to this version: run {command('migrate')}"
    except DatabaseUnavailable:
        return AWAY
    return OK


async def _of_redis(services: Services) -> str:
    try:
        await services.redis.execute_command(*WRITE)  # type: ignore[no-untyped-call]
    except ResponseError as error:
        return refusal(error)
    except (RedisError, OSError):
        return AWAY
    return OK
