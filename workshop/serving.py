"""Real HTTP servers in a thread of the caller's process: uvicorn with the service, or with an app of the caller's."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from app.host.protocol import patient
from app.main import create_app
from app.settings import Settings

START_SECONDS = 20.0


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The URL of the service; it has stopped when the block ends."""
    protocol = patient(settings.head_timeout_seconds)
    with _running(create_app(settings), log_level="error", loop="uvloop", http=protocol, lifespan="on") as url:
        yield url


@contextmanager
def serving_app(app: FastAPI) -> Iterator[str]:
    """The URL of that app; it has stopped when the block ends."""
    with _running(app, log_level="critical", ws="none") as url:
        yield url


@contextmanager
def _running(app: FastAPI, **options: object) -> Iterator[str]:
    config = uvicorn.Config(app, timeout_graceful_shutdown=1, **options)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            deadline = time.monotonic() + START_SECONDS
            while not server.started:
                assert thread.is_alive(), "the server ended before it had started"
                assert time.monotonic() < deadline, f"the server did not start in {START_SECONDS:.0f} s"
                time.sleep(0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(START_SECONDS)
            assert not thread.is_alive(), f"the server did not stop in {START_SECONDS:.0f} s"
