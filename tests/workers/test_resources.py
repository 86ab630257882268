"""What a job asks of its worker: a backend, threads, memory; and what the record says that it got."""

from __future__ import annotations

from typing import Any

import pytest

from app.settings import Settings
from app.store.sessions import Database
from app.store.tables import JobRow
from models.spec import Resources
from tests.workers.harness import create, evaluation, job, optimizers, training
from workers.run import run_job


def ran(database: Database, settings: Settings, **resources: Any) -> JobRow:
    """A short training with these resources, run to its end."""
    spec = training(meta_steps=4).model_copy(update={"resources": Resources(**resources)})
    job_id = create(database, spec)
    run_job(job_id, 1, settings=settings)
    return job(database, job_id)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_a_forced_backend_stands_in_the_record_and_the_card(
    quick_sqlite: Settings, sqlite_database: Database, backend: str
) -> None:
    done = ran(sqlite_database, quick_sqlite, backend=backend)
    assert done.status == "succeeded", done.status_reason
    assert (done.runtime["backend"], done.runtime["backend_forced"]) == (backend, True)
    assert done.spec["resources"]["backend"] == backend
    [optimizer] = optimizers(sqlite_database)
    assert optimizer.card["runtime"]["backend"] == backend
    follow_up = evaluation(optimizer.id).model_copy(update={"resources": Resources(backend=backend)})
    evaluating = create(sqlite_database, follow_up)
    run_job(evaluating, 1, settings=quick_sqlite)
    assert job(sqlite_database, evaluating).runtime["backend"] == backend


def test_a_backend_that_the_worker_lacks_fails_the_job_with_what_it_needs(
    quick_sqlite: Settings, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADSMITH_NATIVE", "off")
    failed = ran(sqlite_database, quick_sqlite, backend="native")
    assert failed.status == "failed"
    assert "forces the backend native" in str(failed.status_reason)
    assert "GRADSMITH_NATIVE=off" in str(failed.status_reason)
    usual = ran(sqlite_database, quick_sqlite)
    assert (usual.status, usual.runtime["backend"], usual.runtime["backend_forced"]) == ("succeeded", "torch", False)


def test_calibrated_threads_are_recorded_and_bounded(
    quick_sqlite: Settings, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def three(*_: Any, most: int, **__: Any) -> int:
        asked.append(most)
        return 3

    monkeypatch.setattr("workers.facts.calibrated", three)
    settings = quick_sqlite.model_copy(update={"worker_threads": 5})
    done = ran(sqlite_database, settings, threads="auto")
    assert (done.status, asked) == ("succeeded", [5])
    assert (done.runtime["threads"], done.runtime["threads_calibrated"]) == (3, True)
    fixed = ran(sqlite_database, settings, threads=2)
    assert (fixed.runtime["threads"], fixed.runtime["threads_calibrated"], asked) == (2, False, [5])


def test_calibration_is_real(quick_sqlite: Settings, sqlite_database: Database) -> None:
    done = ran(sqlite_database, quick_sqlite.model_copy(update={"worker_threads": 2}), threads="auto")
    assert done.status == "succeeded", done.status_reason
    assert done.runtime["threads"] in (1, 2)
    [optimizer] = optimizers(sqlite_database)
    assert optimizer.card["runtime"]["threads"] == done.runtime["threads"]


def test_a_job_that_does_not_fit_this_worker_fails_before_it_starts(
    quick_sqlite: Settings, sqlite_database: Database
) -> None:
    small = quick_sqlite.model_copy(update={"worker_memory_bytes": 200 * 2**20})
    failed = ran(sqlite_database, small)
    assert (failed.status, failed.step) == ("failed", 0)
    assert str(failed.status_reason).startswith("out_of_memory: the job needs about 0.3 GiB with the backend ")
    assert "this worker has 0.2 GiB. It was not started. Lower recipe.tasks" in str(failed.status_reason)
    assert failed.runtime["memory_estimate_bytes"] > 200 * 2**20


def test_the_card_has_the_memory_that_was_predicted_and_that_was_used(
    quick_sqlite: Settings, sqlite_database: Database
) -> None:
    ran(sqlite_database, quick_sqlite)
    [optimizer] = optimizers(sqlite_database)
    assert optimizer.card["runtime"]["memory_estimate_bytes"] > 250 * 2**20
    assert optimizer.card["runtime"]["memory_peak_bytes"] > 200 * 2**20
