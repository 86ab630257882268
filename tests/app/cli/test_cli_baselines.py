"""`gradsmith-server baselines`: what is stored, and dropping it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from app.cli import app
from app.settings import Settings
from app.store import baseline_runs, leases
from app.store.jobs import JobRepository
from app.store.sessions import Database
from tests.workers.harness import training


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120", "NO_COLOR": "1"})


def test_stored_runs_are_listed_and_forgotten(tmp_path: Path) -> None:
    folder = ("--data", str(tmp_path))
    missing = command("baselines", "list", *folder)
    assert missing.exit_code == 2, "a folder without a database is told, and nothing is made"
    assert command("keys", "create", "--name", "me", *folder).exit_code == 0  # makes the database
    with Database(Settings(data_dir=tmp_path).resolved_database_url) as database:
        with database.write() as session:
            job = JobRepository(session).create(training()).id
        with database.write() as session:
            lease = leases.Lease(job, 1, "worker")
            leases.claim(session, lease, 60.0)
        for name in ("adam", "soap"):
            with database.write() as session:
                baseline_runs.put(session, lease, name * 16, name, b"run")
    lines = command("baselines", "list", *folder).stdout.splitlines()
    assert [line.split()[:4] for line in lines] == [["default", each, "1", "run"] for each in ("adam", "soap")]
    wrong = command("baselines", "forget", "soup", *folder)
    assert (wrong.exit_code, "there is no baseline 'soup'; there are sgd, nag," in wrong.stderr) == (2, True)
    assert command("baselines", "forget", "soap", *folder).stderr == "Forgot 1 run.\n"
    assert [line.split()[1] for line in command("baselines", "list", *folder).stdout.splitlines()] == ["adam"]
    assert command("baselines", "forget", *folder).stderr == "Forgot 1 run.\n"
