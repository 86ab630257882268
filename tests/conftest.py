"""Fixtures for every test: real databases with the real migrations, a real Redis, settings in a temporary folder."""

from __future__ import annotations

import os

# Before anything imports torch or numpy: two busy thread pools on two cores slow each other down tenfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Nothing here speaks TLS, but each httpx.Client would read all of the world's authorities first, for 30 ms.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull  # it finds none

import gc
import logging
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import migrations
from app.settings import Settings
from app.store.sessions import Database
from workshop import services

# A shared machine stalls now and then: the time of one example says nothing.
hypothesis.settings.register_profile("gradsmith", deadline=None)
hypothesis.settings.load_profile("gradsmith")


# Below `nohup`, or in the background of a script, signals that users send are ignored here and in all that we start.
for ignored, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, handler)


def pytest_configure(config: pytest.Config) -> None:
    """Kernels that the tests' processes compile are kept beside pytest's own cache: each once, whoever needs it. They
    are found by source, flags and compiler, so an old one is never taken for a new one."""
    if config.pluginmanager.has_plugin("cacheprovider"):
        os.environ.setdefault("GRADSMITH_CACHE_DIR", str(config.cache.mkdir("gradsmith")))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`./run test --long` imports no file that has no long test."""
    if config.option.markexpr != "long and not slow" or not collection_path.match("test_*.py"):
        return None
    return True if "mark.long" not in collection_path.read_text(encoding="utf-8") else None


def pytest_collection_finish() -> None:
    """What the tests import lives to the end: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """Our own distribution in place of pytest-xdist's `--dist loadfile`, which `./run test` asks for."""
    if config.getvalue("dist") != "loadfile":
        return None
    from tests.scheduling import ByFile  # not above: pytest-xdist is not needed without it

    return ByFile(config, log)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """What runs a command in this process has it log as our processes do, to a stream that ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
    for handler in handlers:
        if handler not in root.handlers:
            root.addHandler(handler)


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[services.PostgresDatabase]:
    """The Postgres database of this process; skips when the machine has no Postgres at all."""
    try:
        database = services.PostgresDatabase()
    except services.NoServer as error:
        pytest.skip(str(error))
    yield database
    database.close()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file as the migrations leave it, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrations.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of this test's own, in `tmp_path/data`."""
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    shutil.copy(migrated_sqlite, folder / "gradsmith.db")
    return f"sqlite:///{folder / 'gradsmith.db'}"


@pytest.fixture
def postgres_url(postgres_database: services.PostgresDatabase) -> Iterator[str]:
    """A migrated Postgres database, empty but for the workspace `default`."""
    yield postgres_database.url
    postgres_database.clear()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each test that uses it runs on both databases."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database, on both kinds."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    yield database
    database.close()


STANDING = 8
"""Added to the number of a Redis database: that of a server which stands beside the tests. It rings doorbells when it
likes, which a test that counts its own must not find. 16 databases are usual, so eight pytest workers may run."""


@pytest.fixture(scope="session")
def _redis_server_url() -> Iterator[str]:
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
        yield f"{given}{'&' if '?' in given else '?'}db={worker}"  # tests flush it: each worker has its own
        return
    try:
        server = services.ValkeyServer()
    except services.NoServer as error:
        pytest.skip(str(error))
    yield f"{server.url}?db=0"
    server.close()


@pytest.fixture(scope="session")
def standing_redis_url(_redis_server_url: str) -> str:
    """A Redis database that no test flushes, for a server that serves many of them."""
    address, _, number = _redis_server_url.rpartition("db=")
    return f"{address}db={int(number) + STANDING}"


@pytest.fixture
def redis_url(_redis_server_url: str) -> Iterator[str]:
    """An empty Redis database."""
    services.flush(_redis_server_url)
    yield _redis_server_url
    services.flush(_redis_server_url)


@pytest.fixture
def valkey() -> Iterator[services.ValkeyServer]:
    """A Redis of this test's own, to stop and start."""
    try:
        server = services.ValkeyServer()
    except services.NoServer as error:
        pytest.skip(str(error))
    yield server
    server.close()


@pytest.fixture
def settings(sqlite_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings of a server in `tmp_path/data`, with migrated SQLite and an empty Redis. For Postgres:
    `settings.model_copy(update={"database_url": postgres_url})`."""
    return Settings(data_dir=tmp_path / "data", database_url=sqlite_url, redis_url=redis_url)
