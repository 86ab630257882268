"""What `gradsmith-server doctor` says of an installation that is broken in each way, as docs/doctor.md shows it.

    ./run bench doctor [--only WORDS] > docs/doctor.md

Breaks real installations in a temporary folder, one after the other, and prints in Markdown what the doctor prints;
of all but the sound one only the lines that are not ok. Ends with status 1 when a break goes unnoticed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text

import migrations
from app.store.sessions import Database
from workshop import services

SHOWN, SHOWN_POSTGRES = "/srv/gradsmith", "postgresql+psycopg://db/gradsmith"  # in place of the temporary ones
READY_SECONDS = 90.0


@dataclass
class Case:
    """`run` breaks the installation in a folder, and yields what the doctor is called with."""

    title: str
    run: Callable[[Path], Any]
    sound: bool = False


@dataclass
class Call:
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    weak: bool = False  # bound by file permissions, also as root


def doctor(folder: Path, call: Call) -> tuple[str, int]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GRADSMITH_")}
    for name in ("DATABASE_URL", "REDIS_URL"):
        ours.pop(name, None)
    arguments = call.arguments if "--port" in call.arguments else [*call.arguments, "--port", "0"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "app.cli", "doctor", "--data", str(folder), *arguments],
        env={**ours, **call.environment},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_without_privileges if call.weak else None,
    )
    if "Traceback" in done.stderr:
        raise RuntimeError(done.stderr)
    shown = done.stdout.replace(str(folder), SHOWN)
    return re.sub(r"postgresql\+psycopg://postgres@/[^\s,]+", SHOWN_POSTGRES, shown), done.returncode


def _without_privileges() -> None:
    for capability in (1, 2, 3):  # overriding permissions, searching folders, acting as an owner
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


def migrated(folder: Path, revision: str = "head") -> Path:
    path = folder / "gradsmith.db"
    migrations.upgrade(f"sqlite:///{path}", revision)
    return path


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "app.cli", "serve", "--data", str(folder), "--port", "0", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not (folder / "server.json").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the service did not start")
            time.sleep(0.1)
        yield json.loads((folder / "server.json").read_text())["url"]
    finally:
        process.terminate()
        process.wait()


# --- the cases -----------------------------------------------------------------------------------------------------


@contextmanager
def sound(folder: Path) -> Iterator[Call]:
    with serving(folder, "--workers", "1") as url:
        deadline = time.monotonic() + READY_SECONDS
        while 'gradsmith_workers{queue="cpu",state="idle"} 1' not in _text(f"{url}/metrics"):
            if time.monotonic() > deadline:
                raise RuntimeError("the worker did not register")
            time.sleep(0.2)
        yield Call(["--port", url.rpartition(":")[2]])


def _text(url: str, body: Mapping[str, Any] | None = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data else {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


@contextmanager
def waiting_jobs(folder: Path) -> Iterator[Call]:
    with serving(folder, "--workers", "0") as url:
        _text(f"{url}/jobs", {"kind": "meta_train", "family": "quadratic"})
        yield Call(["--port", url.rpartition(":")[2]])


@contextmanager
def killed(folder: Path) -> Iterator[Call]:
    with serving(folder, "--workers", "0") as url:
        os.kill(json.loads((folder / "server.json").read_text())["pid"], signal.SIGKILL)
        while _is_open(url):
            time.sleep(0.1)
        yield Call()


def _is_open(url: str) -> bool:
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.socket() as connection:
        return connection.connect_ex((host, int(port))) == 0


@contextmanager
def hung(folder: Path) -> Iterator[Call]:
    migrated(folder)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        record = {"url": f"http://127.0.0.1:{silent.getsockname()[1]}", "pid": os.getpid()}
        (folder / "server.json").write_text(json.dumps(record))
        yield Call()


@contextmanager
def open_to_others(folder: Path) -> Iterator[Call]:
    migrated(folder).chmod(0o644)
    folder.chmod(0o755)
    yield Call()


@contextmanager
def first_start(folder: Path) -> Iterator[Call]:  # noqa: ARG001
    yield Call()


@contextmanager
def wrong_setting(folder: Path) -> Iterator[Call]:  # noqa: ARG001
    yield Call(environment={"DATABASE_URL": "mysql://gradsmith:secret@db/gradsmith", "GRADSMITH_AUTH": "maybe"})


@contextmanager
def misspelt(folder: Path) -> Iterator[Call]:
    migrated(folder)
    yield Call(environment={"GRADSMITH_LEASE_SECOND": "120"})


@contextmanager
def postgres_away(folder: Path) -> Iterator[Call]:  # noqa: ARG001
    yield Call(environment={"DATABASE_URL": "postgresql://gradsmith:secret@127.0.0.1:1/gradsmith"})


@contextmanager
def not_migrated(folder: Path) -> Iterator[Call]:
    (folder / "gradsmith.db").touch()
    yield Call()


@contextmanager
def older(folder: Path) -> Iterator[Call]:
    migrated(folder, "0001")
    yield Call()


@contextmanager
def newer(folder: Path) -> Iterator[Call]:
    with contextlib.closing(sqlite3.connect(migrated(folder))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0099'")
    yield Call()


@contextmanager
def lost_table(folder: Path) -> Iterator[Call]:
    with contextlib.closing(sqlite3.connect(migrated(folder))) as connection, connection:
        connection.execute("DROP TABLE curve_overviews")
        connection.execute("ALTER TABLE checkpoints DROP COLUMN runtime")
    yield Call()


@contextmanager
def lost_table_of_postgres(folder: Path) -> Iterator[Call]:  # noqa: ARG001
    database = services.PostgresDatabase()
    try:
        with Database(database.url) as opened, opened.write() as session:
            session.execute(text("DROP TABLE curve_overviews"))
        yield Call(environment={"DATABASE_URL": database.url})
    finally:
        database.close()


@contextmanager
def no_database(folder: Path) -> Iterator[Call]:
    (folder / "gradsmith.db").write_bytes(b"Shall I compare thee to a summer's day? " * 500)
    yield Call()


@contextmanager
def torn_pages(folder: Path) -> Iterator[Call]:
    path = migrated(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: 8 * 4096] + b"\xff" * (len(whole) - 20 * 4096) + whole[-12 * 4096 :])
    yield Call()


@contextmanager
def locked(folder: Path) -> Iterator[Call]:
    with contextlib.closing(sqlite3.connect(migrated(folder), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield Call()


@contextmanager
def read_only(folder: Path) -> Iterator[Call]:
    migrated(folder).chmod(0o400)
    folder.chmod(0o500)
    try:
        yield Call(weak=True)
    finally:
        folder.chmod(0o700)


@contextmanager
def full_disk(folder: Path) -> Iterator[Call]:
    migrated(folder)
    yield Call(["--min-free-mb", "100000000"])


@contextmanager
def redis_away(folder: Path) -> Iterator[Call]:
    migrated(folder)
    yield Call(environment={"REDIS_URL": "redis://:secret@127.0.0.1:1/0"})


@contextmanager
def taken_port(folder: Path) -> Iterator[Call]:
    migrated(folder)
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield Call(["--port", str(other.getsockname()[1])])


@contextmanager
def no_key(folder: Path) -> Iterator[Call]:
    migrated(folder)
    yield Call(["--host", "0.0.0.0"])


@contextmanager
def damaged_data(folder: Path) -> Iterator[Call]:
    migrated(folder)
    sets = folder / "datasets" / "mnist"
    sets.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (sets / f"{part}-ubyte").write_bytes(b"half of a download")
    yield Call()


@contextmanager
def damaged_weights(folder: Path) -> Iterator[Call]:
    recipe = {"meta_steps": 1, "tasks": 1, "validation_tasks": 1, "horizon": 1, "unroll_steps": 1}
    with serving(folder, "--workers", "1") as url:
        _text(f"{url}/jobs", {"kind": "meta_train", "family": "quadratic", "recipe": recipe, "evaluate": False})
        deadline = time.monotonic() + READY_SECONDS
        while not json.loads(_text(f"{url}/optimizers"))["data"]:
            if time.monotonic() > deadline:
                raise RuntimeError("the job made no optimizer")
            time.sleep(0.2)
    with contextlib.closing(sqlite3.connect(folder / "gradsmith.db")) as connection, connection:
        [content] = connection.execute("SELECT content FROM weights").fetchone()
        connection.execute("UPDATE weights SET content = ?", (content[:-1] + bytes([content[-1] ^ 1]),))
    yield Call()


@contextmanager
def broken_plugin(folder: Path) -> Iterator[Call]:
    migrated(folder)
    plugin = folder / "curves.py"
    plugin.write_text("raise ValueError('a curve has no bounds')\n")
    yield Call(environment={"GRADSMITH_FAMILIES": str(plugin)})


@contextmanager
def no_compiler(folder: Path) -> Iterator[Call]:
    migrated(folder)
    yield Call(environment={"CXX": "no-such-compiler", "GRADSMITH_CACHE_DIR": str(folder / "cache")})


CASES = (
    Case("A sound installation, beside its running service", sound, sound=True),
    Case("Before the first start", first_start),
    Case("Settings that cannot be used", wrong_setting),
    Case("A setting that is misspelt", misspelt),
    Case("Postgres is away", postgres_away),
    Case("The database is not migrated", not_migrated),
    Case("The database is of an older version", older),
    Case("The database is of a newer version", newer),
    Case("The file is no database", no_database),
    Case("The database is damaged", torn_pages),
    Case("A table and a column were lost", lost_table),
    Case("A table was lost on Postgres", lost_table_of_postgres),
    Case("Another process keeps the database locked", locked),
    Case("The data folder cannot be written", read_only),
    Case("Other users can read the database", open_to_others),
    Case("The disk is full", full_disk),
    Case("Redis is away", redis_away),
    Case("The service was killed", killed),
    Case("The service hangs", hung),
    Case("Jobs wait and no worker serves them", waiting_jobs),
    Case("Another program has the port", taken_port),
    Case("An address that others reach, and no key", no_key),
    Case("A data set is damaged", damaged_data),
    Case("The weights of an optimizer are damaged", damaged_weights),
    Case("A plug-in cannot be loaded", broken_plugin),
    Case("There is no compiler", no_compiler),
)


def only_what_is_wrong(said: str) -> str:
    """Drops the lines that are ok, and those about what every folder of this program lacks: MNIST and a service."""
    body, _, last = said.rstrip().rpartition("\n")
    usual = ("data set mnist is not complete", "none runs on this data folder", "none serves the queue")
    blocks = re.split(r"\n(?=ok |warn |fail )", body)
    return "\n".join(
        [block for block in blocks if not block.startswith("ok") and not any(word in block for word in usual)] + [last]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose title holds these words")
    options = parser.parse_args()
    unnoticed = []
    print("# What the doctor says\n\nWritten by `./run bench doctor`, which breaks real installations and asks.")
    print("After the first, each section shows only the lines that are not ok.")
    for case in CASES:
        if options.only.lower() not in case.title.lower():
            continue
        with tempfile.TemporaryDirectory() as name, case.run(Path(name)) as call:
            said, status = doctor(Path(name), call)
        shown = said.rstrip() if case.sound else only_what_is_wrong(said)
        print(f"\n## {case.title}\n\n```\n{shown}\n```\n\nExit code {status}.", flush=True)
        wrong = re.search(r"^fail" if case.sound else r"^(warn|fail)", shown, re.M)
        if case.sound == bool(wrong):
            unnoticed.append(case.title)
    if unnoticed:
        print(f"unnoticed: {', '.join(unnoticed)}", file=sys.stderr)
    return int(bool(unnoticed))


if __name__ == "__main__":
    sys.exit(main())
