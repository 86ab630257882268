"""Opening the database and its transactions. Sessions commit here and nowhere else."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import Engine, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from app.commands import command
from app.store import postgres, schema, sqlite
from app.store.errors import DatabaseBusy, DatabaseUnavailable, RowLocked, SchemaIncomplete, SchemaMismatch
from app.store.queue import Queues
from app.store.sql import clock, is_lock_timeout
from app.store.sqlite import BUSY_SECONDS
from app.store.tables import SCHEMA_REVISION

CONNECTIONS = 40
_SQLITE_FAULTS = (
    "unable to open database file",
    "file is not a database",
    "database disk image is malformed",
    "database or disk is full",
    "disk I/O error",
    "attempt to write a readonly database",
)
_LACKING = re.compile(r"no such (table|column)|^table \w+ has no column")  # SQLite's words
_LACKING_STATES = ("42P01", "42703")  # Postgres' codes


def now(session: Session) -> datetime:
    """The time by the database's clock, in whole milliseconds. It moves within a transaction."""
    if session.get_bind().dialect.name == "sqlite":  # its clock is this machine's: no need to ask
        moment = datetime.now(UTC)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    moment = session.scalar(select(clock()))
    assert isinstance(moment, datetime)
    return moment


def _revision(session: Session) -> str | None:
    if not inspect(session.connection()).has_table("alembic_version"):
        return None
    found = session.scalar(text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


class Database:
    """One per process; threads share it. `read()` and `write()` are one transaction each."""

    now = staticmethod(now)

    def __init__(self, url: str, connections: int = CONNECTIONS) -> None:
        """Does not connect yet. connections: the most to a Postgres at a time. Raises DatabaseUnavailable when `url` is
        none. A file that is not there is not made: `migrations` does that, and asking tells to run it."""
        try:
            self.url: URL = make_url(url)
            lite = self.is_sqlite
            self.engine: Engine = sqlite.engine_of(self.url) if lite else postgres.engine_of(self.url, connections)
        except (ArgumentError, ImportError) as error:
            raise DatabaseUnavailable(
                f"DATABASE_URL is no URL that this server can use ({error}). "
                f"Examples: postgresql://user:password@host/name, sqlite:////var/lib/gradsmith/gradsmith.db"
            ) from error
        self._writer = self.engine.execution_options(begin_immediate=True)
        alone: dict[str, Any] = {"no_begin": True} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        self._autocommit = self.engine.execution_options(**alone)
        still: dict[str, Any] = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._still = self.engine.execution_options(**still)
        self._info = {"queues": Queues()}
        self._writing = threading.Lock()

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that is rolled back at its end: what it sees, it does not change."""
        with Session(self.engine, expire_on_commit=False, info=self._info) as session, self._explained():
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A read transaction with one consistent snapshot, on Postgres too. Use it where the results of several
        statements are combined."""
        with Session(self._still, expire_on_commit=False, info=self._info) as session, self._explained():
            yield session

    @contextmanager
    def autocommit_read(self) -> Iterator[Session]:
        """Reads in autocommit mode: on Postgres each statement is a transaction of its own, so that it takes one round
        trip instead of three (BEGIN, the statement, ROLLBACK). Two statements may see different snapshots."""
        with Session(self._autocommit, expire_on_commit=False, info=self._info) as session, self._explained():
            yield session

    @contextmanager
    def write(self, wait_seconds: float = BUSY_SECONDS) -> Iterator[Session]:
        """A transaction that commits when the block ends and rolls back when it raises.

        On SQLite it holds the write lock from its start, so what it reads stays true until it commits; it waits
        `wait_seconds` for another writer, then raises DatabaseBusy. On Postgres, lock the rows you decide on.
        """
        engine = self._writer.execution_options(busy_seconds=wait_seconds)
        with (
            self._one_writer(wait_seconds),
            Session(engine, expire_on_commit=False, info=self._info) as session,
            self._explained(),
            session.begin(),
        ):
            session.connection()  # begins now; a session alone would wait for its first statement
            yield session

    @contextmanager
    def autocommit_write(self) -> Iterator[Session]:
        """Writes in autocommit mode on Postgres, for a change that is one statement there: neither BEGIN nor COMMIT is
        sent, and a later failure does not undo it. On SQLite, the same as `write()`."""
        with self.write() if self.is_sqlite else self.autocommit_read() as session:
            yield session

    @contextmanager
    def _one_writer(self, wait_seconds: float) -> Iterator[None]:
        """SQLite has one writer, and one that waits for it sleeps longer and longer between two looks: of sixteen, some
        would starve. The threads of a process wait for each other here instead, where the next goes on at once."""
        if not self.is_sqlite:
            yield
            return
        if not self._writing.acquire(timeout=wait_seconds):
            raise DatabaseBusy(self._busy)
        try:
            yield
        finally:
            self._writing.release()

    def check(self) -> None:
        """Raises DatabaseUnavailable when it cannot be reached, SchemaMismatch when it is not migrated to this code,
        SchemaIncomplete when it is and lacks tables or columns all the same."""
        with self.read() as session:
            found = _revision(session)
            lacks = schema.lacking(session) if found == SCHEMA_REVISION else ""
        if found is None:
            raise SchemaMismatch(f"The database {self.shown} is empty. Run {command('migrate')} first.")
        if found != SCHEMA_REVISION:
            raise SchemaMismatch(
                f"The database {self.shown} is at schema revision {found}, and this version of Gradsmith needs "
                f"{SCHEMA_REVISION}. Run {command('migrate')} with the newest version that uses this database."
            )
        if lacks:
            raise SchemaIncomplete(self.shown, lacks)

    def revision(self) -> str | None:
        """The revision of the schema; None if nothing has been migrated. Raises DatabaseUnavailable."""
        with self.read() as session:
            return _revision(session)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.engine.dispose()

    @property
    def _busy(self) -> str:
        return f"The database {self.shown} was busy for too long. Try again."

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say in a user's words that the database is away, busy, or has no tables."""
        try:
            yield
        except DBAPIError as error:
            message = str(error.orig)
            if _LACKING.search(message) or getattr(error.orig, "sqlstate", None) in _LACKING_STATES:
                raise SchemaMismatch(
                    f"The database {self.shown} lacks a table or column ({message.splitlines()[0]}). Run "
                    f"{command('doctor')}: it says whether to migrate it or to put a backup in its place."
                ) from error
            if "database is locked" in message:
                raise DatabaseBusy(self._busy) from error
            if is_lock_timeout(error):
                raise RowLocked(self._busy) from error
            if error.connection_invalidated or self._is_away(error):
                raise DatabaseUnavailable(f"The database {self.shown} cannot be used: {message}") from error
            raise
        except SQLAlchemyError as error:
            if "QueuePool limit" in str(error):
                raise DatabaseBusy(f"All connections to {self.shown} are in use. Try again.") from error
            raise

    def _is_away(self, error: DBAPIError) -> bool:
        """Whether the database or its disk is at fault, and not our statement."""
        if self.is_sqlite:
            return str(error.orig).startswith(_SQLITE_FAULTS)
        # psycopg gives a failed connect no SQLSTATE. 08: connection, 53: resources, 57P: the server is going down.
        state = getattr(error.orig, "sqlstate", None)
        return isinstance(error, OperationalError) and (state is None or state.startswith(("08", "53", "57P")))
