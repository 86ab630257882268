"""Transactions, and the clock that leases are judged by."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from app.store.errors import DatabaseBusy
from app.store.sessions import Database, now
from app.store.tables import WorkspaceRow


def workspaces(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(text("SELECT id FROM workspaces")))


def add(database: Database, name: str) -> None:
    with database.write() as session:
        session.add(WorkspaceRow(id=name, created_at=now(session)))


def test_a_write_is_all_or_nothing_and_a_read_is_nothing(database: Database) -> None:
    add(database, "kept")

    def fail() -> None:
        with database.write() as session:
            session.add(WorkspaceRow(id="lost", created_at=now(session)))
            session.flush()
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fail()
    with database.read() as session:
        session.add(WorkspaceRow(id="looked", created_at=now(session)))
        session.flush()
    assert workspaces(database) == {"default", "kept"}


def test_the_clock_is_in_utc_milliseconds_and_moves_within_a_transaction(database: Database) -> None:
    with database.read() as session:
        first = now(session)
        time.sleep(0.01)
        second = database.now(session)
    assert first.tzinfo == UTC
    assert first.microsecond % 1000 == second.microsecond % 1000 == 0
    assert timedelta(milliseconds=5) < second - first < timedelta(seconds=5)
    assert abs(first - datetime.now(UTC)) < timedelta(seconds=30)


def test_readers_see_one_moment_while_others_write(sqlite_database: Database) -> None:
    """On SQLite in WAL mode; on Postgres each statement sees what is committed."""
    with sqlite_database.read() as session:
        before = session.scalar(text("SELECT count(*) FROM workspaces"))
        add(sqlite_database, "meanwhile")
        assert session.scalar(text("SELECT count(*) FROM workspaces")) == before
    assert "meanwhile" in workspaces(sqlite_database)


def test_sqlite_is_opened_as_promised(sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def test_a_writer_that_waits_too_long_says_so(sqlite_database: Database) -> None:
    inside, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with sqlite_database.write():
            inside.set()
            enough.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    started = time.monotonic()
    with pytest.raises(DatabaseBusy, match="busy for too long"), sqlite_database.write(wait_seconds=0.2):
        pass
    assert 0.1 < time.monotonic() - started < 5
    enough.set()
    thread.join()
    add(sqlite_database, "afterwards")


def test_a_restarted_postgres_costs_no_error(postgres_url: str) -> None:
    with Database(postgres_url) as database:
        workspaces(database)
        with Database(postgres_url) as other, other.write() as session:
            session.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        assert "default" in workspaces(database)


def test_passwords_are_not_shown() -> None:
    with Database("postgresql+psycopg://someone:secret@host/name") as database:
        assert database.shown == "postgresql+psycopg://someone:***@host/name"


def test_an_autocommit_read_leaves_no_transaction_behind(database: Database) -> None:
    """On Postgres an open one would be seen; on both the connection that comes back must be as good as new."""
    with database.autocommit_read() as session:
        assert session.scalar(text("SELECT count(*) FROM jobs")) == 0
        if not database.is_sqlite:
            mine = session.scalar(text("SELECT pg_backend_pid()"))
            with database.read() as other:
                state = text("SELECT state FROM pg_stat_activity WHERE pid = :pid")
                assert other.scalar(state, {"pid": mine}) == "idle"
    with database.write() as session:  # the same connection: it can roll back again
        session.execute(text("INSERT INTO workspaces SELECT 'seen', created_at FROM workspaces"))
        session.rollback()
    with database.autocommit_read() as session:
        assert session.scalar(text("SELECT count(*) FROM workspaces")) == 1


def test_a_snapshot_sees_one_moment_and_the_next_transaction_its_own(database: Database) -> None:
    def add(name: str) -> None:
        with database.write() as session:
            session.execute(text(f"INSERT INTO workspaces SELECT '{name}', created_at FROM workspaces LIMIT 1"))

    count = text("SELECT count(*) FROM workspaces")
    with database.snapshot() as session:
        before = session.scalar(count)
        add("second")
        assert session.scalar(count) == before
    with database.read() as session:
        assert session.scalar(count) == before + 1
        add("third")
        assert session.scalar(count) == before + (1 if database.is_sqlite else 2)
