"""The web application: `create_app()` gives uvicorn what it serves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial

from fastapi import FastAPI
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from starlette.concurrency import run_in_threadpool

from app import auth
from app.api import (
    aliases,
    anatomy,
    curve_lines,
    curves,
    datasets,
    doctor,
    downloads,
    event_stream,
    families,
    health,
    jobs,
    keys,
    metrics,
    optimizer_changes,
    optimizers,
    pages,
    previews,
    reports,
    searches,
)
from app.api.dependencies import Services
from app.api.downloading import Downloading
from app.api.examination import Examination
from app.auth.keyring import KeyRing
from app.auth.rates import rates_of
from app.batching import Batching
from app.http import problems
from app.http.admission import Admission
from app.http.body import BodyGate
from app.http.compression import Compression
from app.http.middleware import Guard, HeadAsGet, RequestId, SecurityHeaders
from app.http.observed import Observed
from app.http.paths import Paths
from app.http.prefix import Prefix
from app.jobs import submission
from app.jobs.dispatch import Dispatcher
from app.jobs.sweeps.coordinator import Coordinator
from app.metrics import Metrics
from app.openapi import document as openapi
from app.openapi.reference import reference_page
from app.settings import Settings
from app.store.sessions import Database
from app.streams import StreamHub
from app.version import VERSION

ROUTERS = (
    jobs,
    event_stream,
    curves,
    curve_lines,
    reports,
    searches,
    families,
    datasets,
    downloads,
    aliases,
    optimizers,
    optimizer_changes,
    anatomy,
    keys,
    health,
    doctor,
    metrics,
    pages,
    previews,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application with its own stores and dispatcher, which open when it starts and close when it stops.

    `settings` default to the environment's. A database or Redis that is away is no reason not to start: /readyz says
    so, and requests answer 503.
    """
    chosen = Settings() if settings is None else settings
    measured = Metrics(chosen, VERSION)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(chosen.resolved_database_url, chosen.database_connections)
        redis = Redis.from_url(
            chosen.resolved_redis_url, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
        )
        hub = StreamHub(chosen, database, measured.instruments)
        await hub.start()
        dispatcher = Dispatcher(chosen, database)
        dispatcher.start()
        sweeps = Coordinator(chosen, database, dispatcher.wake)
        sweeps.start()
        key_ring = KeyRing(database, chosen.key_cache_seconds)
        key_ring.start()
        measured.open(database)
        app.state.services = Services(
            settings=chosen,
            database=database,
            redis=redis,
            hub=hub,
            dispatcher=dispatcher,
            sweeps=sweeps,
            metrics=measured,
            keys=key_ring,
            rates=rates_of(chosen, redis),
            downloads=Batching(partial(optimizers.located, database)),
            doctor=Examination(chosen),
            downloading=Downloading(),
            submissions=Batching(partial(submission.submit, database, chosen), submission.MOST_TOGETHER),
        )
        try:
            yield
        finally:
            app.state.services.doctor.close()
            app.state.services.downloading.close()
            await hub.stop()
            await key_ring.stop()
            await run_in_threadpool(sweeps.stop)
            await run_in_threadpool(dispatcher.stop)
            await redis.aclose()
            measured.close()
            database.close()

    app = FastAPI(
        title="Gradsmith",
        version=VERSION,
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # theirs loads its script from elsewhere; /docs is ours
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lose a POST's body
        separate_input_output_schemas=False,
    )
    routes = [route for module in ROUTERS for route in module.router.routes]
    # include_router would build each of them anew at the first requests; no router here adds anything to its routes
    app.router.routes.extend(routes)
    paths = Paths(app.routes)
    problems.install(app, paths)
    keyed = auth.keys_required(chosen)
    openapi.install(app, routes, keyed=keyed)
    app.state.reference = cache(lambda: reference_page(app.openapi(), keyed=keyed))
    # the last one added is the first to see a request
    app.add_middleware(BodyGate, limit_bytes=chosen.body_limit_bytes, timeout_seconds=chosen.body_timeout_seconds)
    app.add_middleware(Admission, settings=chosen)
    app.add_middleware(Guard, settings=chosen)
    app.add_middleware(Observed, instruments=measured.instruments, paths=paths)
    app.add_middleware(Compression)
    app.add_middleware(HeadAsGet)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestId)
    if chosen.root_path:
        app.add_middleware(Prefix, root_path=chosen.root_path)
    return app
