"""Behind a transaction pooler statements are not prepared."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import migrations
from app.store.errors import DatabaseUnavailable
from app.store.sessions import Database
from tests.app.store.bench import Bench
from tests.pooler import pooled

PREPARED = text("SELECT count(*) FROM pg_prepared_statements")
ROUNDS = 40


def faults(url: str) -> int:
    """Two processes of ours in turn, each with statements of its own: how many reads fail or are answered wrongly."""
    failed = 0
    with Database(url) as ours, Database(url) as theirs:
        for turn in range(ROUNDS):
            for database, number in ((ours, 1), (theirs, 2)):
                statement = text(f"SELECT {number + 2 * (turn % 2)} WHERE :given = 'x'")
                try:
                    with database.autocommit_read() as session:
                        failed += session.scalar(statement, {"given": "x"}) != number + 2 * (turn % 2)
                except DBAPIError:
                    failed += 1
    return failed


@pytest.mark.long
def test_a_pooler_is_noticed_and_nothing_is_prepared(postgres_url: str) -> None:
    with pooled(postgres_url) as url:
        migrations.upgrade(url)
        migrations.upgrade(f"{url}?prepare_threshold=0")
        assert faults(url) == 0
        with Database(url) as database:
            bench = Bench(database)
            made = bench.finish(bench.running()).optimizer
            assert made is not None
            for _ in range(2 * ROUNDS):
                assert bench.get(made.job).status == "succeeded"


def test_preparing_through_a_pooler_fails_so_the_pooler_of_these_tests_is_one(postgres_url: str) -> None:
    with pooled(postgres_url) as url:
        assert faults(f"{url}?prepare_threshold=1") > 0


@pytest.mark.parametrize(
    ("given", "prepares"), [("", True), ("prepare_threshold=none", False), ("prepare_threshold=0", True)]
)
def test_preparing_can_be_turned_off_by_the_url(postgres_url: str, given: str, prepares: bool) -> None:
    with Database(f"{postgres_url}&{given}") as database, database.read() as session:
        for _ in range(10):
            session.execute(text("SELECT 1"))
        assert bool(session.scalar(PREPARED)) is prepares


@pytest.mark.parametrize("given", ["-1", "often", "1&prepare_threshold=2"])
def test_a_threshold_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="prepare_threshold"):
        Database(f"postgresql+psycopg://x/y?prepare_threshold={given}")
