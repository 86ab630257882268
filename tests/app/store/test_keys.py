"""Keys in the store: what the API's tests do not reach."""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

import app
from app.auth.issue import issue
from app.store import insertion, keys
from app.store.errors import BadCursor, KeyNotFound, LastAdminKey, QuotaExceeded, RowLocked
from app.store.jobs import JobRepository
from app.store.keys import KeyRepository
from app.store.sessions import Database
from app.store.sql import wait_for_locks
from app.store.tables import KeyRow
from tests.app.store.bench import training

MOMENT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def made(session: Session, scope: str = "submit", workspace: str = "default", **given: object) -> KeyRow:
    return issue(session, name=scope, scopes=[scope], workspace=workspace, **given)[0]  # type: ignore[list-item,arg-type]


def test_a_key_makes_its_workspace_and_a_second_one_finds_it(database: Database) -> None:
    with database.write() as session:
        first, second = made(session, workspace="team-a"), made(session, workspace="team-a")
        rows = session.execute(text("SELECT count(*) FROM workspaces WHERE id = 'team-a'")).scalar()
    assert rows == 1
    with database.read() as session:
        assert [row.id for row in KeyRepository(session, "team-a").page().rows] == [second.id, first.id]
        assert KeyRepository(session).page().rows == []
        with pytest.raises(KeyNotFound):
            KeyRepository(session).get(first.id)


def test_keys_come_in_pages_whose_cursors_fit_one_workspace(database: Database) -> None:
    with database.write() as session:
        ids = [made(session).id for _ in range(5)]
        made(session, workspace="other")
    with database.read() as session:
        first = KeyRepository(session).page(limit=3)
        rest = KeyRepository(session).page(limit=3, after=first.next)
        assert [row.id for row in (*first.rows, *rest.rows)] == ids[::-1]
        with pytest.raises(BadCursor):
            KeyRepository(session, "other").page(limit=3, after=first.next)


def test_the_time_of_last_use_never_goes_back(database: Database) -> None:
    with database.write() as session:
        key = made(session).id
        for moment in (MOMENT, MOMENT - timedelta(hours=1)):
            keys.note_use(session, {key: moment, "key_gone": moment})
    with database.read() as session:
        found = keys.find(session, key)
        assert found is not None
        assert found.last_used_at == MOMENT


def test_only_a_valid_key_counts_as_one(database: Database) -> None:
    with database.write() as session:
        assert not keys.any_usable(session)
        made(session, expires_at=datetime.now(UTC) - timedelta(seconds=1))
        revoked = made(session, "read")
        KeyRepository(session).revoke(revoked.id)
        assert not keys.any_usable(session)
        assert [keys.status_of(row) for row in keys.every(session)] == ["expired", "revoked"]
        made(session, "read", "elsewhere", expires_at=datetime.now(UTC) + timedelta(hours=1))
        assert keys.any_usable(session)


def test_the_last_admin_key_goes_only_when_it_is_meant(database: Database) -> None:
    with database.write() as session:
        admin = made(session, "admin")
        made(session, "submit")
        made(session, "admin", "elsewhere")
        repository = KeyRepository(session)
        with pytest.raises(LastAdminKey, match="Make another"):
            repository.revoke(admin.id)
        revoked = repository.revoke(admin.id, even_the_last=True).revoked_at
        assert revoked is not None
        assert repository.revoke(admin.id).revoked_at == revoked


def admit(session: Session, key: str, default_limit: int | None, besides: str | None = None) -> None:
    keys.quotas(session, [key], default_limit, besides=besides)[key].take()


def test_the_quota_counts_what_is_queued_running_or_being_cancelled(database: Database) -> None:
    with database.write() as session:
        key, other = made(session, max_active_jobs=2).id, made(session).id
        jobs = JobRepository(session)
        for _ in range(2):
            admit(session, key, 1)
            job = jobs.create(training(), api_key=key)
        for status in ("queued", "running", "cancelling"):
            session.execute(text("UPDATE jobs SET status = :status WHERE id = :id"), {"status": status, "id": job.id})
            with pytest.raises(QuotaExceeded, match="2 queued and running jobs and may have 2"):
                admit(session, key, 100)
        session.execute(text("UPDATE jobs SET device = 'gpu' WHERE id = :id"), {"id": job.id})
        with pytest.raises(QuotaExceeded):
            admit(session, key, 100)
        admit(session, key, 100, besides=job.id)
        admit(session, other, 1)
        admit(session, other, None)
        session.execute(text("UPDATE jobs SET status = 'failed' WHERE id = :id"), {"id": job.id})
        admit(session, key, 100)


def test_however_jobs_are_created_a_key_has_no_more_than_it_may(database: Database) -> None:
    limit = 60
    with database.write() as session:
        names = [made(session, max_active_jobs=limit).id, made(session).id]

    def create_until_refused(number: int) -> int:
        created, asked = 0, sorted(names, reverse=bool(number % 2))  # whatever the order that they are asked in
        while True:
            with database.write() as session:
                quotas = keys.quotas(session, asked, limit)
                jobs = JobRepository(session)
                new = []
                try:
                    for key in asked:
                        for _ in range(1 + number % 3):
                            quotas[key].take()
                            new.append(jobs.new(training(), api_key=key))
                except QuotaExceeded:
                    return created
                finally:
                    insertion.write(session, new)
                    created += len(new)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(create_until_refused, range(8)))
    with database.write() as session:
        found = keys.quotas(session, names, None)
    counts = [found[key].active for key in names]
    assert max(counts) == limit
    assert min(counts) > limit / 2


def test_who_counts_waits_for_jobs_that_are_being_created(postgres_url: str) -> None:
    with Database(postgres_url) as database:
        with database.write() as session:
            key = made(session).id

        def impatient() -> None:
            with database.write() as session:
                wait_for_locks(session, 0.3)
                admit(session, key, 1)

        with database.write() as session:
            admit(session, key, 1000)
            JobRepository(session).create(training(), api_key=key)
            with ThreadPoolExecutor(1) as threads, pytest.raises(RowLocked):
                threads.submit(impatient).result()
        with pytest.raises(QuotaExceeded, match="1 queued"):
            impatient()


def test_no_code_of_the_service_forgets_the_workspace() -> None:
    """The repositories' default is for tests: in the service, a forgotten workspace would be everybody's `default`."""
    package = Path(app.__file__).parent
    calls = 0
    for path in (*package.rglob("*.py"), *(package.parent / "workers").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in ("JobRepository", "Registry", "KeyRepository", "Aliases"):
                calls += 1
                assert len(node.args) + len(node.keywords) >= 2, f"{path.name}:{node.lineno} names no workspace"
    assert calls > 15
