"""Connections to SQLite: their settings, and its file, which is never made by asking."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url

from app.commands import command
from app.store.errors import SchemaMismatch

BUSY_SECONDS = 10.0  # how long a writer waits for the one before it


def file_of(url: str | URL) -> Path | None:
    """The file of a SQLite URL; None for another database, for one in memory, and for a `file:` URI."""
    parsed = make_url(url)
    if (
        parsed.get_backend_name() != "sqlite"
        or not parsed.database
        or parsed.database.startswith((":memory:", "file:"))
    ):
        return None
    return Path(parsed.database).resolve()


def missing_file(url: str | URL) -> Path | None:
    """The file of a SQLite URL where it is not there: SQLite would make it, empty. None where there is something to
    open, and where that cannot be seen: opening it says why."""
    path = file_of(url)
    try:
        if path is not None:
            path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except OSError:
        pass
    return None


def advice(said: str) -> str | None:
    """What to do about a fault of the file or its disk, in words that follow SQLite's own; None for other faults."""
    said = said.lower()
    return next((advice for words, advice in _ADVICE if any(word in said for word in words)), None)


_ADVICE = (
    (("full",), "make room on that disk"),
    (
        ("readonly", "permission denied", "unable to open"),
        "give the file and its folder to the user that runs Gradsmith (`chown`), and mount its disk writable",
    ),
)


def write_ahead_log(connection: sqlite3.Connection, seconds: float) -> None:
    """Put the database into WAL mode, waiting up to `seconds` for others. It is no change when it is in it already.

    The switch needs the database for itself, and SQLite's busy timeout does not hold for it: where two processes open
    a new database at once, the second is told "database is locked" at once. Raises that error when the time is up.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError as error:
            # The primary code is the low byte; the extended ones tell recovery, snapshot and timeout apart.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def engine_of(url: URL) -> Engine:
    """Connections in WAL mode, whose transactions begin at once where they write."""
    engine = create_engine(url, pool_size=8, max_overflow=64, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "do_connect")
    def _is_there(*_: object) -> None:
        # It would be made, empty: in a misspelt folder too, or where that of a running service was removed.
        missing = missing_file(url)
        if missing is not None:
            raise SchemaMismatch(f"There is no database at {missing}. {command('migrate')} makes one.")

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver would begin late and only before some statements: we begin
        write_ahead_log(connection, BUSY_SECONDS)
        cursor = connection.cursor()
        for pragma in ("synchronous = FULL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("no_begin"):
            return
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(1000 * options.get('busy_seconds', BUSY_SECONDS))}")
        # A deferred transaction that reads first and writes later fails at once when another wrote between.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("begin_immediate") else "BEGIN")

    return engine
