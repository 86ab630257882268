"""What schema 0002 left goes on: finished jobs are shown, optimizers train networks, what was queued runs.

`schema_0002.sql.gz` was made by `./run bench upgrade --from 825e349 --dump FILE`, which proves the same with the older
version's own processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import gradsmith
import migrations
from app.settings import Settings
from app.store.jobs import JobRepository
from app.store.sessions import Database
from gradsmith import LearnedOptimizer
from tests.app.store.dumps import copy_rows, restore, script
from tests.workers.harness import stored_events
from workers.run import run_job
from workshop import services
from workshop.serving import serving

TRAINED, EVALUATED = "job_01a226e610737754b2a0476cc361cfc9", "job_01a226e69e8e722f827d4cb93af09c41"
DIGITS = "job_01a226e612757176a0711c924f2675b3"
PREEMPTED, QUEUED = "job_01a226e757dc74219dc485edd76b21ce", "job_01a226e8bdd77312bb76e5df29ecb35c"
QUEUED_EVALUATION, CANCELLED = "job_01a226e8bffd75f3a2e2b4f2e68b4edf", "job_01a226e8c1037374852e15c1d45becfa"
OPTIMIZER = "opt_01a226e69e507387a4fbe0ae348dce10"


pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.slow), "postgres"])
def upgraded_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The database at the newest schema. On SQLite test_upgrade.py does the same with an older one."""
    path = tmp_path / "old.db"
    restore(script("schema_0002.sql.gz"), path)
    if request.param == "sqlite":
        migrations.upgrade(f"sqlite:///{path}")
        yield f"sqlite:///{path}"
        return
    server: services.PostgresDatabase = request.getfixturevalue("postgres_database")
    url = server.empty_url("upgrade_0002")
    migrations.upgrade(url, "0002")
    copy_rows(path, url)
    migrations.upgrade(url)
    yield url
    server.drop(url)


def test_finished_jobs_are_shown_optimizers_train_and_queued_jobs_run(
    upgraded_url: str, redis_url: str, tmp_path: Path
) -> None:
    settings = Settings(
        data_dir=tmp_path, database_url=upgraded_url, redis_url=redis_url, worker_memory_bytes=2**33
    )  # fmt: skip
    with serving(settings) as url, gradsmith.Client(url) as client, Database(upgraded_url) as database:
        statuses = {job.id: job.status for job in client.jobs.list()}
        assert statuses == dict.fromkeys((TRAINED, EVALUATED, DIGITS), "succeeded") | dict.fromkeys(
            (PREEMPTED, QUEUED, QUEUED_EVALUATION), "queued"
        ) | {CANCELLED: "cancelled"}
        assert list(client.jobs.curve(TRAINED).step) == list(range(1, 31))
        assert client.jobs.report(EVALUATED).family == "quadratic"
        assert client.optimizers.get("quadratic@production").id == OPTIMIZER

        for job_id, attempt in ((PREEMPTED, 2), (QUEUED, 1), (QUEUED_EVALUATION, 1)):
            run_job(job_id, attempt, settings=settings)
            with database.read() as session:
                job = JobRepository(session).get(job_id)
            assert (job.status, job.attempt) == ("succeeded", attempt), job.status_reason
        [resumed] = [event for event in stored_events(database, PREEMPTED) if event.kind == "resumed"]
        assert resumed.data["from_step"] > 0

        made = [optimizer.reference for optimizer in client.optimizers.list()]
        assert sorted(made) == ["digits-mlp@1", "quadratic@1", "quadratic@2", "quadratic@3"]
        for reference in made:
            assert_it_trains(client.optimizers.pull(reference, tmp_path / "rule.safetensors", card=False))


def assert_it_trains(weights: Path) -> None:
    model = nn.Linear(4, 2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = LearnedOptimizer(model.parameters(), weights)
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
    for parameter, start in zip(model.parameters(), before, strict=True):
        assert bool(parameter.isfinite().all())
        assert bool((parameter != start).all())
