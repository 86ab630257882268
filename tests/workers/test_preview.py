"""A whole `preview` job: posted, run by a worker, read through the API."""

from __future__ import annotations

import itertools
import threading
from statistics import fmean
from typing import Any

import httpx
import pytest

import gradsmith
from app.settings import Settings
from app.store.jobs import JobRepository
from app.store.sessions import Database
from models.memory import memory_estimate_bytes
from tests.workers.harness import create, job, optimizers, preview, stored_events, wait_for_status
from workers.run import run_job
from workshop.serving import serving

BODY: dict[str, Any] = {
    "kind": "preview",
    "family": "rosenbrock",
    "seed": 5,
    "evaluation": {"horizon": 10, "tuning_tasks": 4, "baselines": ["adam", "sgd"], "bootstrap_samples": 100},
    "metadata": {"look": "first"},
}


def test_a_preview_goes_from_its_request_to_its_report(quick_sqlite: Settings, sqlite_database: Database) -> None:
    with serving(quick_sqlite) as url, gradsmith.Client(url) as client, httpx.Client(base_url=url) as api:
        body = {name: value for name, value in BODY.items() if name != "kind"}
        posted = client.jobs.create(kind="preview", **body)
        assert (posted.kind, posted.optimizer, posted.metadata) == ("preview", None, {"look": "first"})
        assert api.get(f"/jobs/{posted.id}/report").status_code == 409
        run_job(posted.id, 1, settings=quick_sqlite)
        done = client.jobs.wait(posted)
        assert (done.optimizer, done.evaluation, done.runtime["backend"]) == (None, None, "torch")
        assert optimizers(sqlite_database) == []

        report = client.jobs.report(done)
        # a baseline's grid, and a run each for the final loss and the area; all of it sooner than a timed write
        runs = sum(len(tuned["grid"]) + 2 for tuned in report.raw["tuning"].values())
        assert (done.progress.step, done.progress.total) == (runs, runs)
        assert (set(report.optimizers), report.verdict, report.comparisons) == ({"adam", "sgd"}, {}, {})
        for name in ("adam", "sgd"):
            tuned = report.raw["tuning"][name]
            ends = {point["learning_rate"]: point["final"] for point in tuned["grid"]}
            # the curve is drawn on the very tasks that the grid was measured on
            end = fmean(report.optimizers[name]["curve"]["mean"][-5:])
            assert end == pytest.approx(ends[tuned["learning_rate"]["final"]])
        assert "optimizer" not in report.raw
        assert client.jobs.report_png(done).startswith(b"\x89PNG")
        page = client.jobs.report_html(done)
        assert "Tuned SGD, Adam on rosenbrock" in page
        assert "4 validation tasks" in page

        no_curve = api.get(f"/jobs/{done.id}/curve")
        assert (no_curve.status_code, no_curve.json()["code"]) == (404, "no_curve")
        [listed] = client.jobs.list(kind="preview")
        assert listed.id == done.id
        told = [event.data["message"] for event in stored_events(sqlite_database, done.id) if event.kind == "log"]
        assert "tuning adam's learning rate" in told


def test_a_worker_with_too_little_memory_refuses_a_preview(quick_sqlite: Settings, sqlite_database: Database) -> None:
    spec = preview()
    job_id = create(sqlite_database, spec)
    with sqlite_database.write() as session:  # how far an earlier attempt has come
        row = JobRepository(session).get(job_id)
        row.step, row.total = 3, 22
    limit = memory_estimate_bytes(spec) - 1
    run_job(job_id, 1, settings=quick_sqlite.model_copy(update={"worker_memory_bytes": limit}))
    failed = job(sqlite_database, job_id)
    assert failed.status == "failed"
    assert "Lower evaluation.tuning_tasks or evaluation.horizon" in str(failed.status_reason)
    assert (failed.step, failed.total) == (3, 22), "an attempt that never began has no progress of its own to tell"


def test_a_cancel_reaches_a_preview_and_it_keeps_nothing(quick_sqlite: Settings, sqlite_database: Database) -> None:
    job_id = create(sqlite_database, preview(horizon=10_000, tuning_tasks=2000))
    thread = threading.Thread(target=run_job, args=(job_id, 1), kwargs={"settings": quick_sqlite}, daemon=True)
    thread.start()
    wait_for_status(sqlite_database, job_id, "running", seconds=20)
    with sqlite_database.write() as session:
        JobRepository(session).cancel(job_id)
    thread.join(10)
    assert not thread.is_alive()
    assert job(sqlite_database, job_id).status == "cancelled"


@pytest.mark.long
def test_a_preempted_preview_goes_back_to_the_queue_and_starts_anew(
    quick_sqlite: Settings, sqlite_database: Database
) -> None:
    job_id = create(sqlite_database, preview(horizon=2000))
    asked = itertools.count()
    run_job(job_id, 1, settings=quick_sqlite, preempted=lambda: next(asked) >= 0)
    handed_back = job(sqlite_database, job_id)
    assert (handed_back.status, handed_back.attempt, handed_back.lost_workers) == ("queued", 2, 0)
    assert handed_back.total > 0, "how far it came is written with its end, however soon that is"
    run_job(job_id, 2, settings=quick_sqlite)
    assert job(sqlite_database, job_id).status == "succeeded"
