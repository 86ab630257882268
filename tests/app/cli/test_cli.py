"""The command line: help that helps, errors in one sentence."""

from __future__ import annotations

import os
import re
import shlex
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from typer.testing import CliRunner

from app.cli import app
from app.commands import STARTED_AS, started_as
from app.commands import command as named
from app.host.server import AddressError, bind
from app.settings import Settings, misspelt
from app.store.sessions import Database
from models.errors import DatasetMissing
from models.tasks.data import load_mnist
from models.tasks.data import main as data_sets

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


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "data"])
def test_each_command_explains_itself(command: str) -> None:
    shown = invoke(command, "--help")
    assert shown.exit_code == 0
    assert "--data" in shown.stdout


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
        (("serve",), {"GRADSMITH_NATIVE": "nonsense"}, "GRADSMITH_NATIVE='nonsense'"),
        (("worker",), {"GRADSMITH_TRITON": "bf17"}, "GRADSMITH_TRITON='bf17'"),
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
    done = run("worker", "--queues", "tpu", DATABASE_URL="postgresql://127.0.0.1:1/none")
    assert done.returncode == 2
    assert "there is no queue 'tpu'; there are cpu and gpu" in done.stderr
    assert "Traceback" not in done.stderr


WRONG_URLS = [
    ({"DATABASE_URL": "mysql://u:topsecret@h/x"}, "DATABASE_URL", "postgresql://"),
    ({"DATABASE_URL": "topsecret"}, "DATABASE_URL", "sqlite:///"),
    ({"DATABASE_URL": ""}, "DATABASE_URL", "postgresql://"),
    ({"DATABASE_URL": "postgresql://u:topsecret@h:port/x"}, "DATABASE_URL", "postgresql://"),
    ({"REDIS_URL": "topsecret"}, "REDIS_URL", "redis://"),
    ({"REDIS_URL": "amqp://:topsecret@h"}, "REDIS_URL", "unix://"),
    ({"REDIS_URL": "redis://:topsecret@h:port"}, "REDIS_URL", "redis://"),
]


@pytest.mark.parametrize("command", ["serve", "api", "worker", "migrate"])
@pytest.mark.parametrize(("environment", "variable", "form"), WRONG_URLS)
def test_a_store_that_cannot_be_used_is_one_sentence_with_the_forms_and_no_password(
    tmp_path: Path, command: str, environment: dict[str, str], variable: str, form: str
) -> None:
    done = invoke(command, "--data", str(tmp_path), **environment)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"gradsmith-server: setting {variable}: ")
    assert form in done.stderr
    assert done.stderr.count("\n") == 1
    assert "topsecret" not in done.stderr
    assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    ("module", "environment", "words"),
    [
        ("app.host.server", WRONG_URLS[0][0], "setting DATABASE_URL: mysql://... cannot be used"),
        (
            "workers.main",
            {"GRADSMITH_ALLOWED_HOSTS": "example.org"},
            "setting GRADSMITH_ALLOWED_HOSTS='example.org': it must be a JSON list",
        ),
    ],
)
def test_the_programs_behind_the_commands_refuse_in_one_sentence_too(
    module: str, environment: dict[str, str], words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", module],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"gradsmith-server: {words}")
    assert done.stderr.count("\n") == 1
    assert "topsecret" not in done.stderr


def test_all_settings_that_are_wrong_are_told_at_once(tmp_path: Path) -> None:
    several = {
        "GRADSMITH_PORT": "abc", "DATABASE_URL": "mysql://u:topsecret@h/x", "GRADSMITH_ALLOWED_HOSTS": "example.org",
        "GRADSMITH_LEASE_SECONDS": "-3", "GRADSMITH_NATIVE": "x" * 500,
    }  # fmt: skip
    done = invoke("migrate", "--data", str(tmp_path), **several)
    assert done.exit_code == 2
    first, *lines = done.stderr.splitlines()
    assert first == "gradsmith-server: 5 settings cannot be used:"
    assert {line.split()[1].partition("=")[0].rstrip(":") for line in lines} == set(several)
    assert all(line.startswith("  setting ") and len(line) < 300 for line in lines)
    assert "topsecret" not in done.stderr
    assert Settings(allowed_hosts=("a.example.org",)).allowed_hosts == ("a.example.org",)


def test_a_list_of_hosts_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADSMITH_ALLOWED_HOSTS", '["a.example.org", "*"]')
    assert Settings().allowed_hosts == ("a.example.org", "*")
    for wrong in ("a.example.org", '"a"', "[1]", "{", "[" * 100_000):
        monkeypatch.setenv("GRADSMITH_ALLOWED_HOSTS", wrong)
        with pytest.raises(ValidationError):
            Settings()


# --- the next step works where the reader stands -------------------------------------------------------------------


def test_messages_name_the_command_as_it_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(data_dir=tmp_path / "my data")
    assert named("migrate") == "`gradsmith-server migrate`"
    assert named("migrate", settings) == f"`gradsmith-server migrate --data '{tmp_path}/my data'`"
    assert named("migrate", Settings()) == "`gradsmith-server migrate`"
    monkeypatch.setenv("PATH", "")
    environment: dict[str, str] = {}
    started_as("/opt/gradsmith/bin/gradsmith-server", environment)
    assert environment == {STARTED_AS: "/opt/gradsmith/bin/gradsmith-server"}
    started_as("/elsewhere/gradsmith-server", environment)
    assert environment == {STARTED_AS: "/opt/gradsmith/bin/gradsmith-server"}, "what the first noted stays"
    monkeypatch.setenv(STARTED_AS, "./run")
    assert named("keys list") == "`./run keys list`"
    monkeypatch.setenv(STARTED_AS, "/my tools/gradsmith-server")
    spelled = named("migrate", Settings(data_dir=Path("/my data"))).strip("`")
    assert shlex.split(spelled) == ["/my tools/gradsmith-server", "migrate", "--data", "/my data"]


@pytest.mark.parametrize(
    "arguments",
    [("keys", "list"), ("keys", "revoke", "key_" + "0" * 32), ("backup", "copy"), ("migrate", "--to", "0001"), ("api",),
     ("worker",)],
)  # fmt: skip
def test_a_folder_without_a_database_is_named_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(*arguments, "--data", str(tmp_path / "typo"))
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "there is no database" in done.stderr
    assert f"{tmp_path / 'typo'}" in done.stderr
    assert "--data" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_a_service_that_is_refused_leaves_no_folder(tmp_path: Path, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        folder = tmp_path / "new" / "folder"
        done = invoke("serve", "--host", host, "--port", str(port), "--data", str(folder))
    assert done.exit_code == 2
    assert ("without keys" if host == "0.0.0.0" else "already in use") in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("migrate",), ("keys", "create", "--name", "me")])
def test_what_is_made_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    folder = tmp_path / "parent" / "data"
    before = os.umask(0o000)
    try:
        assert invoke(*arguments, "--data", str(folder)).exit_code == 0
        with Database(f"sqlite:///{folder / 'gradsmith.db'}") as database, database.write() as session:
            session.execute(text("UPDATE workspaces SET id = id"))
            files = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert files == {"gradsmith.db": 0o600, "gradsmith.db-wal": 0o600, "gradsmith.db-shm": 0o600}


def test_a_database_that_lost_a_table_is_not_migrated_in_silence(settings: Settings) -> None:
    url = settings.resolved_database_url
    with Database(url) as database, database.write() as session:
        session.execute(text("DROP TABLE checkpoints"))
    for arguments in (("migrate",), ("keys", "list"), ("keys", "create", "--name", "me")):
        done = invoke(*arguments, "--data", str(settings.data_dir), DATABASE_URL=url)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert "lacks the table checkpoints" in done.stderr
        assert "put a backup in its place" in done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"DATABASE_URL": "postgresql://u:p%40ss#w@h:5432/x", "REDIS_URL": "rediss://:p@h:6380/1"},
        {"DATABASE_URL": "postgres://h/x", "REDIS_URL": "unix:///run/v.sock"},
        {"DATABASE_URL": "postgresql+psycopg://[::1]/x", "REDIS_URL": "redis://h"},
        {"DATABASE_URL": "sqlite:////tmp/x.db"},
    ],
)
def test_the_stores_that_can_be_used_are_taken(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings().database_url == environment["DATABASE_URL"]


def test_a_settings_error_as_pydantic_prints_it_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://u:topsecret@h/x")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "topsecret" not in str(caught.value)


def test_a_misspelt_variable_is_named_once_with_the_setting_that_it_may_mean(tmp_path: Path) -> None:
    done = run("migrate", "--data", str(tmp_path), GRADSMITH_LEASE_SECOND="5", GRADSMITH_NATIVE="off")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert "GRADSMITH_LEASE_SECOND is no setting" in line
    assert line.endswith("did you mean GRADSMITH_LEASE_SECONDS?")


def test_misspelt_knows_what_others_read_and_the_two_urls() -> None:
    assert misspelt({f"GRADSMITH_{field.upper()}": "" for field in ("data_dir", "port", "auth", "lease_seconds")}) == []
    assert misspelt({"GRADSMITH_URL": "", "GRADSMITH_PYTHON": "", "GRADSMITH_TEST_MARK": "", "HOME": ""}) == []
    (url,) = misspelt({"GRADSMITH_DATABSE_URL": "x"})
    assert "did you mean DATABASE_URL?" in url
    (strange,) = misspelt({"GRADSMITH_QQQQ": "x"})
    assert "docs/operations.md" in strange


def test_data_alone_lists_takes_the_folder_before_or_behind_the_command_and_has_help_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lists(status: int, out: str, err: str) -> bool:
        ready = re.search(r"^digits +ready", out, re.M) is not None
        return (status, err) == (0, "") and ready and str(tmp_path / "datasets" / "mnist") in out

    done = run("data", "--data", str(tmp_path), "list", GRADSMITH_DATA_DIR=str(tmp_path / "another"))
    assert lists(done.returncode, done.stdout, done.stderr), done
    # what the command becomes, in this process
    monkeypatch.setenv("GRADSMITH_DATA_DIR", str(tmp_path))
    for arguments in ([], ["--data", str(tmp_path)], ["list", "--data", str(tmp_path)]):
        assert lists(data_sets(arguments), *capsys.readouterr()), arguments
    with pytest.raises(SystemExit, match="0"):
        data_sets(["--help"])
    assert "fetch" in capsys.readouterr().out


def test_a_missing_data_set_names_the_commands_that_bring_it_to_the_folder_that_was_looked_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my data"
    with pytest.raises(DatasetMissing) as caught:
        load_mnist(folder, download=False)
    said = str(caught.value)
    assert f"`./run data fetch mnist --data '{folder}'`" in said
    assert f"`./run data import mnist FOLDER --data '{folder}'`" in said
    assert f"`gradsmith-server data import mnist FOLDER --data '{folder}'`" in said
    # The command is taken as it stands: it gets as far as looking into FOLDER.
    assert data_sets(["import", "mnist", str(tmp_path / "nowhere"), "--data", str(folder)]) == 1
    assert f"{tmp_path / 'nowhere'} lacks" in capsys.readouterr().err


def test_an_address_in_use_is_answered_with_a_port_that_cannot_be_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match="--port 0, which takes any free port") as caught:
            bind("127.0.0.1", port)
    assert str(port + 1) not in str(caught.value)
