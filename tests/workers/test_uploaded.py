"""An optimizer goes from one service to another by its file, and is evaluated there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import gradsmith
from app.settings import Settings
from app.store.sessions import Database
from gradsmith.rules.weights_file import checked
from tests.workers.harness import PLAN, create, training
from workers.run import run_job
from workshop.serving import serving


def test_what_one_service_trained_another_evaluates_bit_for_bit(
    quick_sqlite: Settings, sqlite_database: Database, migrated_sqlite: Path, tmp_path: Path
) -> None:
    run_job(create(sqlite_database, training(meta_steps=10, seed=3)), 1, settings=quick_sqlite)
    with serving(quick_sqlite) as url, gradsmith.Client(url) as client:
        [record] = client.optimizers.list()
        bare = client.optimizers.pull(record.id, card=False)
        file = client.optimizers.pull("quadratic@1", tmp_path / "carried.safetensors")
    assert record.validation_score is not None

    second = tmp_path / "second"
    second.mkdir()
    shutil.copy(migrated_sqlite, second / "gradsmith.db")
    there = quick_sqlite.model_copy(update={"data_dir": second, "database_url": f"sqlite:///{second / 'gradsmith.db'}"})
    with serving(there) as url, gradsmith.Client(url) as client:
        carried = client.optimizers.upload(file, source="the first service")
        assert (carried.sha256, carried.job, carried.archived) == (record.sha256, None, False)
        assert carried.uploaded is not None
        assert carried.uploaded["claims"]["validation_score"] == record.validation_score
        assert client.optimizers.pull(carried.id, card=False) == bare == checked(file.read_bytes()).content
        with pytest.raises(gradsmith.errors.NotFound):
            client.optimizers.get("quadratic@latest")

        plan: dict[str, Any] = {name: value for name, value in PLAN.items() if name != "horizon"}
        job = client.jobs.create("evaluate", optimizer=carried.id, evaluation=plan)
        assert job.spec["evaluation"]["horizon"] == 10, "what it was trained for"
        run_job(job.id, 1, settings=there)
        assert client.jobs.wait(job, timeout_seconds=60).status == "succeeded"
        scored = client.optimizers.get(carried.id)
        # the same weights on the same validation tasks, computed on the same machine
        assert scored.validation_score == pytest.approx(record.validation_score, rel=1e-5)
        assert (scored.automatic, "latest" in scored.aliases) == (True, True)
        validation = client.jobs.report(job).raw["validation"]
        assert validation["learned"] == scored.validation_score
        best = client.optimizers.get("quadratic@best")
        assert (best.id == carried.id) == (validation["better"] == "learned")
        hidden = client.optimizers.archive(carried.id)
        assert (hidden.archived, hidden.aliases) == (True, ())
        with pytest.raises(gradsmith.errors.Conflict, match="evaluation"):
            client.optimizers.delete(carried.id)
        assert client.optimizers.update(carried.id, description="from afar").description == "from afar"
