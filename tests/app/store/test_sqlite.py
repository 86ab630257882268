"""The switch to WAL waits for its turn, although SQLite's busy timeout does not hold for it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.store.sqlite import write_ahead_log


@pytest.fixture
def held(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A new database that somebody has for himself."""
    holder = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    yield holder
    holder.close()


def other(tmp_path: Path) -> sqlite3.Connection:
    return sqlite3.connect(tmp_path / "new.db", isolation_level=None, timeout=0)


def test_it_waits_until_the_database_is_free(held: sqlite3.Connection, tmp_path: Path) -> None:
    connection = other(tmp_path)
    release = threading.Timer(0.2, held.execute, ["COMMIT"])
    release.start()
    write_ahead_log(connection, 30.0)
    release.join()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_it_gives_up_when_the_time_is_up(held: sqlite3.Connection, tmp_path: Path) -> None:
    connection = other(tmp_path)
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        write_ahead_log(connection, 0.05)
    assert held.in_transaction
    connection.close()


def test_another_fault_is_no_reason_to_wait(tmp_path: Path) -> None:
    (tmp_path / "new.db").write_text("Shall I compare thee to a summer's day? " * 100)
    connection = other(tmp_path)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        write_ahead_log(connection, 30.0)
    connection.close()
