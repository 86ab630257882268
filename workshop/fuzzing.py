"""What a fuzzer needs of a server: something of everything to find, and jobs that end, so that their streams do."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import httpx
from sqlalchemy.exc import OperationalError

from app.auth import keys_required
from app.settings import Settings
from app.store.errors import DatabaseUnavailable, LeaseLost
from app.store.jobs import JobRepository, kind_of
from app.store.sessions import Database
from app.store.tables import JobRow
from workshop.keyed import id_of, make_key
from workshop.serving import serving
from workshop.working import Worker, evaluation_result, preview_result

ROOT = Path(__file__).parents[1]
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@dataclass(frozen=True)
class FuzzedServer:
    url: str
    headers: dict[str, str]  # with a key, on a server that asks for one
    ids: dict[str, list[str]]  # of what exists, by the names that the configuration has for them

    def schemathesis(self, *options: str) -> subprocess.CompletedProcess[str]:
        """`schemathesis run` with all checks against the server's own OpenAPI document; its output is the summary."""
        program = Path(sys.executable).with_name("schemathesis")
        command = [program, "run", f"{self.url}/openapi.json", *options, "--no-color"]
        for name, value in self.headers.items():
            command += ["-H", f"{name}: {value}"]
        with tempfile.TemporaryDirectory() as folder:  # it leaves files where it runs
            dictionaries = "".join(f"[dictionaries.{name}]\nvalues = {ids}\n" for name, ids in self.ids.items())
            configured = f"{CONFIGURATION.read_text(encoding='utf-8')}\n{dictionaries}"
            (Path(folder) / "schemathesis.toml").write_text(configured, encoding="utf-8")
            # Hypothesis keeps there what it counted of Unicode, which takes it seconds.
            environment = os.environ | {"HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis")}
            done = subprocess.run(
                command, env=environment, cwd=folder,
                check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        last = httpx.get(f"{self.url}/keys", headers=self.headers, timeout=30)
        # it may revoke any key that it comes upon, and without its own all that followed was 401 and proves nothing
        assert last.status_code == 200, f"GET /keys was answered {last.status_code} in the end: {done.stdout}"
        return done


@contextlib.contextmanager
def fuzzed_server(settings: Settings) -> Iterator[FuzzedServer]:
    """A server with trained optimizers, an alias, an evaluation and a failed job, and a worker that ends every new job
    within some tenths of a second."""
    generous = settings.model_copy(update={"rate_limit": "1000000/minute", "max_active_jobs": 1_000_000})
    headers, own_key = {}, None
    if keys_required(settings):
        token = make_key(settings, "admin")
        headers["Authorization"], own_key = f"Bearer {token}", id_of(token)
    database = Database(settings.resolved_database_url)
    enough = threading.Event()
    worker = threading.Thread(target=_work, args=(generous, database, enough), name="worker that takes no time")
    with serving(generous) as url:
        worker.start()
        try:
            with httpx.Client(base_url=url, headers=headers, timeout=30) as api:
                _fill(api)
                # made for whoever asks first, which a busy machine does not within the seconds that schemathesis has
                api.get("/openapi.json", timeout=120).raise_for_status()
                ids = {name: [row["id"] for row in api.get(f"/{name}").json()["data"]] for name in ("jobs", "keys")}
            # its own it must guess
            yield FuzzedServer(url, headers, ids | {"keys": [key for key in ids["keys"] if key != own_key]})
        finally:
            enough.set()
            worker.join()
            database.close()


def _fill(api: httpx.Client) -> None:
    for body in (
        {"kind": "meta_train", "family": "quadratic", "metadata": {"experiment": "first"}},
        {"kind": "meta_train", "family": "digits-mlp", "evaluate": False, "metadata": {"experiment": "second"}},
        {"kind": "meta_train", "family": "quadratic", "metadata": {"fails": "yes"}},
        {"kind": "preview", "family": "rosenbrock"},
    ):
        answer = api.post("/jobs", json=body)
        assert answer.status_code == 202, answer.text
        # the stream ends when the job does
        assert "event: done" in api.get(f"/jobs/{answer.json()['id']}/events").text
    made = api.put(
        "/families/quadratic/aliases/production", json={"optimizer": "quadratic@1"}, headers={"If-None-Match": "*"}
    )
    assert made.status_code == 201, made.text
    made = api.post("/keys", json={"name": "to be revoked"})
    assert made.status_code == 201, made.text


def _work(settings: Settings, database: Database, enough: threading.Event) -> None:
    while not enough.wait(0.1):
        with database.read() as session:
            queued = JobRepository(session).page(status="queued", limit=20).rows
        for job in queued:
            # a job may be cancelled under the worker's hands, and SQLite may be busy: the next round sees
            with contextlib.suppress(LeaseLost, AssertionError, DatabaseUnavailable, OperationalError):
                _end(settings, database, job)


def _end(settings: Settings, database: Database, job: JobRow) -> None:
    worker = Worker(settings, database, job.id, job.attempt)
    with contextlib.closing(worker):
        if job.labels.get("fails"):
            worker.fail("the loss was not finite")
            return
        match kind_of(job):
            case "evaluate":
                worker.finish_evaluation(evaluation_result(job.family))
            case "preview":
                worker.finish_evaluation(preview_result(job.family))
            case "meta_train":
                metrics = worker.metrics(*range(1, 11))
                worker.publish(metrics)
                worker.record(metrics)
                worker.finish_training(score=1.0)
            case "sweep":
                raise AssertionError("a sweep is never queued")
            case never:
                assert_never(never)
