"""The command line: help that helps, errors in one sentence, no torch."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app

COMMANDS = ("serve", "api", "worker", "migrate", "data")


def invoke(*arguments: str, **environment: str) -> Any:
    """The command in this process: for all that does not become another program."""
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120", "NO_COLOR": "1", **environment})


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GRADSMITH_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "app.cli", *arguments],
        env={**ours, "COLUMNS": "120", "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_lists_every_command() -> None:
    done = invoke("--help")
    assert done.exit_code == 0
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str) -> None:
    if command == "data":  # another program's own help
        done = run(command, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert "fetch" in done.stdout
        return
    shown = invoke(command, "--help")
    assert shown.exit_code == 0
    assert "--data" in shown.stdout


def test_the_command_line_does_not_load_torch() -> None:
    code = "import app.cli, app.supervise, app.server, app.dispatch, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


def test_migrate_makes_the_database_and_may_run_again(tmp_path: Path) -> None:
    for _ in range(2):
        done = invoke("migrate", "--data", str(tmp_path / "new" / "folder"))
        assert (done.exit_code, done.stderr) == (0, "")
    connection = sqlite3.connect(tmp_path / "new" / "folder" / "gradsmith.db")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert {"jobs", "optimizers", "alembic_version"} <= tables


def test_a_database_that_does_not_answer_is_one_sentence_without_its_password() -> None:
    done = invoke("migrate", DATABASE_URL="postgresql://someone:topsecret@127.0.0.1:1/nothing")
    assert done.exit_code == 2
    assert done.stderr.startswith("gradsmith-server: the database does not answer")
    assert "DATABASE_URL" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "topsecret" not in done.stderr


def test_a_data_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for command in ("migrate", "serve"):
        done = invoke(command, "--data", str(tmp_path / "file" / "data"))
        assert done.exit_code == 2
        assert done.stderr.count("\n") == 1
        assert "--data" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("serve", "--port", "99999"), {}, "--port"),
        (("serve", "--workers", "-1"), {}, "--workers"),
        (("forge",), {}, "forge"),
        (("migrate",), {"GRADSMITH_PORT": "abc"}, "GRADSMITH_PORT='abc'"),
        (("migrate",), {"GRADSMITH_LEASE_SECONDS": "-3"}, "GRADSMITH_LEASE_SECONDS='-3'"),
        (("api",), {"GRADSMITH_PORT": "abc"}, "GRADSMITH_PORT='abc'"),
        (("serve",), {"GRADSMITH_AUTH": "perhaps"}, "GRADSMITH_AUTH='perhaps'"),
        (("serve", "--host", "no.such.invalid", "--port", "0"), {"GRADSMITH_AUTH": "off"}, "--host no.such.invalid"),
    ],
)
def test_bad_input_exits_with_2_and_says_what_was_wrong(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], words: str
) -> None:
    done = invoke(*arguments, GRADSMITH_DATA_DIR=str(tmp_path), **environment)
    assert done.exit_code == 2
    assert words in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_a_worker_refuses_a_queue_that_is_none() -> None:
    done = run("worker", "--queues", "tpu")
    assert done.returncode == 2
    assert "there are the queues cpu and gpu" in done.stderr
    assert "Traceback" not in done.stderr
