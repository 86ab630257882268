"""MLflow 3's tracking server over Postgres, as it is fastest here, and what a client of it sends."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.host.tether import tethered
from benchmarks.core.environment import ROOT, python_of

REQUIREMENTS = Path(__file__).with_name("mlflow-requirements.txt")
FOLDER = ROOT / "var" / "bench-mlflow"
WORKERS = 2  # as many as ours, and as there are cores
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its consumers of jobs take a third of a core when idle
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "16",
    "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "16",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
}
OPTIONS = [
    *("--workers", str(WORKERS), "--no-serve-artifacts"),
    *("--gunicorn-opts", "--threads 8 --keep-alive 60 --log-level error"),
]
"""The best of those that `./run bench service --only mlflow` compares; uvloop and httptools, which its default wants,
are among its requirements here."""

START_SECONDS = 120.0
STOP_SECONDS = 15.0
BATCH = 1000  # metrics in a request: the most that it takes


class MlflowError(RuntimeError):
    """It does not start, or refuses what was sent."""


@dataclass(frozen=True)
class Mlflow:
    """A running server; `experiment` is where runs are made."""

    url: str
    version: str
    experiment: str

    def call(self, method: str, path: str, **body: Any) -> Any:
        """One request on a connection of its own. Raises MlflowError."""
        connection = self.connection()
        try:
            return send(connection, method, path, **body)
        finally:
            connection.close()

    def connection(self) -> http.client.HTTPConnection:
        address = urlsplit(self.url)
        return http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)

    def run(self) -> str:
        """The id of a new run."""
        made = self.call("POST", "/api/2.0/mlflow/runs/create", experiment_id=self.experiment, start_time=1)
        return str(made["run"]["info"]["run_id"])


def send(connection: http.client.HTTPConnection, method: str, path: str, **body: Any) -> Any:
    content = json.dumps(body).encode() if body else None
    connection.request(method, path, content, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise MlflowError(f"MLflow answers {method} {path} with {answer.status}: {said[:300]!r}")
    return json.loads(said)


@contextmanager
def mlflow(database_url: str, options: Sequence[str] = OPTIONS) -> Iterator[Mlflow]:
    """Raises MlflowError with its own words when it does not start, PeersUnavailable when it cannot be installed."""
    python = python_of(FOLDER, REQUIREMENTS, "about 900 MB")
    folder = Path(tempfile.mkdtemp(prefix="gs-mlflow-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", database_url, "--default-artifact-root", str(folder / "artifacts")]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            tethered([*command, *options]),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, start_new_session=True,
            env={**os.environ, **SETTINGS, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"},
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process, log)
        told = Mlflow(url, _version(python), "")
        made = told.call("POST", "/api/2.0/mlflow/experiments/create", name="bench")
        yield Mlflow(url, told.version, str(made["experiment_id"]))
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _version(python: Path) -> str:
    code = "import importlib.metadata as m; print(m.version('mlflow'))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    address = urlsplit(url)
    while True:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            pass
        finally:
            connection.close()
        if process.poll() is not None or time.monotonic() > deadline:
            raise MlflowError(f"MLflow did not start. It said:\n{log.read_text(errors='replace')[-1500:]}")
        time.sleep(0.2)
