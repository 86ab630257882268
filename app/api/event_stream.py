"""A job's events as they happen: server-sent events with resume.

The endpoint is async and holds no database connection while it streams: the hub joins stored and live events.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from app.api.dependencies import CallerDep, JobId, Services, ServicesDep, only_parameters
from app.http.problems import Problem, responses
from app.jobs.documents import progress_of, reason_of
from app.store import events
from app.store.errors import StoreError
from app.store.events import START, EventId, EventKind, JobEvent
from app.store.jobs import JobRepository

router = APIRouter(tags=["jobs"])

HEARTBEAT_SECONDS = 15.0
RECONNECT_MILLISECONDS = 1000
# When the server stops: the next one has a moment to start, and its clients do not all come at once.
STOPPING_MILLISECONDS = (1000, 3000)

# After a failure: a fault of the database often lasts, and its clients should not add to it.
FAILED_MILLISECONDS = (3000, 9000)

logger = logging.getLogger(__name__)

_EXAMPLE = """retry: 1000

event: status
data: {"status": "running", "attempt": 1, "reason": null, "progress": {"step": 0, "total": 1000, "eta_seconds": null}}

event: metrics
data: {"step": [1, 2], "loss": [11.2, 10.9], "gradient_norm": [0.4, 0.5], "validation": [null, null], \
"learning_rate": [0.003, 0.003], "skipped": [false, false]}
id: 1-2

event: done
data: {"status": "succeeded", "reason": null, "optimizer": "opt_0198f0c3f00d7b21a1b2c3d4e5f60718"}
id: 1-19
"""

# One event: its members as text. `itemSchema` is new in OpenAPI 3.2; tools of 3.1 take `schema` for that of an event.
_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": list(get_args(EventKind))},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string", "pattern": "^[0-9]+-[0-9]+$"},
        "retry": {"type": "integer"},
    },
}
# Told to readers alone: what does not fit is answered 400 `bad_event_id`, and not 422. Empty is as if it was not sent.
_AN_ID: dict[str, Any] = {"pattern": "^([0-9]{1,9}-[0-9]{1,18})?$", "examples": ["1-42"]}


@router.get(
    "/jobs/{job_id}/events",
    operation_id="jobs_events",
    summary="The job's events as server-sent events",
    description=(
        "`status`, `metrics`, `log`, `checkpoint`, `resumed` (drop the points after its `from_step`), `rolled_back`, "
        "`start_ended`, `stopped_early` (what a training decided) and `done`, after which the stream ends. Ids are "
        "`<attempt>-<sequence>`; `Last-Event-ID`, or `after`, resumes with nothing lost or doubled. The first event is "
        "a `status` without an id: how the job stands now. A comment keeps idle connections open. A server that stops, "
        "or whose database fails, ends the stream with a new `retry:`; come "
        "back after it, and nothing is lost. 204 when the caller has had the last event: an EventSource then stops "
        "reconnecting. `metrics=false` leaves the points out, for whoever has the curve. An id of an attempt that has "
        "not begun is refused. A stream whose key is revoked or expires "
        "ends with a comment that says so."
    ),
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {"x-item-schema": _EVENT, "example": _EXAMPLE}}},
        204: {"description": "There is nothing after this event and there will not be."},
        **responses("bad_event_id", "job_not_found", "invalid_request"),
    },
    dependencies=[Depends(only_parameters("after", "metrics"))],
)
async def jobs_events(
    job_id: JobId,
    services: ServicesDep,
    caller: CallerDep,
    after: Annotated[
        str | None, Query(description="An event's id; `Last-Event-ID` is newer and wins.", json_schema_extra=_AN_ID)
    ] = None,
    metrics: Annotated[bool, Query(description="Whether to send `metrics` events.")] = True,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", json_schema_extra=_AN_ID)] = None,
) -> Response:
    # both are read, so that what is wrong is said whichever of them counts
    given = [EventId.parse(text) for text in (last_event_id, after) if text]
    position = given[0] if given else START
    standing = await run_in_threadpool(_standing, services, caller.workspace, job_id, position)
    if standing is None:
        return Response(status_code=204)
    # FastAPI's EventSourceResponse would leave no way to answer 204, and no say in the heartbeat.
    return StreamingResponse(
        _stream(services, job_id, position, standing, metrics=metrics),
        media_type="text/event-stream",
        # X-Accel-Buffering: nginx would hold events back
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _standing(services: Services, workspace: str, job_id: str, position: EventId) -> dict[str, Any] | None:
    """How the job stands now, or None when the caller has had its last event. Raises JobNotFound, and Problem
    `bad_event_id` for an event of an attempt that has not begun: whoever waited behind it would miss all that comes.

    Further along in an attempt than is stored is no such mistake: events are live before they are durable, and those
    of a worker that is lost never become it.
    """
    with services.database.read() as session:
        job = JobRepository(session, workspace).get(job_id)
        if position.attempt > job.attempt:
            raise Problem(
                "bad_event_id",
                f"There is no event {str(position)!r}: the job is at attempt {job.attempt}. Send the id of an event "
                "that you were given, or none, and have all of them.",
            )
        if position != START and events.is_past_end(session, job_id, position):
            return None
        return {
            "status": job.status,
            "attempt": job.attempt,
            "reason": reason_of(job, services.dispatcher),
            "progress": progress_of(job).model_dump(),
        }


async def _stream(
    services: Services, job_id: str, position: EventId, standing: dict[str, Any], *, metrics: bool
) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=RECONNECT_MILLISECONDS)
    yield format_sse_event(event="status", data_str=json.dumps(standing))
    async with aclosing(services.hub.events(job_id, position)) as found:
        upcoming: asyncio.Task[JobEvent] | None = None
        try:
            while True:
                upcoming = upcoming or asyncio.ensure_future(anext(found))
                # not wait_for: its cancellation would end the generator
                done, _ = await asyncio.wait({upcoming}, timeout=HEARTBEAT_SECONDS)
                if not done:
                    yield format_sse_event(comment="waiting")
                    continue
                try:
                    event = upcoming.result()
                except StopAsyncIteration:
                    if services.hub.stopping:
                        yield format_sse_event(
                            comment="this server stops; come back with Last-Event-ID",
                            retry=random.randint(*STOPPING_MILLISECONDS),
                        )
                    return
                except Exception as error:  # noqa: BLE001  (the answer has begun: no problem document can follow)
                    _log_failure(job_id, error)
                    yield format_sse_event(
                        comment="this stream failed; come back with Last-Event-ID",
                        retry=random.randint(*FAILED_MILLISECONDS),
                    )
                    return
                upcoming = None
                if event.kind == "metrics" and not metrics:
                    continue
                yield format_sse_event(event=event.kind, data_str=event.text, id=str(event.id))
        finally:
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.wait({upcoming})


def _log_failure(job_id: str, error: Exception) -> None:
    """Log why a stream ended: one line for what the store foresees, else a traceback."""
    trace = None if isinstance(error, StoreError) else error
    logger.error("the event stream of job %s ended with a retry hint: %s", job_id, error, exc_info=trace)
