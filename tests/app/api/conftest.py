"""The real application on both databases, with a real Redis."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from app.store.sessions import Database
from tests.app.api.shelf import Shelf, filled
from workshop.serving import serving
from workshop.working import Worker

GIB = 2**30
SELDOM = 5.0
"""Seconds between two rounds of a standing server's dispatcher: no worker waits for it, and it stands to the end."""
HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before pytest deselects what is slow
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test of the API runs on one of the two databases, half of them on each; on the other one it is slow.

    What a database answers is the store's, whose tests run on both, and so do those marked `both_databases`.
    """
    for item in items:
        if HERE in item.path.parents and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            database = item.callspec.params.get("database_url")
            if database is not None and item.get_closest_marker("both_databases") is None:
                both = item.nodeid.replace(database, "")
                if database == ("sqlite", "postgres")[zlib.crc32(both.encode()) % 2]:
                    item.add_marker(pytest.mark.slow)


@pytest.fixture
def app_settings(settings: Settings, database_url: str) -> Settings:
    return settings.model_copy(update={"database_url": database_url, "worker_memory_bytes": 8 * GIB})


@pytest.fixture
def server(app_settings: Settings) -> Iterator[str]:
    """Its URL."""
    with serving(app_settings) as url:
        yield url


@pytest.fixture
def api(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=30) as client:
        yield client


@pytest.fixture
def worker(app_settings: Settings, database: Database) -> Iterator[Callable[..., Worker]]:
    """`worker(job_id, attempt)` claims a job."""
    working: list[Worker] = []

    def claim(job_id: str, attempt: int = 1) -> Worker:
        working.append(Worker(app_settings, database, job_id, attempt))
        return working[-1]

    yield claim
    for each in working:
        each.close()


@pytest.fixture
def training_job(api: httpx.Client) -> str:
    """The id of a queued `meta_train` job."""
    answer = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic", "seed": 7})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


@pytest.fixture(scope="session")
def shelf(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory, standing_redis_url: str) -> Iterator[Shelf]:
    """A filled registry for all tests that make no optimizers: names of aliases are each test's own."""
    folder = tmp_path_factory.mktemp("shelf")
    shutil.copy(migrated_sqlite, folder / "gradsmith.db")
    settings = Settings(data_dir=folder, database_url=None, redis_url=standing_redis_url)
    with filled(settings.model_copy(update={"dispatch_interval_seconds": SELDOM})) as found:
        yield found


@pytest.fixture(scope="session")
def standing_api(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory, standing_redis_url: str
) -> Iterator[httpx.Client]:
    """One server for all tests whose requests change nothing, or do not care what others have made."""
    folder = tmp_path_factory.mktemp("standing")
    shutil.copy(migrated_sqlite, folder / "gradsmith.db")
    settings = Settings(
        data_dir=folder, database_url=None, redis_url=standing_redis_url, worker_memory_bytes=8 * GIB,
        dispatch_interval_seconds=SELDOM,
    )  # fmt: skip
    with serving(settings) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client
