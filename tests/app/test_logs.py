"""What processes log: a JSON object a line, ids that lead from a request to its job, and never a secret."""

from __future__ import annotations

import io
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import logs
from app.host import supervise
from app.host.server import bind, url_of
from app.host.tether import tethered
from app.settings import Settings
from tests.workers.harness import environment

SECRETS = [
    ("postgresql://someone:topsecret@host/db is away", "postgresql://someone:***@host/db is away"),
    ("redis://:topsecret@host:6379/0", "redis://:***@host:6379/0"),
    ("redis://:top@secret@host", "redis://:***@host"),
    ("('postgresql+psycopg://u:topsecret@h/x',)", "('postgresql+psycopg://u:***@h/x',)"),
    ("connection to host=h password=topsecret user=u failed", "connection to host=h password=*** user=u failed"),
    ("?host=h&password=topsecret&x=1", "?host=h&password=***&x=1"),
    ("Authorization: Bearer topsecret", "Authorization: Bearer ***"),
    ("key gs_0198f0c2_topsecret-Q_9 was refused", "key gs_0198f0c2_*** was refused"),
    ("GET /optimizers/a%40gs_0198f0c2_topsecret 404", "GET /optimizers/a%40gs_0198f0c2_*** 404"),
    ("GET /nope/Bearer%20topsecret 404", "GET /nope/Bearer%20*** 404"),
    ("host=h password='top secret' user=u", "host=h password=*** user=u"),
    ('{"password": "topsecret", "user": "u"}', '{"password": ***, "user": "u"}'),
    ("REDIS_PASSWORD=topsecret was refused", "REDIS_PASSWORD=*** was refused"),
    ("http://127.0.0.1:8000/jobs and a@b, nothing secret", "http://127.0.0.1:8000/jobs and a@b, nothing secret"),
]


@pytest.fixture
def logged() -> Iterator[Callable[..., list[str]]]:
    """`logged(format, say)` gives the lines that `say()` logs; the test's own logging is put back afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    quiet = {name: logging.getLogger(name).level for name in logs._QUIET}

    def lines(log_format: logs.LogFormat, say: Callable[[], None], at: str = "info") -> list[str]:
        out = io.StringIO()
        logs.configure(log_format, at, out)
        say()
        return out.getvalue().splitlines()

    yield lines
    root.handlers[:] = before
    root.setLevel(level)
    for name, was in quiet.items():
        logging.getLogger(name).setLevel(was)
    logging.captureWarnings(False)


@pytest.mark.parametrize(("line", "shown"), SECRETS)
def test_secrets_are_taken_out(line: str, shown: str) -> None:
    assert logs.scrub(line) == shown


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=8, max_size=30))
def test_no_password_of_a_url_is_ever_shown(password: str) -> None:
    url = f"postgresql://gradsmith:{password}@db.example.org/x"
    assert f":{password}@" not in logs.scrub(f"cannot reach {url}: {url!r}")


def test_a_line_of_json_has_what_is_bound_and_its_traceback_has_no_secret(logged: Callable[..., list[str]]) -> None:
    def say() -> None:
        with logs.bound_contextvars(request_id="req_7", job_id="job_x", attempt=2):
            try:
                raise OSError("redis://:topsecret@h refused")
            except OSError:
                logging.getLogger("gradsmith.test").exception("it failed with %s", "Bearer topsecret")
        logging.getLogger("gradsmith.test").info("job job_%s ends", "0" * 32)

    first, second = (json.loads(line) for line in logged("json", say))
    assert list(first)[:3] == ["time", "level", "event"]
    assert first["time"].endswith("Z")
    assert (first["level"], first["logger"]) == ("error", "gradsmith.test")
    assert (first["request_id"], first["job_id"], first["attempt"]) == ("req_7", "job_x", 2)
    assert "OSError: redis://:***@h refused" in first["exception"]
    assert "topsecret" not in json.dumps(first)
    assert second["job_id"] == "job_" + "0" * 32, "found in the sentence"
    assert "request_id" not in second


def test_text_is_for_people_and_the_level_is_kept(logged: Callable[..., list[str]]) -> None:
    def say() -> None:
        log = logging.getLogger("gradsmith.test")
        log.info("not told")
        log.warning("a worker ended")

    (line,) = logged("text", say, "warning")
    assert "a worker ended" in line
    assert "warning" in line
    assert "\x1b" not in line, "colours are for terminals"


@pytest.mark.long
@pytest.mark.service
def test_a_server_logs_json_that_leads_from_a_request_to_its_job_and_shows_no_secret(
    settings: Settings, tmp_path: Path
) -> None:
    listener = bind("127.0.0.1", 0)
    log = tmp_path / "api.log"
    away = {"REDIS_URL": "redis://:topsecret@127.0.0.1:1/0"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            tethered([sys.executable, "-P", "-m", "app.host.server", "--fd", str(listener.fileno())]),
            env=environment(settings) | away | {"GRADSMITH_PORT": str(listener.getsockname()[1])},
            pass_fds=(listener.fileno(),),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        headers = {"X-Request-Id": "mine-1", "Authorization": "Bearer topsecret"}
        with httpx.Client(base_url=url_of(listener), timeout=30, headers=headers) as client:
            made = client.post("/jobs", json={"kind": "meta_train", "family": "quadratic"})
            assert made.status_code == 202, made.text
            client.get("/jobs/nonsense%0aINJECTED?key=topsecret")
            assert client.get("/jobs").status_code == 200
    finally:
        process.terminate()
        assert process.wait(60) in (0, -15)
        listener.close()
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    assert "topsecret" not in log.read_text()
    (post,) = [line for line in lines if line.get("method") == "POST"]
    assert (post["request_id"], post["job_id"], post["status"]) == ("mine-1", made.json()["id"], 202)
    assert post["milliseconds"] > 0
    (missing,) = [line for line in lines if line.get("status") == 404]
    assert missing["event"] == "GET /jobs/nonsense%0AINJECTED 404"
    assert not [line for line in lines if line.get("route") == "/jobs" and line["method"] == "GET"], "reads are silent"
    assert [line for line in lines if line["logger"] == "uvicorn.error"], "uvicorn's lines are ours"
    assert [line for line in lines if line["logger"] == "gradsmith.dispatch" and line["level"] == "warning"]


def test_a_log_that_grows_large_is_turned_over_while_its_process_writes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "LARGEST_LOG_BYTES", 2000)
    program = "import time\nfor n in range(400): print('line', n, flush=True); time.sleep(0.001)\ntime.sleep(60)"
    log = tmp_path / "talker.log"
    child = supervise.Child("talker", [sys.executable, "-c", program], {}, log, 1.0)
    child.start()
    try:
        while "line 399" not in log.read_text():
            child.look_after()
            time.sleep(0.01)
    finally:
        child.signal(signal.SIGKILL)
        assert child.process is not None
        child.process.wait(60)
    assert log.stat().st_size < 4000
    assert "\0" not in log.read_text(), "it appends, and leaves no hole"
    assert log.with_suffix(".log.1").read_text().startswith("line")
