"""Jobs of several processes: real ranks below a real worker, killed and stopped at the worst moments."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.host.tether import tethered
from app.settings import Settings
from app.store.jobs import JobRepository
from app.store.sessions import Database
from models.errors import RankLost
from models.meta_train import MetaStep, TrainingResult, meta_train
from models.spec import MetaTrainSpec, Resources
from tests.workers.harness import (
    children_of,
    create,
    is_alive,
    job,
    running_worker,
    stored_events,
    training,
    wait_for,
    wait_for_status,
    wait_for_step,
)
from tests.workers.test_processes import dispatching, only_weights
from workers.ranks import train_in_ranks

pytestmark = [pytest.mark.service, pytest.mark.timeout(400)]


def in_two_processes(meta_steps: int = 600) -> MetaTrainSpec:
    """Three tasks on two ranks; long enough to be killed in its middle, on a fast machine too."""
    spec = training(meta_steps=meta_steps, tasks=3, validation_interval=100)
    return spec.model_copy(update={"resources": Resources(processes=2)})


def below(pid: int) -> list[int]:
    """Everything that `pid` started, and what that started."""
    return [found for child in children_of(pid) for found in (child, *below(child))]


def ranks_below(pid: int) -> list[int]:
    """The ranks of the job that runs below `pid`, once they are there: torchrun's children."""

    def found() -> list[int] | None:
        ranks = [
            one for one in below(pid) if "workers.rank" in _command(one) and "torch.distributed" not in _command(one)
        ]
        return ranks if len(ranks) == 2 else None

    return wait_for(found, "two ranks")


def torchrun_below(pid: int) -> int:
    [found] = [one for one in below(pid) if "torch.distributed.run" in _command(one)]
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def gone(pids: list[int]) -> Callable[[], bool]:
    return lambda: not any(is_alive(pid) for pid in pids)


@pytest.mark.slow
def test_a_job_whose_rank_is_killed_is_tried_again_and_succeeds(
    quick_sqlite: Settings, sqlite_database: Database, tmp_path: Path
) -> None:
    spec = in_two_processes()
    patient = quick_sqlite.model_copy(update={"lease_seconds": 100.0})
    with dispatching(patient, sqlite_database), running_worker(patient, tmp_path) as worker:
        job_id = create(sqlite_database, spec)
        wait_for_step(sqlite_database, job_id, 1)
        ranks = ranks_below(worker.pid)
        family = [torchrun_below(worker.pid), *ranks]
        os.kill(ranks[1], signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: job(sqlite_database, job_id).attempt == 2, "a second attempt", 60)
        assert time.monotonic() - killed < 60
        assert gone(family)()
        done = wait_for_status(sqlite_database, job_id, "succeeded")
        assert (done.attempt, done.lost_workers) == (2, 1)
        assert done.runtime["processes"] == 2
        wait_for(lambda: not [one for one in below(worker.pid) if "workers.rank" in _command(one)], "the ranks' end")
    told = stored_events(sqlite_database, job_id)
    reasons = [event.data["reason"] for event in told if event.kind == "status"]
    assert any(reason and "of 2 died" in reason for reason in reasons), reasons
    losses = {
        step: loss
        for event in told
        if event.points
        for step, loss in zip(event.points.step, event.points.loss, strict=True)
    }
    assert sorted(losses) == list(range(1, 601))
    alone = itertools.islice((event for event in meta_train(spec) if isinstance(event, MetaStep)), 20)
    assert [losses[step] for step in range(1, 21)] == pytest.approx([event.loss for event in alone], rel=1e-3)


HOLDER = """
import sys
from models.spec import MetaTrainSpec
from workers.ranks import train_in_ranks
for event in train_in_ranks(MetaTrainSpec.model_validate_json(sys.argv[1])):
    print(event, flush=True)
"""


@pytest.mark.long
def test_when_the_holder_is_killed_torchrun_and_its_ranks_die(tmp_path: Path) -> None:
    spec = in_two_processes(meta_steps=100_000)
    secret = "postgresql://user:secret@nowhere/database"
    log = (tmp_path / "holder.log").open("wb")
    holder = subprocess.Popen(
        tethered([sys.executable, "-P", "-c", HOLDER, spec.model_dump_json()]),
        env={**os.environ, "DATABASE_URL": secret},
        stdout=log,
    )
    try:
        wait_for(lambda: "MetaStep" in (tmp_path / "holder.log").read_text(), "the first meta-step")
        ranks = ranks_below(holder.pid)
        family = [torchrun_below(holder.pid), *ranks]
        for rank in ranks:
            assert secret.encode() not in Path(f"/proc/{rank}/environ").read_bytes()
    finally:
        holder.kill()
        holder.wait()
        log.close()
    wait_for(gone(family), "all of them to die", 20)


@pytest.mark.slow
@pytest.mark.parametrize("blow", ["hang", "torchrun"])
def test_a_rank_that_hangs_or_a_killed_torchrun_is_an_error_within_30_seconds_and_leaves_no_process(blow: str) -> None:
    events = train_in_ranks(in_two_processes(meta_steps=100_000))
    assert any(isinstance(event, MetaStep) for event in events)
    ranks, torchrun = ranks_below(os.getpid()), torchrun_below(os.getpid())
    if blow == "hang":
        os.kill(ranks[0], signal.SIGSTOP)
    else:
        os.kill(torchrun, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(RankLost):
        for _ in events:
            pass
    assert time.monotonic() - began < 30
    wait_for(gone([torchrun, *ranks]), "all of them to die", 2)


@pytest.mark.slow
def test_a_stopped_and_a_cancelled_job_leave_no_rank_and_a_resumed_one_has_the_bits_of_an_uninterrupted_one(
    quick_sqlite: Settings, sqlite_database: Database, tmp_path: Path
) -> None:
    spec = in_two_processes()
    with dispatching(quick_sqlite, sqlite_database):
        job_id = create(sqlite_database, spec)
        with running_worker(quick_sqlite, tmp_path) as worker:
            wait_for_step(sqlite_database, job_id, 1)
            family = below(worker.pid)
            assert len(family) >= 4
            os.kill(worker.pid, signal.SIGTERM)
            assert worker.process.wait(60) == 0
            assert gone(family)()
        released = job(sqlite_database, job_id)
        assert (released.status, released.attempt, released.lost_workers) == ("queued", 2, 0)
        with running_worker(quick_sqlite, tmp_path) as worker:
            wait_for_status(sqlite_database, job_id, "succeeded")
            [resumed] = [event for event in stored_events(sqlite_database, job_id) if event.kind == "resumed"]
            assert resumed.data["from_step"] > 0
            assert resumed.data["identical"] is True
            *_, result = train_in_ranks(spec)
            assert isinstance(result, TrainingResult)
            assert only_weights(sqlite_database) == result.weights

            cancelled = create(sqlite_database, in_two_processes(meta_steps=100_000))
            wait_for_step(sqlite_database, cancelled, 1)
            ranks = ranks_below(worker.pid)
            with sqlite_database.write() as session:
                JobRepository(session).cancel(cancelled)
            wait_for_status(sqlite_database, cancelled, "cancelled", seconds=5)
            wait_for(gone(ranks), "its ranks to die", 20)
