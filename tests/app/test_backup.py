"""`backup` beside a running service, `restore` where it stands still: whole or not at all, and nothing is lost."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import migrations
from app.backup import BackupError, back_up, make, restore
from app.cli import app
from app.host.supervise import only_one
from app.host.tether import tethered
from app.settings import Settings
from app.store.jobs import JobRepository
from app.store.sessions import Database
from app.store.tables import SCHEMA_REVISION
from tests.workers.harness import create, training
from workshop.serving import serving
from workshop.working import Worker


@pytest.fixture
def ours(settings: Settings) -> Settings:
    """A store with a finished job and a data set."""
    sets = settings.data_dir / "datasets" / "mnist"
    sets.mkdir(parents=True)
    (sets / "train-images-idx3-ubyte.gz").write_bytes(os.urandom(100_000))
    (sets / ".half.download").write_bytes(b"not whole yet")
    with Database(settings.resolved_database_url) as database:
        worker = Worker(settings, database, create(database, training()))
        worker.record(worker.metrics(1, 2, 3))
        worker.finish_training()
        worker.close()
    return settings


def elsewhere(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"data_dir": tmp_path / "elsewhere", "database_url": None})


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


# --- there and back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["copy", "copy.tar.gz"])
def test_what_is_restored_serves_the_same_weights_curves_and_data_sets(
    ours: Settings, tmp_path: Path, name: str
) -> None:
    asked = ("/optimizers/quadratic@1", "/optimizers?family=quadratic", "/jobs", "/keys")
    with serving(ours) as url:
        before = [httpx.get(url + path, timeout=30).content for path in asked]
        job = httpx.get(f"{url}/jobs", timeout=30).json()["data"][-1]["id"]
        curve = httpx.get(f"{url}/jobs/{job}/curve", timeout=30).content
        manifest = back_up(ours, tmp_path / "backups" / name)  # while the server runs
    assert set(manifest.files) == {"gradsmith.db", "datasets/mnist/train-images-idx3-ubyte.gz"}
    new = elsewhere(ours, tmp_path)
    done = restore(new, tmp_path / "backups" / name)
    assert (done.kept, done.migrated_from) == (None, None)
    assert {path.name for path in new.data_dir.iterdir()} == {"gradsmith.db", "datasets", "serve.lock"}
    sets = Path("datasets") / "mnist" / "train-images-idx3-ubyte.gz"
    assert (new.data_dir / sets).read_bytes() == (ours.data_dir / sets).read_bytes()
    with serving(new) as url:
        assert [httpx.get(url + path, timeout=30).content for path in asked] == before
        assert httpx.get(f"{url}/jobs/{job}/curve", timeout=30).content == curve
    assert not list((tmp_path / "backups").glob(".*")), "nothing half-made is left"


def test_a_backup_is_of_one_moment_while_others_write(ours: Settings, tmp_path: Path) -> None:
    stop = threading.Event()
    written = 0
    with Database(ours.resolved_database_url) as database:

        def write() -> None:
            nonlocal written
            while not stop.is_set():
                with database.write() as session:  # a job and its doorbell: one without the other is a torn copy
                    JobRepository(session).create(training())
                written += 1

        thread = threading.Thread(target=write)
        thread.start()
        try:
            committed = []
            for number in range(3):
                time.sleep(0.05)
                committed.append(written)
                back_up(ours, tmp_path / f"copy-{number}")
        finally:
            stop.set()
            thread.join()
    counts = []
    for number in range(3):
        path = tmp_path / f"copy-{number}" / "gradsmith.db"
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]
        queued = rows(path, "SELECT id FROM jobs WHERE status = 'queued' ORDER BY id")
        assert queued == rows(path, "SELECT job FROM outbox ORDER BY job")
        counts.append(len(queued))
    assert counts == sorted(counts)
    assert all(count >= before for count, before in zip(counts, committed, strict=True)), "all that was committed"
    assert written > counts[0], "writers go on"


def test_an_older_backup_is_brought_to_this_schema(settings: Settings, tmp_path: Path) -> None:
    old = elsewhere(settings, tmp_path / "old")
    migrations.upgrade(old.resolved_database_url, "0001")
    assert back_up(old, tmp_path / "copy").schema_revision == "0001"
    new = elsewhere(settings, tmp_path)
    assert restore(new, tmp_path / "copy").migrated_from == "0001"
    with Database(new.resolved_database_url) as database:
        database.check()
    assert rows(tmp_path / "copy" / "gradsmith.db", "SELECT version_num FROM alembic_version") == [("0001",)]


# --- never half-written --------------------------------------------------------------------------------------------

CUT_OFF = """
import os, signal, sys
from pathlib import Path
from app.backup import make
from app.settings import Settings
real = make.hash_of
def cut_off(path):
    os.kill(os.getpid(), signal.SIGKILL)
make.hash_of = cut_off
make.back_up(Settings(data_dir=Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_a_backup_that_is_killed_leaves_nothing_of_its_name_and_the_next_one_is_whole(
    ours: Settings, tmp_path: Path
) -> None:
    killed = subprocess.run(
        tethered([sys.executable, "-c", CUT_OFF, str(ours.data_dir), str(tmp_path / "copy.tar")]),
        env={**os.environ, "DATABASE_URL": ours.resolved_database_url},
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "copy.tar").exists()
    back_up(ours, tmp_path / "copy.tar")
    restore(elsewhere(ours, tmp_path), tmp_path / "copy.tar")


def test_a_disk_that_fills_up_is_one_sentence_and_leaves_nothing(
    ours: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import sys; from app.cli import app; app(sys.argv[1:])"

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = subprocess.run(
        [sys.executable, "-c", program, "backup", str(tmp_path / "copy"), "--data", str(ours.data_dir)],
        env={**os.environ, "DATABASE_URL": ours.resolved_database_url},
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=small_disk,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("gradsmith-server: ")
    assert done.stderr.count("\n") == 1
    monkeypatch.setattr(make, "SPARE_BYTES", 2**60)
    with pytest.raises(BackupError, match=r"needs about .* make room"):
        back_up(ours, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob(".copy*"))


def test_an_existing_target_a_missing_store_and_a_damaged_one_are_refused(ours: Settings, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with pytest.raises(BackupError, match="exists already"):
        back_up(ours, tmp_path / "copy")
    with pytest.raises(BackupError, match=r"no database at .*--data"):
        back_up(elsewhere(ours, tmp_path), tmp_path / "other")
    with pytest.raises(BackupError, match="among the data sets"):
        back_up(ours, ours.data_dir / "datasets" / "copy")
    for name in ("copy.zip", "copy.tar.XZ", "copy.gz"):
        with pytest.raises(BackupError, match=r"would be a file by its name.* end it in .tar"):
            back_up(ours, tmp_path / name)
        assert not (tmp_path / name).exists()
    path = ours.data_dir / "gradsmith.db"
    path.write_bytes(b"Shall I compare thee to a summer's day? " * 500)
    with pytest.raises(BackupError, match=r"cannot be read: file is not a database.*doctor"):
        back_up(ours, tmp_path / "other")
    assert not (tmp_path / "other").exists()


# --- a restore that is refused changes nothing ---------------------------------------------------------------------


def edited(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "gradsmith.db").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "gradsmith.db").write_bytes(content)


def climb_out(manifest: dict[str, Any]) -> None:
    manifest["files"]["datasets/../../stolen"] = manifest["files"]["gradsmith.db"]


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (flip_a_bit, "is damaged: gradsmith.db has .* use another"),
    "a lost file": (lambda folder: (folder / "datasets/mnist/train-images-idx3-ubyte.gz").unlink(), "is not whole"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "is no backup"),
    "half a manifest": (
        lambda folder: (folder / "manifest.json").write_text('{"format": 1'),
        "manifest.json .* damaged",
    ),
    "a path that climbs out": (lambda folder: edited(folder, climb_out), "belongs to none"),
    "a newer format": (lambda folder: edited(folder, lambda found: found.update(format=2)), "has format 2"),
    "a newer schema": (
        lambda folder: edited(folder, lambda found: found.update(schema_revision="0099")),
        "schema 0099, which this version .* does not know",
    ),
    "another schema than it says": (
        lambda folder: edited(folder, lambda found: found.update(schema_revision="0001")),
        "is not what its manifest.json says",
    ),
    "no database": (lambda folder: edited(folder, lambda found: found["files"].pop("gradsmith.db")), "holds no"),
}


@pytest.mark.parametrize("what", list(DAMAGE))
def test_a_backup_that_is_damaged_or_newer_is_refused_and_nothing_is_changed(
    ours: Settings, tmp_path: Path, what: str
) -> None:
    damage, words = DAMAGE[what]
    back_up(ours, tmp_path / "copy")
    damage(tmp_path / "copy")
    target = elsewhere(ours, tmp_path)
    migrations.upgrade(target.resolved_database_url)
    before = everything(target.data_dir)
    with pytest.raises(BackupError, match=words):
        restore(target, tmp_path / "copy", replace=True)
    after = everything(target.data_dir)
    after.pop("serve.lock", None)
    assert after == before
    assert not (tmp_path / "stolen").exists()


def test_a_tar_file_that_is_cut_off_or_holds_a_link_is_refused(ours: Settings, tmp_path: Path) -> None:
    back_up(ours, tmp_path / "whole.tar.gz")
    whole = (tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "poem.tar").write_text("Shall I compare thee to a summer's day?")
    secret = tmp_path / "secret"
    secret.write_text("topsecret")
    manifest = io.BytesIO(json.dumps({"files": {"gradsmith.db": {"bytes": 9, "sha256": "0" * 64}}, "format": 1,
                                      "made_at": "", "gradsmith": "",
                                      "schema_revision": SCHEMA_REVISION}).encode())  # fmt: skip
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        described = tarfile.TarInfo("manifest.json")
        described.size = len(manifest.getvalue())
        tar.addfile(described, manifest)
        link = tarfile.TarInfo("gradsmith.db")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
    target = elsewhere(ours, tmp_path)
    for name in ("cut.tar.gz", "poem.tar", "link.tar", "none.tar"):
        with pytest.raises(BackupError):
            restore(target, tmp_path / name)
    assert not target.data_dir.exists(), "not even the folder was made"


def test_a_store_that_is_there_is_replaced_only_when_asked_for_and_kept(ours: Settings, tmp_path: Path) -> None:
    back_up(ours, tmp_path / "copy")
    target = elsewhere(ours, tmp_path).model_copy(update={"redis_url": None})
    migrations.upgrade(target.resolved_database_url)
    (target.data_dir / "valkey").mkdir()
    (target.data_dir / "valkey" / "appendonly").write_text("streams of other attempts")
    sets = target.data_dir / "datasets" / "mnist"
    sets.mkdir(parents=True)
    (sets / "train-images-idx3-ubyte.gz").write_bytes(b"another")
    (sets / "of-my-own").write_bytes(b"stays")
    with pytest.raises(BackupError, match=r"a store already at .*--replace"):
        restore(target, tmp_path / "copy")
    assert not list(target.data_dir.glob("replaced-*"))
    done = restore(target, tmp_path / "copy", replace=True)
    assert done.kept is not None
    assert rows(done.kept / "gradsmith.db", "SELECT count(*) FROM jobs") == [(0,)]
    assert rows(target.data_dir / "gradsmith.db", "SELECT count(*) FROM jobs WHERE status = 'succeeded'") == [(1,)]
    assert (done.kept / "valkey" / "appendonly").read_text() == "streams of other attempts"
    assert not (target.data_dir / "valkey").exists()
    assert (done.kept / "datasets" / "mnist" / "train-images-idx3-ubyte.gz").read_bytes() == b"another"
    assert (sets / "of-my-own").read_bytes() == b"stays"


def test_a_damaged_store_can_be_replaced(ours: Settings, tmp_path: Path) -> None:
    back_up(ours, tmp_path / "copy")
    path = ours.data_dir / "gradsmith.db"
    path.write_bytes(b"Shall I compare thee to a summer's day? " * 500)
    (ours.data_dir / "gradsmith.db-wal").write_bytes(b"what was left of its log")
    done = restore(ours, tmp_path / "copy", replace=True)
    assert done.kept is not None
    assert (done.kept / "gradsmith.db").read_bytes().startswith(b"Shall I")
    assert not (ours.data_dir / "gradsmith.db-wal").exists()
    with Database(ours.resolved_database_url) as database:
        database.check()


def test_a_live_store_is_never_replaced_whoever_has_it_open(ours: Settings, tmp_path: Path) -> None:
    back_up(ours, tmp_path / "copy")
    before = (ours.data_dir / "gradsmith.db").read_bytes()
    with Database(ours.resolved_database_url) as database:
        with database.read() as session:
            session.connection()
        # an idle connection of an API or a worker that was started by hand, in this case in this very process
        with pytest.raises(BackupError, match="is in use: stop every API and worker"):
            restore(ours, tmp_path / "copy", replace=True)
    with only_one(ours.data_dir), pytest.raises(BackupError, match=f"process {os.getpid()} already serves"):
        restore(ours, tmp_path / "copy", replace=True)
    assert (ours.data_dir / "gradsmith.db").read_bytes() == before
    restore(ours, tmp_path / "copy", replace=True)


# --- the commands --------------------------------------------------------------------------------------------------


def invoke(*arguments: str, **environment: str) -> Any:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120", "NO_COLOR": "1", **environment})


def test_the_commands_say_what_they_did_and_refuse_in_one_sentence(ours: Settings, tmp_path: Path) -> None:
    data = {"DATABASE_URL": ours.resolved_database_url}
    made = invoke("backup", str(tmp_path / "copy"), "--data", str(ours.data_dir), **data)
    assert made.exit_code == 0, made.output
    assert made.stdout.startswith(f"{tmp_path / 'copy'}: schema {SCHEMA_REVISION}, 2 files, ")
    again = invoke("backup", str(tmp_path / "copy"), "--data", str(ours.data_dir), **data)
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)
    refused = invoke("restore", str(tmp_path / "copy"), "--data", str(ours.data_dir), **data)
    assert refused.exit_code == 2
    assert "--replace" in refused.stderr
    done = invoke("restore", str(tmp_path / "copy"), "--data", str(ours.data_dir), "--replace", **data,
                  REDIS_URL="redis://:topsecret@127.0.0.1:1/0")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "What was there before is in " in done.stdout
    assert "redis-cli FLUSHDB" in done.stdout
    assert "topsecret" not in done.output


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_postgres_has_its_own_tools_and_the_commands_name_them(command: str, tmp_path: Path) -> None:
    done = invoke(command, str(tmp_path / "copy"), DATABASE_URL="postgresql://u:topsecret@127.0.0.1:1/x")
    assert done.exit_code == 2
    assert {"backup": "pg_dump", "restore": "pg_restore"}[command] in done.stderr
    assert "topsecret" not in done.stderr
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
