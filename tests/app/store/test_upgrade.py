"""A database one version older, with real jobs in it, goes on where it was: on SQLite and on Postgres.

`schema_0001.sql.gz` is a SQLite database that the code of schema 0001 made by running real jobs: a `meta_train` job and
its evaluation, a job that was preempted at its checkpoint, a cancelled one, a queued one, an idempotency record.
"""

from __future__ import annotations

import gzip
import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import (
    MetaData,
    create_engine,
    inspect,
    select,
    update,
)
from typer.testing import CliRunner

import migrations
from app.cli import app
from app.settings import Settings
from app.store.jobs import JobRepository
from app.store.sessions import Database
from app.store.tables import SCHEMA_REVISION, JobRow
from gradsmith.rules import weights
from tests.app.store.dumps import copy_rows
from tests.workers.harness import stored_events
from workers.run import run_job
from workshop import services
from workshop.serving import serving

OLD = gzip.decompress((Path(__file__).parent / "schema_0001.sql.gz").read_bytes()).decode()
TRAINED, EVALUATED = "job_01a20da1c7827720bd5f34ab3a3d68b2", "job_01a20da1d8d676f590d22a11fc67a18f"
PREEMPTED, CANCELLED = "job_01a20da1d9e170738e4d3a784e52ef5a", "job_01a20da1dad974e7baeaf7d07c20c6d1"
QUEUED = "job_01a20da1daeb749b805b1d61e07a8991"
OPTIMIZER = "opt_01a20da1d8ce703f84cc1dcb14f06b02"


@pytest.fixture(params=["sqlite", "postgres"])
def old_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database at schema 0001, as it was left."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OLD)
    if request.param == "sqlite":
        yield f"sqlite:///{path}"
        return
    server: services.PostgresDatabase = request.getfixturevalue("postgres_database")
    url = server.empty_url("upgrade")
    migrations.upgrade(url, "0001")
    copy_rows(path, url)
    yield url
    server.drop(url)


def content_of(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the tables that 0001 has, in the columns that it has."""
    old = {}
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(OLD)
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            old[name] = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
    engine = create_engine(url)
    found = MetaData()
    found.reflect(engine)
    content = {}
    with engine.connect() as connection:
        for name in sorted(old.keys() - {"alembic_version"}):
            query = select(*(found.tables[name].c[column] for column in old[name]))
            content[name] = sorted((tuple(row) for row in connection.execute(query)), key=repr)
    engine.dispose()
    return content


def recipes_in(content: dict[str, list[tuple[Any, ...]]]) -> Iterator[dict[str, Any]]:
    """Every recipe in the documents of jobs and cards."""
    for rows in (content["jobs"], content["optimizers"]):
        for document in (value for row in rows for value in row if isinstance(value, dict)):
            family = document.get("family")
            for holder in (document, family if isinstance(family, dict) else {}):
                if "recipe" in holder:
                    yield holder["recipe"]


def test_nothing_is_lost_on_the_way_up_down_and_up_again(old_url: str) -> None:
    before = content_of(old_url)
    assert len(before["jobs"]) == 5
    assert before["weights"]
    assert before["idempotency_keys"], "answers for those who send their POST again"
    for _ in "12":
        migrations.upgrade(old_url)
        moved_back = content_of(old_url)
        recipes = list(recipes_in(moved_back))
        assert len(recipes) == 10, "of jobs, of their families, and a card's"
        for recipe in recipes:
            recipe["forget_bias"] = recipe["rule"].pop("forget_bias")
        assert moved_back == before
        migrations.check(old_url)
        migrations.downgrade(old_url, "0001")  # the way back to the older version
        engine = create_engine(old_url)
        assert "keys" not in inspect(engine).get_table_names()
        engine.dispose()
        assert content_of(old_url) == before


def test_there_is_no_way_back_for_rules_that_the_older_version_does_not_know(old_url: str) -> None:
    migrations.upgrade(old_url)
    with Database(old_url) as database, database.write() as session:
        spec = JobRepository(session).get(QUEUED).spec
        spec["recipe"]["rules"] = {"bias": spec["recipe"]["rule"]}
        session.execute(update(JobRow).where(JobRow.id == QUEUED).values(spec=spec))
    before = content_of(old_url)
    with pytest.raises(RuntimeError, match=r"rules other than one LSTM.*Put back the backup"):
        migrations.downgrade(old_url, "0002")
    assert content_of(old_url) == before


@pytest.mark.parametrize("old_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True)
def test_the_new_server_shows_what_the_old_one_made_and_runs_what_it_left(
    old_url: str, redis_url: str, tmp_path: Path
) -> None:
    migrations.upgrade(old_url)
    settings = Settings(
        data_dir=tmp_path, database_url=old_url, redis_url=redis_url, checkpoint_interval_seconds=0.01,
        worker_memory_bytes=2**33,
    )  # fmt: skip
    with serving(settings) as url, httpx.Client(base_url=url, timeout=30) as client:
        jobs = {job["id"]: job["status"] for job in client.get("/jobs").json()["data"]}
        assert jobs == {
            TRAINED: "succeeded", EVALUATED: "succeeded", PREEMPTED: "queued", CANCELLED: "cancelled", QUEUED: "queued",
        }  # fmt: skip
        assert client.get("/jobs?metadata.made=by+0001").json()["data"][-1]["id"] == TRAINED
        assert client.get(f"/jobs/{TRAINED}/curve").json()["step"] == list(range(1, 31))
        assert client.get(f"/jobs/{EVALUATED}/report").json()["family"] == "quadratic"
        assert client.get(f"/optimizers/{OPTIMIZER}/card").status_code == 200
        answer = client.get("/optimizers/quadratic@latest")
        assert answer.headers["etag"].strip('"') == f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        rule = weights.loads(answer.content)  # weights of that time are read by today's SDK
        assert rule.config()["hidden_size"] == 4
        # what was queued then runs now; what was preempted goes on from its checkpoint
        with Database(old_url) as database:
            run_job(PREEMPTED, 2, settings=settings)
            run_job(QUEUED, 1, settings=settings)
            with database.read() as session:
                ended = [JobRepository(session).get(job_id) for job_id in (PREEMPTED, QUEUED)]
            assert [job.status for job in ended] == ["succeeded", "succeeded"]
            resumed = next(event for event in stored_events(database, PREEMPTED) if event.kind == "resumed")
            assert resumed.data["from_step"] == 30
        assert client.get("/optimizers/quadratic@3").status_code == 200
        retried = client.post(f"/jobs/{CANCELLED}/retry")
        assert (retried.status_code, retried.json()["attempt"]) == (202, 2)


def test_the_command_goes_back_for_an_older_version_and_knows_which_schemas_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'one.db'}"
    monkeypatch.setenv("DATABASE_URL", url)
    for arguments, revision in (([], SCHEMA_REVISION), (["--to", "0001"], "0001"), ([], SCHEMA_REVISION)):
        done = CliRunner().invoke(app, ["migrate", *arguments])
        assert (done.exit_code, done.stderr) == (0, "")
        with Database(url) as database:
            assert database.revision() == revision
    assert CliRunner().invoke(app, ["migrate", "--to", "0001"]).exit_code == 0
    forwards = CliRunner().invoke(app, ["migrate", "--to", SCHEMA_REVISION])
    assert forwards.exit_code == 2
    assert " migrate` without --to brings it up" in forwards.stderr
    refused = CliRunner().invoke(app, ["migrate", "--to", "base"])
    assert refused.exit_code == 2
    assert "--to base: there is no such schema; there are 0001, 0002, 0003, 0004" in refused.stderr
