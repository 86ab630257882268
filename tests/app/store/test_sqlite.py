"""The switch to WAL waits for its turn, although SQLite's busy timeout does not hold for it."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import migrations
from app.backup import back_up, restore
from app.settings import Settings
from app.store.sessions import Database
from app.store.sqlite import file_of, write_ahead_log
from tests.app.store.bench import Bench


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


ODD_NAMES = (
    "what?now", "c#", "100%", "a%20b", "feature%2Fx", "my data", "žofia", "user@example.org", "a&b=c", "it's", "a:b",
    "a\\b", "?x=1", ":memory:", "file:x?mode=memory", "a+b", " ", "%",
)  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_data_folder_is_used_as_it_is_named(name: str, tmp_path: Path, migrated_sqlite: Path) -> None:
    settings = Settings(data_dir=tmp_path / name, database_url=None)
    place = settings.data_dir / "gradsmith.db"
    settings.data_dir.mkdir()
    shutil.copy(migrated_sqlite, place)
    assert file_of(settings.resolved_database_url) == place
    with Database(settings.resolved_database_url) as database:
        Bench(database).create()
    assert {path.name for path in tmp_path.iterdir()} == {name}, "nothing is made anywhere else"
    with sqlite3.connect(place) as found:
        assert found.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
    found.close()


def test_an_oddly_named_folder_is_migrated_backed_up_and_restored(tmp_path: Path) -> None:
    folder, other = tmp_path / "it's 100%25 what?now#&x=1", tmp_path / "?%#"
    ours, theirs = (Settings(data_dir=each, database_url=None) for each in (folder, other))
    migrations.upgrade(ours.resolved_database_url)
    with Database(ours.resolved_database_url) as database:
        job = Bench(database).create()
    back_up(ours, tmp_path / "a?b#c%20d")
    restore(theirs, tmp_path / "a?b#c%20d")
    with Database(theirs.resolved_database_url) as database:
        assert Bench(database).get(job.id).id == job.id
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, other.name, "a?b#c%20d"}
