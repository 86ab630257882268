"""Real worker processes, killed and stopped at the worst moments.

Each process imports torch, which costs seconds: a test asks the workers that it starts several things.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from app.host.supervise import WORKER_GRACE_SECONDS
from app.jobs.dispatch import Dispatcher
from app.settings import Settings
from app.store.jobs import JobRepository
from app.store.registry import Registry
from app.store.sessions import Database
from models.meta_train import TrainingResult, meta_train
from models.spec import MetaTrainSpec
from tests.workers.harness import (
    QUICK,
    WorkerProcess,
    create,
    is_alive,
    job,
    optimizers,
    running_worker,
    stored_events,
    training,
    wait_for,
    wait_for_status,
    wait_for_step,
)
from workshop.services import ValkeyServer

pytestmark = [pytest.mark.service, pytest.mark.timeout(400)]

# Long enough to be killed in its middle, on a busy machine and on a fast one.
LONG = {
    "meta_steps": 600,
    "tasks": 2,
    "validation_interval": 50,
}


@contextmanager
def dispatching(settings: Settings, database: Database) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(settings, database)
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        dispatcher.stop()


@pytest.fixture
def on_postgres(settings: Settings, postgres_url: str) -> Iterator[tuple[Settings, Database]]:
    """Half of these tests run here and half on SQLite; what differs between the two, test_run.py runs on both."""
    database = Database(postgres_url)
    yield settings.model_copy(update={**QUICK, "database_url": postgres_url}), database
    database.close()


@pytest.fixture
def on_sqlite(quick_sqlite: Settings, sqlite_database: Database) -> tuple[Settings, Database]:
    return quick_sqlite, sqlite_database


def expected_weights(spec: MetaTrainSpec) -> bytes:
    return _trained_here(spec.model_dump_json())


@functools.cache
def _trained_here(spec: str) -> bytes:
    result = list(meta_train(MetaTrainSpec.model_validate_json(spec)))[-1]
    assert isinstance(result, TrainingResult)
    return result.weights


def only_weights(database: Database) -> bytes:
    [optimizer] = optimizers(database)
    with database.read() as session:
        return Registry(session).weights(optimizer)


def running_child(worker: WorkerProcess, before: list[int]) -> int:
    """The child that runs a job: the one that was the spare."""
    [child] = wait_for(lambda: [pid for pid in worker.children if pid in before], "the child that runs the job")
    return child


def spare_of(worker: WorkerProcess) -> list[int]:
    return wait_for(lambda: worker.children, "the spare")


@pytest.mark.long
def test_a_job_runs_from_its_row_to_its_optimizer_while_redis_goes_away_and_a_warm_spare_begins_the_next_at_once(
    quick_sqlite: Settings, sqlite_database: Database, valkey: ValkeyServer, tmp_path: Path
) -> None:
    quick, jobs = (
        quick_sqlite.model_copy(update={"redis_url": Settings(redis_url=valkey.url).redis_url}),
        sqlite_database,
    )
    valkey.stop()
    with dispatching(quick, jobs), running_worker(quick, tmp_path) as worker:
        spec = training(**LONG, evaluate=True)
        first = create(jobs, spec)
        time.sleep(0.5)
        assert job(jobs, first).status == "queued"
        valkey.start()
        wait_for_step(jobs, first, 1)
        valkey.stop()  # with all that it held
        done = wait_for_status(jobs, first, "succeeded")
        assert (done.attempt, done.lost_workers) == (1, 0)
        assert only_weights(jobs) == expected_weights(spec)
        valkey.start()
        [follow_up] = follow_ups(jobs, first)
        wait_for_status(jobs, follow_up, "succeeded")

        [spare] = wait_for(lambda: worker.children if len(worker.children) == 1 else None, "the spare")
        wait_for(lambda: f"process {spare} is ready" in worker.output(), "the spare to finish its imports")
        second = create(jobs, training(seed=2))
        row = wait_for_status(jobs, second, "succeeded")
        assert row.started_at is not None
        latency = (row.started_at - row.created_at).total_seconds()
        print(f"a job began {latency:.3f} s after its row was committed")
        assert latency < 10.0
        assert worker.process.poll() is None
        assert len([each for each in optimizers(jobs) if not each.tuned]) == 2


def follow_ups(database: Database, job_id: str) -> list[str]:
    with database.read() as session:
        return [row.id for row in JobRepository(session).page(parent=job_id).rows]


@pytest.mark.slow
def test_a_job_whose_child_is_killed_runs_again_at_once(on_postgres: tuple[Settings, Database], tmp_path: Path) -> None:
    quick, jobs = on_postgres
    patient = quick.model_copy(update={"lease_seconds": 100.0})  # waiting for it would be seen on the slowest machine
    with dispatching(patient, jobs), running_worker(patient, tmp_path) as worker:
        spare = spare_of(worker)
        spec = training(**LONG)
        job_id = create(jobs, spec)
        wait_for_step(jobs, job_id, 1)
        os.kill(running_child(worker, spare), signal.SIGKILL)
        wait_for(lambda: job(jobs, job_id).attempt == 2, "a second attempt, before the lease has run out", 50)
        done = wait_for_status(jobs, job_id, "succeeded")
        assert (done.attempt, done.lost_workers) == (2, 1)
        assert only_weights(jobs) == expected_weights(spec)
        logged = [json.loads(line) for line in worker.output().splitlines()]
    (lost,) = [line for line in logged if "ended with -9" in line["event"]]
    assert (lost["job_id"], lost["attempt"], lost["level"]) == (job_id, 1, "warning")
    assert lost["worker"].endswith(f"-{worker.pid}")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("torch does not import", "could not start: ImportError: libtorch_cpu.so: cannot open shared object file"),
        ("it never becomes ready", "was killed: it was not ready for a job 0.1 s after its start"),
    ],
)
def test_a_job_whose_process_ends_before_the_claim_fails_with_the_reason(
    on_sqlite: tuple[Settings, Database], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    quick, jobs = on_sqlite
    quick = quick.model_copy(update={"max_lost_workers": 2})  # each costs a start of Python
    if fault == "torch does not import":  # as after an upgrade that was broken off
        (tmp_path / "site/torch").mkdir(parents=True)
        error = "libtorch_cpu.so: cannot open shared object file"
        (tmp_path / "site/torch/__init__.py").write_text(f"raise ImportError({error!r})")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    else:
        quick = quick.model_copy(update={"process_start_seconds": 0.1})
    with dispatching(quick, jobs), running_worker(quick, tmp_path) as worker:
        job_id = create(jobs, training())
        failed = wait_for_status(jobs, job_id, "failed")
        assert worker.process.poll() is None
    assert failed.lost_workers == 2
    assert str(failed.status_reason).startswith("worker_lost: the process of attempt 2 on ")
    assert told in str(failed.status_reason)
    told_events = [event.data for event in stored_events(jobs, job_id)]
    assert [data["status"] for data in told_events] == ["queued", "failed"]
    assert all(told in data["reason"] for data in told_events), "whoever watches the job sees it at once"


@pytest.mark.long
def test_processes_that_hang_are_killed_and_their_job_goes_on(
    on_sqlite: tuple[Settings, Database], tmp_path: Path
) -> None:
    """A stopped process is as good as one that a driver holds. There is one worker: nobody else could help."""
    quick, jobs = on_sqlite
    quick = quick.model_copy(update={"process_answer_seconds": 0.5})
    with dispatching(quick, jobs), running_worker(quick, tmp_path) as worker:
        before = spare_of(worker)
        spec = training(**LONG)
        job_id = create(jobs, spec)
        wait_for_step(jobs, job_id, 1)
        running = running_child(worker, before)
        [spare] = wait_for(lambda: [pid for pid in worker.children if pid != running], "the next spare")
        os.kill(running, signal.SIGSTOP)
        wait_for(lambda: f"process {spare} is ready" in worker.output(), "the spare to finish its imports")
        os.kill(spare, signal.SIGSTOP)
        done = wait_for_status(jobs, job_id, "succeeded")
        assert (done.attempt, done.lost_workers) == (2, 1)
        assert only_weights(jobs) == expected_weights(spec)
        assert not is_alive(running)
        assert not is_alive(spare)
        logged = worker.output()
    assert "was killed: it did not renew its lease for 5.5 s" in logged
    assert f"the spare process {spare} is killed: it did not answer within 0.5 s" in logged


@pytest.mark.long
def test_a_job_outlives_a_worker_that_is_stopped_and_one_that_is_killed_with_the_same_bits(
    on_postgres: tuple[Settings, Database], tmp_path: Path
) -> None:
    """The first hands it back; the second cannot, and its child dies with it; the third ends it. None keeps a spare."""
    quick, jobs = on_postgres
    quick = quick.model_copy(update={"warm_spare": False})
    with dispatching(quick, jobs):
        spec = training(**LONG | {"meta_steps": 1600})
        job_id = create(jobs, spec)
        with running_worker(quick, tmp_path) as worker:
            wait_for_step(jobs, job_id, 1)
            family = worker.children
            assert len(family) == 1
            assert_no_secret_is_shown(quick, worker)
            asked = time.monotonic()
            os.kill(worker.pid, signal.SIGTERM)
            assert worker.process.wait(60) == 0
            assert time.monotonic() - asked < WORKER_GRACE_SECONDS, "the supervisor waits no longer"
            assert not any(is_alive(pid) for pid in family)
        released = job(jobs, job_id)
        assert (released.status, released.attempt, released.lost_workers) == ("queued", 2, 0)
        with running_worker(quick, tmp_path) as worker:
            wait_for_step(jobs, job_id, released.step + 1)
            [child] = worker.children
            os.kill(worker.pid, signal.SIGKILL)
            wait_for(lambda: not is_alive(child), "its child to die", 20)
        with running_worker(quick, tmp_path):
            done = wait_for_status(jobs, job_id, "succeeded")
        assert (done.attempt, done.lost_workers) == (3, 1)
        resumed = [event.data["from_step"] for event in stored_events(jobs, job_id) if event.kind == "resumed"]
        assert 0 < resumed[0] <= resumed[1]
        assert only_weights(jobs) == expected_weights(spec)


def assert_no_secret_is_shown(settings: Settings, worker: WorkerProcess) -> None:
    """Command lines are for everybody to read; the environment is for its owner."""
    secrets = (settings.resolved_database_url, settings.resolved_redis_url)
    for pid in (worker.pid, *worker.children):
        shown = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        assert not any(secret in shown for secret in secrets)
    kept = Path(f"/proc/{worker.pid}/environ").read_bytes().decode()
    assert all(secret in kept for secret in secrets), "the test looks for the right words"


def test_an_idle_worker_drops_foreign_code_and_stops_at_once(quick_sqlite: Settings, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with redis.Redis.from_url(quick_sqlite.resolved_redis_url) as connection:
        foreign = Queue("cpu", connection=connection, serializer=JSONSerializer)
        foreign.enqueue_call("pathlib.Path.touch", args=(str(marker),), job_id="foreign")
    with running_worker(quick_sqlite.model_copy(update={"warm_spare": False}), tmp_path) as worker:
        wait_for(lambda: "dropping RQ job foreign" in worker.output(), "the foreign job to be dropped")
        assert worker.children == []
        os.kill(worker.pid, signal.SIGINT)
        assert worker.process.wait(60) == 0
    assert not marker.exists()
