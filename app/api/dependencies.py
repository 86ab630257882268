"""What endpoints are given: the process's services, and checks that several of them share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Header, Query, Request
from redis.asyncio import Redis

from app.api.downloading import Downloading
from app.api.examination import Examination
from app.auth import Caller, unkeyed
from app.auth.keyring import KeyRing
from app.auth.rates import RateLimits
from app.batching import Batching
from app.http.problems import FieldError, invalid_request, pointer_of
from app.http.wording import IDEMPOTENCY_KEY_PATTERN, choice
from app.jobs.dispatch import Dispatcher
from app.jobs.submission import Submission
from app.jobs.sweeps.coordinator import Coordinator
from app.metrics import Metrics
from app.settings import Settings
from app.store.errors import JobNotFound
from app.store.idempotency import Answer
from app.store.ids import is_id
from app.store.references import Located
from app.store.sessions import Database
from app.store.weights import WeightsCache
from app.streams import StreamHub


@dataclass(frozen=True)
class Services:
    """One of each per process; the lifespan of `app.main` opens and closes them."""

    settings: Settings
    database: Database
    redis: Redis
    hub: StreamHub
    dispatcher: Dispatcher
    sweeps: Coordinator
    keys: KeyRing
    rates: RateLimits | None
    metrics: Metrics
    downloads: Batching[tuple[str, str], Located]  # (workspace, reference) -> where it is
    submissions: Batching[Submission, Answer]
    doctor: Examination
    downloading: Downloading
    weights: WeightsCache = field(default_factory=WeightsCache)


# Those that wait for nothing are async all the same: FastAPI would give each a thread of its own otherwise.


async def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


async def caller(request: Request) -> Caller:
    """The caller, as app.http.admission identified it; on a server without keys, everybody is the same one."""
    found: Caller | None = request.scope.get("state", {}).get("caller")
    return unkeyed() if found is None else found


async def known_job_id(job_id: str) -> str:
    """A path's job id. One that is malformed names no job, and is never shown to the database."""
    if not is_id("job", job_id):
        raise JobNotFound(job_id)
    return job_id


def only_parameters(
    *names: str, prefix: str | None = None, several: Container[str] = ()
) -> Callable[[Request], Awaitable[None]]:
    """A dependency that refuses other query parameters, and one that is given twice unless it may stand `several`
    times: a filter that is misspelt would silently list everything, and of two that differ one would silently win."""

    known = (*names, f"{prefix}<key>") if prefix else names

    async def check(request: Request) -> None:
        wrong = []
        for name in request.query_params:
            times = len(request.query_params.getlist(name))
            if name not in names and not (prefix is not None and name.startswith(prefix)):
                wrong.append((name, "unknown", f"{name!r} is not a parameter here; {choice(name, known)}"))
            elif times > 1 and name not in several:
                wrong.append((name, "repeated", f"{name!r} is given {times} times; give it once"))
        if wrong:
            raise invalid_request(
                [
                    FieldError(location="query", pointer=pointer_of([name]), code=code, message=message)
                    for name, code, message in wrong
                ]
            )

    return check


ServicesDep = Annotated[Services, Depends(services)]
CallerDep = Annotated[Caller, Depends(caller)]
JobId = Annotated[str, Depends(known_job_id)]
Accept = Annotated[str | None, Header(include_in_schema=False)]
Limit = Annotated[int, Query(ge=1, le=100, description="Items a page.")]
After = Annotated[str | None, Query(max_length=1024, description="`next` of the page before, unchanged.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=IDEMPOTENCY_KEY_PATTERN,
        description="Any text of yours. The same key and body within 24 hours get the first answer again.",
    ),
]
