"""The doctor on a sound installation, and on one that is broken in each way: one clear line and the next step."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import text

import migrations
from app.doctor import Finding, Outcome, Patient, document, examine, exit_code, line, machine, running, service, stores
from app.host.tether import tethered
from app.settings import Settings, embedded_socket
from app.store.sessions import Database
from app.store.tables import SCHEMA_REVISION, Base
from models.families import KINDS
from models.tasks.data import MNIST
from tests.app.store.bench import Bench, metrics, points
from tests.app.store.damage import flip_a_bit
from tests.workers.harness import create, training
from workers import probe
from workers.main import JobWorker
from workshop import services
from workshop.serving import serving
from workshop.working import Worker

ALL_FREE = 0


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GRADSMITH_")}
    for name in ("DATABASE_URL", "REDIS_URL"):
        ours.pop(name, None)
    return subprocess.run(
        tethered([sys.executable, "-P", "-m", "app.cli", "doctor", *arguments]),
        env={**ours, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def _without_privileges() -> None:
    """Bound by file permissions, where the tests run as root."""
    drop_from_bounding_set, override, search, owner = 24, 1, 2, 3
    for capability in (override, search, owner):
        ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


def only(check: Callable[[Patient], Iterator[Finding]], settings: Settings, free_bytes: int = ALL_FREE) -> Finding:
    (finding,) = check(Patient(settings, free_bytes))
    assert len(line(finding).splitlines()) == (2 if finding.advice else 1), "a clear line, and the next step"
    assert bool(finding.advice) == (finding.outcome is not Outcome.OK)
    return finding


def with_redis(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"redis_url": SecretStr(url)})


def with_database(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"database_url": url})


# --- a sound installation ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.service
def test_a_sound_installation_passes_beside_its_running_server_and_nothing_is_changed(settings: Settings) -> None:
    def contents() -> set[Path]:
        return set(settings.data_dir.rglob("*"))

    with serving(settings) as url, redis.Redis.from_url(settings.resolved_redis_url) as connection:
        worker = JobWorker(["cpu"], "doctor-1", connection, None, Database(settings.resolved_database_url), settings)  # type: ignore[arg-type]
        worker.register_birth()
        worker.set_state("idle")
        before = contents()
        port = int(url.rpartition(":")[2])
        done = run(
            "--json", "--data", str(settings.data_dir), "--port", str(port), "--min-free-mb", "1",
            DATABASE_URL=settings.resolved_database_url, REDIS_URL=settings.resolved_redis_url,
        )  # fmt: skip
        assert contents() == before
        worker.register_death()
    told = json.loads(done.stdout)
    assert (done.returncode, told["healthy"], done.stderr) == (0, True, "")
    outcomes = {(check["check"], check["found"].split()[0]): check["outcome"] for check in told["checks"]}
    names = {name for name, _ in outcomes}
    assert names == {
        "settings", "data folder", "disk", "service", "database", "stored data", "redis", "workers", "address", "keys",
        "torch", "families", "data sets", "kernel", "gpu",
    }  # fmt: skip
    assert {check["outcome"] for check in told["checks"] if check["check"] not in ("data sets", "kernel", "gpu")} == {
        "ok"
    }
    assert "a Gradsmith server answers" in str(told)


def test_the_doctor_says_what_fails_by_its_exit_code() -> None:
    fine, poor = Finding("a", Outcome.WARN, "b", "c"), Finding("a", Outcome.FAIL, "b", "c")
    assert (exit_code([fine]), exit_code([fine, poor])) == (0, 1)
    assert json.loads(document([poor])) == {
        "healthy": False, "checks": [{"check": "a", "outcome": "fail", "found": "b", "advice": "c"}],
    }  # fmt: skip


# --- settings ------------------------------------------------------------------------------------------------------


def test_a_wrong_setting_is_the_only_line_and_shows_no_password() -> None:
    done = run(DATABASE_URL="mysql://u:topsecret@h/x")
    assert done.returncode == 1
    assert done.stdout.startswith("fail  settings     setting DATABASE_URL: mysql://... cannot be used")
    assert "nothing else was looked at" in done.stdout
    told = json.loads(run("--json", GRADSMITH_PORT="abc", GRADSMITH_AUTH="maybe").stdout)
    assert (told["healthy"], [check["outcome"] for check in told["checks"]]) == (False, ["fail", "fail"])
    assert "topsecret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_setting_and_a_lease_without_room_are_pointed_out(settings: Settings) -> None:
    tight = settings.model_copy(update={"lease_renewal_seconds": 40.0})
    findings = []
    for finding in examine(Patient(tight, ALL_FREE), {"GRADSMITH_LEASE_SECOND": "5"}):
        if finding.check != "settings":
            break
        findings.append(finding)
    misspelt, lease = findings
    assert (misspelt.outcome, misspelt.advice) == (Outcome.WARN, "did you mean GRADSMITH_LEASE_SECONDS?")
    assert lease.outcome is Outcome.WARN
    assert "GRADSMITH_LEASE_RENEWAL_SECONDS=40 leaves no room in GRADSMITH_LEASE_SECONDS=60" in lease.found


# --- the data folder and its disk ----------------------------------------------------------------------------------


def test_a_data_folder_that_cannot_be_written_is_named_with_what_to_do(settings: Settings) -> None:
    folder = settings.data_dir
    assert only(machine.data_folder, settings).outcome is Outcome.OK
    program = """
import sys
from pathlib import Path
from app.doctor import Patient, line, machine, stores
from app.settings import Settings
folder = Path(sys.argv[1])
patient = Patient(Settings(data_dir=folder, database_url=f"sqlite:///{folder / 'gradsmith.db'}"))
print(*map(line, (*machine.data_folder(patient), *stores.database(patient))), sep=chr(10))
"""
    folder.chmod(0o500)
    (folder / "gradsmith.db").chmod(0o400)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(folder)],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=_without_privileges,
        )
    finally:
        folder.chmod(0o700)
    found, advice, of_database, its_advice = done.stdout.splitlines()
    assert found.startswith(f"fail  data folder  {folder} cannot be written: Permission denied")
    assert "chown" in advice
    assert of_database.startswith("fail  database")
    assert "chown" in its_advice


def test_a_data_folder_that_is_not_there_yet_is_no_failure_and_is_not_made(settings: Settings) -> None:
    none = settings.model_copy(update={"data_dir": settings.data_dir / "new" / "one", "database_url": None})
    assert only(machine.data_folder, none).outcome is Outcome.WARN
    assert only(stores.database, none).outcome is Outcome.WARN
    assert only(machine.disk, none).outcome is Outcome.OK
    assert not (settings.data_dir / "new").exists()


def test_a_disk_that_is_too_full_fails_and_one_that_is_nearly_is_pointed_out(settings: Settings) -> None:
    free = os.statvfs(settings.data_dir).f_bavail * os.statvfs(settings.data_dir).f_frsize
    finding = only(machine.disk, settings, 2 * free)
    assert finding.outcome is Outcome.FAIL
    assert "make room" in finding.advice
    assert only(machine.disk, settings, free // 2).outcome is Outcome.WARN


# --- the database --------------------------------------------------------------------------------------------------


def test_a_migrated_database_is_sound_on_both_kinds(settings: Settings, database_url: str) -> None:
    finding = only(stores.database, with_database(settings, database_url))
    assert finding.outcome is Outcome.OK
    assert "writable" in finding.found
    assert ("SQLite 3" in finding.found) != ("PostgreSQL" in finding.found)


def test_a_database_that_is_not_migrated_or_is_older_or_newer(settings: Settings, tmp_path: Path) -> None:
    empty = with_database(settings, f"sqlite:///{tmp_path / 'empty.db'}")
    (tmp_path / "empty.db").touch()
    assert f"run `gradsmith-server migrate --data {settings.data_dir}`" in only(stores.database, empty).advice
    migrations.upgrade(empty.resolved_database_url, "0001")
    older = only(stores.database, empty)
    assert older.outcome is Outcome.FAIL
    assert f"at schema 0001, and {SCHEMA_REVISION} is needed" in older.found
    assert "gradsmith-server migrate" in older.advice
    migrations.upgrade(empty.resolved_database_url)
    with Database(empty.resolved_database_url) as found, found.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    newer = only(stores.database, empty)
    assert newer.outcome is Outcome.FAIL
    assert f"0099, which this version ({SCHEMA_REVISION}) does not know" in newer.found
    assert "newer version of Gradsmith" in newer.advice


def test_a_table_or_column_that_was_lost_is_named_and_migrate_is_not_advised(
    settings: Settings, database: Database
) -> None:
    ours = with_database(settings, database.url.render_as_string(hide_password=False))
    lost = (
        ("DROP TABLE curve_overviews", "the table curve_overviews"),
        ("ALTER TABLE checkpoints DROP COLUMN runtime", "the table curve_overviews, the column checkpoints.runtime"),
    )
    with contextlib.ExitStack() as undo:
        if not database.is_sqlite:
            undo.callback(mend, database)
        for statement, lacks in lost:
            with database.write() as session:
                session.execute(text(statement))
            finding = only(stores.database, ours)
            assert finding.outcome is Outcome.FAIL
            assert (
                f"is at schema {SCHEMA_REVISION} and lacks {lacks}: migrating does not bring that back" in finding.found
            )
            assert ("gradsmith-server restore BACKUP --replace" if database.is_sqlite else "dump") in finding.advice
            assert "migrate`" not in finding.advice


def mend(database: Database) -> None:
    """The tests' Postgres database is one for all of them: with every table again, empty but for a workspace."""
    url = database.url.render_as_string(hide_password=False)
    with database.write() as session:
        session.execute(text("DROP TABLE checkpoints"))
        Base.metadata.create_all(session.connection())
    migrations.check(url)


def test_a_file_that_is_no_database_or_is_damaged_is_to_be_restored(settings: Settings) -> None:
    path = settings.data_dir / "gradsmith.db"
    whole = path.read_bytes()
    path.write_bytes(b"Shall I compare thee to a summer's day? " * 500)
    poem = only(stores.database, settings)
    assert poem.outcome is Outcome.FAIL
    assert "file is not a database" in poem.found
    assert "gradsmith-server restore" in poem.advice
    page = 4096
    path.write_bytes(whole[: 8 * page] + b"\xff" * (len(whole) - 20 * page) + whole[-12 * page :])  # torn in the middle
    damaged = only(stores.database, settings)
    assert damaged.outcome is Outcome.FAIL
    assert "malformed" in damaged.found or "damaged" in damaged.found
    assert "gradsmith-server restore" in damaged.advice


def test_stored_bytes_that_changed_are_named_with_what_mends_them(settings: Settings) -> None:
    with Database(settings.resolved_database_url) as database:
        bench = Bench(database)
        lease = bench.running()
        bench.record(lease, metrics(1, 1, points(1, 30)))
        optimizer = bench.finish(lease, 2).optimizer
        assert optimizer is not None
        sound = only(stores.stored_data, settings)
        assert (sound.outcome, sound.found) == (
            Outcome.OK,
            "as it was written: 1 weights, 0 checkpoints, 1 pieces of curves",
        )
        flip_a_bit(database, "weights", "content")
        flip_a_bit(database, "curve_chunks", "columns", 0.0)
    weights, curve = stores.stored_data(Patient(settings, ALL_FREE))
    assert weights.outcome is Outcome.FAIL
    assert f"the weights of {optimizer.id} (quadratic@1) are damaged" in weights.found
    assert "gradsmith-server restore BACKUP" in weights.advice
    assert curve.outcome is Outcome.WARN
    assert lease.job_id in curve.found


def test_a_database_whose_lock_is_held_is_told_apart_from_one_that_is_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "PATIENCE_SECONDS", 0.2)
    with Database(settings.resolved_database_url) as other, other.write():
        finding = only(stores.database, settings)
    assert finding.outcome is Outcome.FAIL
    assert "another process keeps its write lock" in finding.found


@pytest.mark.parametrize(
    ("change", "words", "advice"),
    [
        ({"database": "no_such_database"}, "does not exist", "createdb"),
        ({"username": "nobody_of_that_name", "password": "topsecret"}, "nobody_of_that_name", "user or the password"),
        ({"query": {"host": "/nonexistent"}, "password": "topsecret"}, "No such file", "is the server running"),
    ],
)
def test_a_postgres_that_refuses_says_why_and_no_password(
    settings: Settings, postgres_url: str, change: dict[str, Any], words: str, advice: str
) -> None:
    from sqlalchemy import make_url

    url = make_url(postgres_url).set(**change).render_as_string(hide_password=False)
    finding = only(stores.database, with_database(settings, url))
    assert finding.outcome is Outcome.FAIL
    assert words in finding.found
    assert advice in finding.advice
    assert "topsecret" not in line(finding)


def test_a_postgres_that_takes_no_writes_fails(settings: Settings, postgres_url: str) -> None:
    url = f"{postgres_url}&options=-cdefault_transaction_read_only%3Don"
    finding = only(stores.database, with_database(settings, url))
    assert finding.outcome is Outcome.FAIL
    assert "read-only" in finding.found
    assert "primary" in finding.advice


# --- Redis ---------------------------------------------------------------------------------------------------------


def test_a_redis_that_answers_and_one_that_is_dead(settings: Settings, valkey: services.ValkeyServer) -> None:
    ours = with_redis(settings, valkey.url)
    fine = only(stores.redis_server, ours)
    assert fine.outcome is Outcome.OK
    assert "no append-only file" in fine.found
    valkey.stop()
    dead = only(stores.redis_server, ours)
    assert dead.outcome is Outcome.FAIL
    assert "does not answer" in dead.found
    wrong = only(stores.redis_server, with_redis(settings, "redis://:topsecret@127.0.0.1:1/0"))
    assert wrong.outcome is Outcome.FAIL
    assert "topsecret" not in line(wrong)
    assert "REDIS_URL" in wrong.advice


def test_a_redis_that_asks_for_a_password_evicts_or_copies_another_is_pointed_out(
    settings: Settings, valkey: services.ValkeyServer
) -> None:
    ours = with_redis(settings, valkey.url)
    with redis.Redis.from_url(valkey.url) as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert "may evict keys (allkeys-lru)" in only(stores.redis_server, ours).found
        client.config_set("maxmemory", str(int(1.05 * client.info()["used_memory"])))
        client.config_set("maxmemory-policy", "noeviction")
        assert "90 % of its maxmemory" in only(stores.redis_server, ours).found
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", 1)
        assert "is a replica" in only(stores.redis_server, ours).found
        client.replicaof("NO", "ONE")
        client.config_set("requirepass", "topsecret")
    asked = only(stores.redis_server, ours)
    assert asked.outcome is Outcome.FAIL
    assert "user or the password in REDIS_URL" in asked.advice


@pytest.mark.parametrize(
    ("setting", "word", "advice"),
    [("maxmemory 1kb", "is full", "maxmemory"), ("min-replicas-to-write 1", "too few replicas", "log")],
)
def test_a_redis_that_refuses_writes_fails(
    settings: Settings, valkey: services.ValkeyServer, setting: str, word: str, advice: str
) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        client.config_set(*setting.split())
        keys = client.keys()
        finding = only(stores.redis_server, with_redis(settings, valkey.url))
        assert client.keys() == keys, "the doctor leaves nothing behind"
    assert finding.outcome is Outcome.FAIL
    assert word in finding.found
    assert advice in finding.advice


def test_something_on_that_port_that_never_answers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PATIENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        finding = only(stores.redis_server, with_redis(settings, url))
    assert finding.outcome is Outcome.FAIL
    assert "does not answer" in finding.found


def test_the_bundled_server_that_does_not_run_yet_is_no_failure(settings: Settings) -> None:
    bundled = settings.model_copy(update={"redis_url": None})
    left = embedded_socket(settings.data_dir)
    for _ in range(2):
        finding = only(stores.redis_server, bundled)
        assert finding.outcome is Outcome.OK
        assert "is not running; `serve` starts it" in finding.found
        left.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as killed:  # its socket's file stays
            killed.bind(str(left))


# --- workers, the address, keys ------------------------------------------------------------------------------------


def test_jobs_that_wait_without_a_worker_fail_the_check(settings: Settings, sqlite_database: Database) -> None:
    cpu, gpu = service.workers(Patient(settings, ALL_FREE))
    assert (cpu.outcome, gpu.outcome) == (Outcome.WARN, Outcome.OK)
    job_id = create(sqlite_database, training())
    cpu, gpu = service.workers(Patient(settings, ALL_FREE))
    assert cpu.outcome is Outcome.FAIL
    assert "1 job waits in the queue cpu, and no worker serves it" in cpu.found
    assert "gradsmith-server worker --queues cpu" in cpu.advice
    with redis.Redis.from_url(settings.resolved_redis_url) as connection:
        worker = JobWorker(["cpu"], "doctor-2", connection, None, sqlite_database, settings)  # type: ignore[arg-type]
        worker.register_birth()
        worker.set_state("idle")
        assert next(service.workers(Patient(settings, ALL_FREE))).outcome is Outcome.OK
        with sqlite_database.write() as session:  # it waits, and nobody rings
            session.execute(text("UPDATE jobs SET queue_key = queue_key - 600000"))
        idle = next(service.workers(Patient(settings, ALL_FREE)))
        assert idle.outcome is Outcome.WARN
        assert "1 of 1 workers of the queue cpu are idle while 1 job waits" in idle.found
        worker.register_death()
    lost = Worker(settings, sqlite_database, job_id)
    with sqlite_database.write() as session:
        session.execute(text("UPDATE jobs SET lease_expires_at = created_at"))
    assert "nobody has taken over: 1" in list(service.workers(Patient(settings, ALL_FREE)))[-1].found
    lost.close()


def test_a_port_that_another_program_has_fails_and_one_of_ours_does_not(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        def answer() -> None:
            with taken.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=answer)
        thread.start()
        finding = only(service.address, settings.model_copy(update={"port": port}))
        thread.join(5)
    assert finding.outcome is Outcome.FAIL
    assert "Address already in use" in finding.found
    assert "--port 0" in finding.advice
    assert only(service.address, settings.model_copy(update={"port": port})).outcome is Outcome.OK


@pytest.fixture
def recorded(settings: Settings) -> Callable[..., Settings]:
    """Settings of a data folder with that server.json, for a doctor that knows no better."""

    def write(told: Any) -> Settings:
        text = told if isinstance(told, str) else json.dumps(told)
        (settings.data_dir / "server.json").write_text(text)
        return settings.model_copy(update={"port": 1})

    return write


def test_the_service_that_runs_is_told_from_one_that_died_or_hangs(
    settings: Settings, recorded: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = settings.model_copy(update={"redis_url": None})
    assert only(running.service, settings).outcome is Outcome.OK, "the parts may have been started by hand"
    assert "`gradsmith-server serve --data " in only(running.service, bundled).advice
    with subprocess.Popen(["true"]) as gone:
        os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
        unburied = only(running.service, recorded({"url": "http://127.0.0.1:1", "pid": gone.pid}))
    assert "is gone" in unburied.found
    dead = only(running.service, recorded({"url": "http://127.0.0.1:1", "pid": gone.pid}))
    assert dead.outcome is Outcome.FAIL
    assert f"names process {gone.pid} at http://127.0.0.1:1, which is gone" in dead.found
    for wrong in ("", "[]", '{"url": 1}', '{"url": "x", "pid": "y"}'):
        assert "server.json cannot be read" in only(running.service, recorded(wrong)).found
    monkeypatch.setattr(running, "PATIENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hung = only(running.service, recorded({"url": url, "pid": os.getpid()}))
    assert hung.outcome is Outcome.FAIL
    assert "no Gradsmith answers" in hung.found
    assert f"`kill {os.getpid()}`" in hung.advice


def test_the_lines_of_a_running_service_are_about_it_and_not_about_the_doctors_settings(
    settings: Settings, recorded: Callable[..., Settings]
) -> None:
    with serving(settings) as url:
        patient = Patient(recorded({"url": url, "pid": os.getpid()}), ALL_FREE)
        (found,) = running.service(patient)
        assert (found.outcome, found.found) == (
            Outcome.OK, f"answers at {url} (process {os.getpid()}), asks for no keys",
        )  # fmt: skip
        assert [finding.found for finding in service.keys(patient)] == ["the running service asks for none"]
        assert list(service.address(patient)) == []
        with Database(settings.resolved_database_url) as database, database.write() as session:
            session.execute(text("DROP TABLE checkpoints"))
        broken = only(running.service, patient.settings)
        assert broken.outcome is Outcome.FAIL
        assert "is not ready: database is broken, it lacks the table checkpoints" in broken.found
    with serving(settings.model_copy(update={"auth": "on"})) as url:
        keyed = recorded({"url": url, "pid": os.getpid()})
        assert "asks for keys" in only(running.service, keyed).found
        assert "none is valid" in only(service.keys, keyed).found


def test_a_store_that_other_users_can_read_is_pointed_out_with_the_command_that_mends_it(settings: Settings) -> None:
    database = settings.data_dir / "gradsmith.db"
    settings.data_dir.chmod(0o755)
    database.chmod(0o644)
    open_to_all = only(machine.data_folder, settings)
    assert open_to_all.outcome is Outcome.WARN
    assert "other users of this machine can read gradsmith.db" in open_to_all.found
    subprocess.run(open_to_all.advice.strip("`"), shell=True, check=True)
    assert only(machine.data_folder, settings).outcome is Outcome.OK
    assert (settings.data_dir.stat().st_mode & 0o777, database.stat().st_mode & 0o777) == (0o700, 0o600)
    settings.data_dir.chmod(0o755)
    assert only(machine.data_folder, settings).outcome is Outcome.OK, "nobody gets at the file"


def test_an_address_that_others_reach_needs_a_key(settings: Settings) -> None:
    assert only(service.keys, settings).outcome is Outcome.OK
    open_to_all = settings.model_copy(update={"host": "0.0.0.0"})
    new = open_to_all.model_copy(update={"database_url": None, "data_dir": settings.data_dir / "new"})
    assert "keys create" in only(service.keys, new).advice
    assert not new.data_dir.exists()
    assert only(service.keys, open_to_all).outcome is Outcome.FAIL
    assert "keys create" in only(service.keys, open_to_all).advice
    assert only(service.keys, open_to_all.model_copy(update={"auth": "off"})).outcome is Outcome.WARN


# --- what workers have ---------------------------------------------------------------------------------------------


def test_data_sets_kernel_and_compiler_as_a_worker_would_find_them(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("GRADSMITH_CACHE_DIR", str(tmp_path / "cache"))
    told = probe.computing() | {"cpus": 2, "driver": False, "datasets": probe.data_sets(settings.data_dir)}
    told["families"] = probe.families(opened=True)
    _torch, families, digits, mnist, *others, kernel, _gpu = machine.of_probe(told, settings)
    assert (families.outcome, families.found) == (Outcome.OK, f"kinds: {', '.join(KINDS)}")
    assert (digits.outcome, digits.found) == (Outcome.OK, "digits is ready")
    assert mnist.outcome is Outcome.WARN
    assert str(settings.data_dir / "datasets" / "mnist") in mnist.found
    assert f"`gradsmith-server data import mnist FOLDER --data {settings.data_dir}`" in mnist.advice
    [cifar] = [each for each in others if "cifar10" in each.found]
    assert cifar.outcome is Outcome.WARN, "and nobody misses its other forms"
    assert f"`gradsmith-server data fetch cifar10 --data {settings.data_dir}`" in cifar.advice
    [art] = [each for each in others if "art" in each.found.split()]
    assert art.outcome is Outcome.WARN
    assert art.found.endswith("datasets/art lacks content64.npz, style64.npz")
    assert f"gradsmith-server data import art FOLDER --data {settings.data_dir}`" in art.advice
    assert kernel.outcome is Outcome.WARN
    assert "the C++ compiler 'no-such-compiler' that CXX names is not on PATH" in kernel.found
    folder = settings.data_dir / "datasets" / "mnist"
    folder.mkdir(parents=True)
    for file in MNIST.values():
        (folder / file.name).write_bytes(b"\0\0\x08\x01 not what was published")
    told["datasets"] = probe.data_sets(settings.data_dir)
    damaged = list(machine.of_probe(told, settings))[3]
    assert damaged.outcome is Outcome.FAIL
    assert damaged.advice.startswith("delete it, then `gradsmith-server data fetch mnist")


def test_workers_that_cannot_even_start_are_a_failure_in_one_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "PROBE", "workers.no_such_program")
    finding = only(machine.what_workers_have, settings)
    assert finding.outcome is Outcome.FAIL
    assert "No module named workers.no_such_program" in finding.found
    monkeypatch.setattr(machine, "PROBE_SECONDS", 0.01)
    assert "did not answer" in only(machine.what_workers_have, settings).found


def test_a_machine_without_torch_or_with_a_gpu_that_torch_cannot_see(settings: Settings) -> None:
    told: dict[str, Any] = {
        "torch": None, "kernel": "", "kernel_reason": None, "kernel_others": None, "gpus": [], "cuda": None, "cpus": 2,
        "driver": False,
        "families": {
            "kinds": {"mlp": None, "lines": "The tasks of kind 'lines' cannot be imported: no scipy. Install it."},
            "problems": [{"plugin": "curves 1.2", "reason": "ValueError: bad bounds"}],
        },
        "datasets": {
            "digits": {"message": "The data set digits is not complete. Bring it.", "damaged": False, "fetched": False}
        },
    }  # fmt: skip
    torch, unloaded, unopened, digits = machine.of_probe(told, settings)
    assert (unloaded.outcome, unopened.outcome) == (Outcome.FAIL, Outcome.FAIL)
    assert unloaded.found == "the plug-in curves 1.2 could not be loaded: ValueError: bad bounds"
    assert (unopened.found, unopened.advice) == ("The tasks of kind 'lines' cannot be imported: no scipy", "Install it")
    assert (torch.outcome, torch.check) == (Outcome.WARN, "torch")
    assert (digits.outcome, digits.found, digits.advice) == (
        Outcome.WARN, "The data set digits is not complete", "Bring it",
    )  # fmt: skip
    lacking = {"kernel": "torch", "kernel_reason": "the folder /k that GRADSMITH_KERNELS names has no lstm-2x20-in2.so"}
    [kernel] = [each for each in machine.of_probe(told | lacking | {"torch": "2"}, settings) if each.check == "kernel"]
    assert "/k that GRADSMITH_KERNELS names has no" in kernel.found
    assert "build the image again" in kernel.advice
    # The best kernel is missing, and a lesser one runs; no other sizes can be compiled.
    lacking = {"torch": "2", "kernel": "native-portable", "kernel_reason": "uses only portable: no lstm-2x20-in2-avx2"}
    [kernel] = [each for each in machine.of_probe(told | lacking, settings) if each.check == "kernel"]
    assert kernel.outcome is Outcome.WARN
    assert "native-portable runs LSTM rules on the CPU, after a warning: uses only portable" in kernel.found
    lacking |= {"kernel_reason": None, "kernel_others": "there is no C++ compiler; install one (apt install g++)"}
    [kernel] = [each for each in machine.of_probe(told | lacking, settings) if each.check == "kernel"]
    assert (kernel.outcome, kernel.advice) == (Outcome.WARN, "install one (apt install g++)")
    assert kernel.found.endswith("all others run through torch, more slowly: there is no C++ compiler")
    lacking |= {"kernel_others": "the C++ compiler 'cc' that CXX names is not on PATH"}
    [kernel] = [each for each in machine.of_probe(told | lacking, settings) if each.check == "kernel"]
    assert "is there a C++ compiler" in kernel.advice
    told |= {"torch": "2.13.0+cpu", "kernel": "native-avx2", "driver": True, "datasets": {}}
    *_, gpu = machine.of_probe(told, settings)
    assert gpu.outcome is Outcome.WARN
    assert "a build for CPUs" in gpu.found
    *_, gpu = machine.of_probe(told | {"gpus": ["H100"]}, settings)
    assert (gpu.outcome, gpu.found) == (Outcome.OK, "H100")
