"""One API process: uvicorn with uvloop and httptools around `app.main:create_app`.

`python -m app.host.server` serves on GRADSMITH_HOST and GRADSMITH_PORT; the supervisor binds the socket itself and
hands it over with `--fd`, so that a restarted API keeps its address and its waiting clients.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import uvicorn
from pydantic import ValidationError
from pydantic_settings import SettingsError

from app import logs
from app.auth import UnguardedAddress, refuse_without_keys
from app.settings import Settings, explain
from app.store.errors import StoreError
from app.store.sessions import Database

if TYPE_CHECKING:
    from fastapi import FastAPI

GRACEFUL_SHUTDOWN_SECONDS = 3
BACKLOG = 2048


class AddressError(RuntimeError):
    """The address cannot be served on; the message says why and what to try."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises AddressError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise AddressError(f"--host {host}: {error.strerror}; use 127.0.0.1 or an address of this machine") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Listening from here on, clients wait for the API to come up instead of being refused.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressError(
            f"cannot serve on {host} port {port}: {error.strerror}. "
            "Use --port 0, which takes any free port, or name another with --port"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a browser on this machine finds `listener`."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn waits for open connections before it tells the application to stop. Event streams end only when they are
    told to; so they are told first, and say so to their clients."""

    def __init__(self, config: uvicorn.Config, application: FastAPI) -> None:
        super().__init__(config)
        self._application = application

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._application.state.services.hub.end_streams()
        await super().shutdown(sockets)


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT. Raises what `create_app` raises, and SystemExit when the start fails later."""
    from app.host.protocol import patient
    from app.main import create_app  # a second of imports that a wrong address or setting need not wait for

    application = create_app(settings)
    config = uvicorn.Config(
        application,
        # Without uvloop a small keep-alive answer waits 40 ms for the client's acknowledgement (no TCP_NODELAY).
        loop="uvloop",
        http=patient(settings.head_timeout_seconds),
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
        access_log=False,  # app.http.observed has more to say of a request
        log_config=None,  # app.logs
        server_header=False,
    )
    server = _Server(config, application)
    server.run(sockets=[listener])
    if not server.started:
        sys.exit(1)


def _refuse_without_keys(settings: Settings) -> None:
    """Raises UnguardedAddress. A database that is away is no reason not to start: without it nobody's key is valid."""
    with contextlib.suppress(StoreError), Database(settings.resolved_database_url) as database:
        refuse_without_keys(settings, database)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m app.host.server", description="Run one API process.")
    parser.add_argument("--fd", type=int, help="a listening socket that the parent process hands over")
    options = parser.parse_args(arguments)
    try:
        settings = Settings()
        logs.configure(settings.log_format, settings.log_level)
        _refuse_without_keys(settings)
        listener = socket.socket(fileno=options.fd) if options.fd is not None else bind(settings.host, settings.port)
        serve(settings, listener)
    except (ValidationError, SettingsError) as error:
        print(f"gradsmith-server: {explain(error)}", file=sys.stderr)
        return 2
    except (AddressError, StoreError, UnguardedAddress) as error:
        print(f"gradsmith-server: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
