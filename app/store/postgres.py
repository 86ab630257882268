"""Connections to Postgres: their pool, and prepared statements, which a pooler between may not bear."""

from __future__ import annotations

import select as select_files
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, InvalidatePoolError

KEPT_CONNECTIONS = 10
_THRESHOLD = "prepare_threshold"


def without_threshold(url: URL) -> URL:
    """`url` without what `engine_of` reads of it and psycopg would not understand."""
    return url.difference_update_query([_THRESHOLD])


def engine_of(url: URL, connections: int) -> Engine:
    """Raises ArgumentError for a `prepare_threshold` in `url` that is neither a number nor `none`."""
    given = url.query.get(_THRESHOLD)
    prepare: dict[str, Any] = {} if given is None else {_THRESHOLD: _threshold(given)}
    engine = create_engine(
        without_threshold(url),
        pool_size=min(KEPT_CONNECTIONS, connections),
        max_overflow=max(0, connections - KEPT_CONNECTIONS),
        pool_timeout=10,
        pool_use_lifo=True,  # one that was just used: its statements are prepared there, its server is in the caches
        connect_args={"connect_timeout": 10, "application_name": "gradsmith", **prepare},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        if not prepare and _is_pooled(connection):
            connection.prepare_threshold = None

    @event.listens_for(engine, "checkout")
    def _is_alive(connection: Any, _record: Any, _proxy: Any) -> None:
        # A restarted server costs a reconnect, not an error. It has said farewell, so there is something to read where
        # nothing was asked: seen without the journey of a ping, which would be a quarter of a short request.
        ready = select_files.poll()  # not select(): that knows 1,024 files, and each live stream is one
        ready.register(connection.fileno(), select_files.POLLIN)
        if connection.closed or ready.poll(0):
            raise InvalidatePoolError("the server closed this connection")

    @event.listens_for(engine, "do_execute")
    def _execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        # Text results, psycopg's default, hold bytes as hexadecimal digits: a long curve takes three times as long.
        if not context.execution_options.get("binary_results"):
            return False
        cursor.execute(statement, parameters, binary=True)
        return True

    return engine


def _threshold(given: str | tuple[str, ...]) -> int | None:
    """psycopg's: after how many executions a statement is prepared; None: never."""
    if str(given).lower() == "none":
        return None
    if not (isinstance(given, str) and given.isascii() and given.isdigit()):
        raise ArgumentError(f"prepare_threshold={given} is neither a whole number nor none")
    return int(given)


def _is_pooled(connection: Any) -> bool:
    """Whether a pooler such as pgbouncer answers, which may lead each transaction to another server process.

    A statement that was prepared in one process is unknown to the next, or is another client's under the same name:
    then the wrong statement runs. A pooler gives its clients process ids of its own.
    """
    connection.autocommit = True
    process = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()[0]
    connection.autocommit = False
    return bool(process != connection.info.backend_pid)
