"""A sweep on two real workers, one of which is killed, against the same seeds in this process."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from app.store import sweeps
from app.store.jobs import spec_of
from app.store.registry import Registry
from app.store.sessions import Database
from app.store.tables import JobRow
from models.spec import SweepSpec
from tests.workers.harness import QUICK, job, optimizers, running_worker, wait_for, wait_for_status
from workshop.serving import serving
from workshop.sweeping import searched_here

pytestmark = [pytest.mark.service, pytest.mark.long, pytest.mark.timeout(600)]

BODY: dict[str, Any] = {
    "kind": "sweep",
    "family": "quadratic",
    "seed": 11,
    "sampler": "tpe",
    "trials": 4,
    "parallel": 2,
    "recipe": {
        "meta_learning_rate": {"low": 0.0003, "high": 0.03, "log": True},
        "meta_steps": 800, "tasks": 2, "validation_tasks": 8, "validation_interval": 200,  # long enough to be killed
        "horizon": 10, "unroll_steps": 5,
    },
    "evaluate": False,
}  # fmt: skip


def test_a_sweep_outlives_a_killed_worker_and_is_the_same_search_as_in_one_process(
    settings: Settings, postgres_url: str, tmp_path: Path
) -> None:
    quick = settings.model_copy(update={**QUICK, "database_url": postgres_url, "warm_spare": False})
    with (
        Database(postgres_url) as database,
        serving(quick) as url,
        httpx.Client(base_url=url, timeout=30) as api,
        running_worker(quick, tmp_path) as first,
        running_worker(quick, tmp_path),
    ):
        answer = api.post("/jobs", json=BODY)
        assert answer.status_code == 202, answer.text
        sweep = answer.json()["id"]

        def holds_one() -> bool:
            """Whether the first worker is in the middle of a child of the sweep."""
            with database.read() as session:
                children = sweeps.trials(session, sweep)
            rows = [job(database, child.job) for child in children if child.status == "running"]
            return any(row.step > 0 and f"-{first.pid}:" in (row.lease_owner or "") for row in rows)

        wait_for(holds_one, "a child on the first worker")
        os.kill(first.pid, signal.SIGKILL)
        ended = wait_for_status(database, sweep, "succeeded", "failed", seconds=400)
        compare(quick, database, ended)


def compare(settings: Settings, database: Database, ended: JobRow) -> None:
    """What the workers made is what this process makes, to the last bit."""
    with database.read() as session:
        trials = sweeps.trials(session, ended.id)
        registry = Registry(session)
        weights = [registry.weights(registry.resolve(trial.optimizer or "")) for trial in trials]
        lost = [child for child in (job(database, trial.job) for trial in trials) if child.attempt > 1]
    assert (ended.status, ended.step, ended.total) == ("succeeded", 4, 4)
    assert [trial.number for trial in trials] == list(range(4))
    assert len(optimizers(database)) == 4
    assert len(lost) == 1, "the killed child ran again, and no other"
    spec = spec_of(ended)
    assert isinstance(spec, SweepSpec)
    here, weights_here = searched_here(spec, settings.data_dir)
    assert [(trial.values, trial.score) for trial in trials] == [(trial.values, trial.score) for trial in here]
    assert weights == weights_here
    assert ended.optimizer == trials[min(here, key=lambda trial: trial.rank).number].optimizer
