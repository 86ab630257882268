"""The schema comes up, goes down and comes up again on both databases, and is what the tables say."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

import migrations
from app.store.errors import DatabaseUnavailable, SchemaIncomplete, SchemaMismatch
from app.store.sessions import Database
from app.store.sqlite import file_of
from app.store.tables import SCHEMA_REVISION, Base
from workshop import services


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'folder with 100% odd name' / 'new.db'}"
        return
    server: services.PostgresDatabase = request.getfixturevalue("postgres_database")
    url = server.empty_url("migrations")
    yield url
    server.drop(url)


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def revision(url: str) -> str:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return str(connection.scalar(text("SELECT version_num FROM alembic_version")))
    finally:
        engine.dispose()


def test_up_down_up_and_no_difference_to_the_tables(empty_url: str) -> None:
    migrations.upgrade(empty_url)
    assert revision(empty_url) == migrations.head() == SCHEMA_REVISION
    assert tables(empty_url) == {*Base.metadata.tables, "alembic_version"}
    migrations.check(empty_url)
    migrations.downgrade(empty_url, "base")
    assert tables(empty_url) == {"alembic_version"}
    migrations.upgrade(empty_url)
    migrations.upgrade(empty_url)
    migrations.check(empty_url)
    with Database(empty_url) as database, database.read() as session:
        assert session.execute(text("SELECT id FROM workspaces")).all() == [("default",)]


def test_servers_that_start_at_once_migrate_once(empty_url: str) -> None:
    with ThreadPoolExecutor(3) as threads:
        for start in [threads.submit(migrations.upgrade, empty_url) for _ in range(3)]:
            start.result()
    assert revision(empty_url) == migrations.head()
    database = Database(empty_url)
    database.check()
    database.close()


def test_a_database_that_is_not_migrated_names_the_command(empty_url: str) -> None:
    path = file_of(empty_url)
    if path is not None:
        with (
            pytest.raises(SchemaMismatch, match=r"no database at .*gradsmith-server migrate"),
            Database(empty_url) as new,
        ):
            new.check()
        assert not path.parent.exists(), "who only looks makes nothing"
        path.parent.mkdir()
        path.touch()
    database = Database(empty_url)
    with pytest.raises(SchemaMismatch, match=r"is empty.*gradsmith-server migrate"):
        database.check()
    with pytest.raises(SchemaMismatch, match=r"lacks a table.*gradsmith-server doctor"), database.read() as session:
        session.execute(text("SELECT * FROM jobs"))
    migrations.upgrade(empty_url)
    for statement in ("SELECT no_such FROM jobs", "INSERT INTO jobs (no_such) VALUES (1)"):
        with pytest.raises(SchemaMismatch, match=r"lacks a table or column"), database.write() as session:
            session.execute(text(statement))
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaMismatch, match=f"revision 9999.*needs {SCHEMA_REVISION}"):
        database.check()
    database.close()


def test_a_table_or_column_that_was_lost_since_is_named_and_no_migration_is_advised(empty_url: str) -> None:
    migrations.upgrade(empty_url)
    with Database(empty_url) as database:
        for loss, lacks in (
            ("ALTER TABLE checkpoints DROP COLUMN runtime", "the column checkpoints.runtime"),
            ("DROP TABLE curve_overviews", "the table curve_overviews, the column checkpoints.runtime"),
            ("DROP TABLE checkpoints", "the tables checkpoints and curve_overviews"),
        ):
            with database.write() as session:
                session.execute(text(loss))
            with pytest.raises(
                SchemaIncomplete, match=r"put a backup in its place; `gradsmith-server doctor`"
            ) as caught:
                database.check()
            assert caught.value.lacks == lacks
    migrations.upgrade(empty_url)
    with Database(empty_url) as database, pytest.raises(SchemaIncomplete):
        database.check()


@pytest.mark.parametrize("empty_url", ["postgres"], indirect=True)  # SQLite has one schema
def test_a_table_of_the_same_name_elsewhere_is_not_ours(empty_url: str) -> None:
    migrations.upgrade(empty_url)
    with Database(empty_url) as database:
        with database.write() as session:
            session.execute(text("CREATE SCHEMA elsewhere"))
            session.execute(text("CREATE TABLE elsewhere.curve_overviews (LIKE curve_overviews)"))
        database.check()
        with database.write() as session:
            session.execute(text("DROP TABLE public.curve_overviews"))
        with pytest.raises(SchemaIncomplete, match="curve_overviews"):
            database.check()


def test_a_database_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SchemaMismatch, match=r"no database at "):
        Database(f"sqlite:///{tmp_path / 'file' / 'db'}").check()
    (tmp_path / "folder.db").mkdir()
    database = Database(f"sqlite:///{tmp_path / 'folder.db'}")
    with pytest.raises(DatabaseUnavailable, match="cannot be used: unable to open"):
        database.check()
    database.close()
    (tmp_path / "poem.db").write_text("Shall I compare thee to a summer's day? " * 100)
    with (
        Database(f"sqlite:///{tmp_path / 'poem.db'}") as poem,
        pytest.raises(DatabaseUnavailable, match="cannot be used: file is not a database"),
    ):
        poem.check()
    with pytest.raises(DatabaseUnavailable, match=r"is no URL.*Examples: postgresql://"):
        Database("not a url")
    away = Database(f"postgresql+psycopg://someone:secret@/nothing?host={tmp_path}")
    with pytest.raises(DatabaseUnavailable, match="cannot be used") as caught:
        away.check()
    assert "secret" not in str(caught.value)
    away.close()
