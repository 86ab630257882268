"""`gradsmith-server keys`, and that no part of a real server ever shows a key."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.auth import UnguardedAddress, refuse_without_keys, tokens
from app.cli import app
from app.host import server
from app.host.server import bind, url_of
from app.settings import Settings
from app.store.sessions import Database
from workshop.keyed import id_of


def keys(*arguments: str, **environment: str) -> Any:
    return CliRunner().invoke(app, ("keys", *arguments), env={"COLUMNS": "120", "NO_COLOR": "1", **environment})


def test_the_first_key_is_made_before_the_first_start_and_printed_alone_and_once(tmp_path: Path) -> None:
    folder = str(tmp_path / "new")
    settings = Settings(data_dir=tmp_path / "new", host="0.0.0.0")
    done = keys("create", "--name", "me", "--scope", "admin", "--data", folder)
    assert (done.exit_code, done.stdout.count("\n")) == (0, 1)
    token = done.stdout.strip()
    assert tokens.parse(token).key_id == id_of(token)
    assert token.rsplit("_", 1)[1] not in done.stderr
    assert f"Made key {id_of(token)} (me), workspace default, scopes read, submit, admin." in done.stderr
    with Database(settings.resolved_database_url) as database:
        refuse_without_keys(settings, database)
    stored = b"".join(file.read_bytes() for file in (tmp_path / "new").iterdir() if file.is_file())
    assert id_of(token).encode() in stored
    assert token.rsplit("_", 1)[1].encode() not in stored

    listed = keys("list", "--data", folder)
    assert id_of(token) in listed.stdout
    assert token.rsplit("_", 1)[1] not in listed.stdout
    other = keys("create", "--name", "ci", "--workspace", "team-a", "--days", "30", "--data", folder)
    assert "workspace team-a, scopes read, submit, valid until" in other.stderr
    rows = [line.split() for line in keys("list", "--data", folder).stdout.splitlines()[1:]]
    assert [row[1:4] for row in rows] == [["default", "admin", "active"], ["team-a", "submit", "active"]]

    assert keys("revoke", id_of(token), "--data", folder).stderr == f"Revoked {id_of(token)} (me).\n"
    last = keys("revoke", rows[1][0], "--data", folder)
    assert "No key is left" in last.stderr
    with Database(settings.resolved_database_url) as database, pytest.raises(UnguardedAddress, match="keys create"):
        refuse_without_keys(settings, database)


def test_a_key_that_ends_at_once_is_no_key_to_start_with(tmp_path: Path) -> None:
    done = keys("create", "--name", "gone", "--days", "1e-9", "--data", str(tmp_path))
    assert done.exit_code == 0
    settings = Settings(data_dir=tmp_path, auth="on")
    with (
        Database(settings.resolved_database_url) as database,
        pytest.raises(UnguardedAddress, match="GRADSMITH_AUTH=on asks for API keys and there is none that is valid"),
    ):
        refuse_without_keys(settings, database)
    assert keys("list", "--data", str(tmp_path)).stdout.splitlines()[1].split()[3] == "expired"


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("create",), {}, "--name"),
        (("create", "--name", "x", "--days", "0"), {}, "--days 0: the key would have expired"),
        (("create", "--name", ""), {}, "--name has 0 characters"),
        (("create", "--name", "two\nlines"), {}, "--name"),
        (("create", "--name", "x", "--scope", "root"), {}, "--scope"),
        (("create", "--name", "x", "--workspace", "Team A"), {}, "--workspace 'Team A'"),
        (("create", "--name", "x", "--days", "-1"), {}, "--days"),
        (("create", "--name", "x", "--max-active-jobs", "0"), {}, "--max-active-jobs"),
        (("revoke", "key_" + "0" * 32), {}, "there is no key key_000"),
        (("revoke", "gs_" + "0" * 32 + "_" + "5ec2e7" * 8), {}, "ID must be key_"),
        (("list",), {"GRADSMITH_PORT": "abc"}, "GRADSMITH_PORT='abc'"),
        (("list",), {"DATABASE_URL": "postgresql://someone:topsecret@127.0.0.1:1/x"}, "cannot be used"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    settings: Settings, arguments: tuple[str, ...], environment: dict[str, str], words: str
) -> None:
    done = keys(*arguments, **({"GRADSMITH_DATA_DIR": str(settings.data_dir)} | environment))
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stdout == ""
    assert "topsecret" not in done.stderr
    assert "5ec2e7" not in done.stderr


def test_an_empty_database_that_only_lists_is_told_to_migrate(tmp_path: Path) -> None:
    (tmp_path / "gradsmith.db").touch()
    done = keys("list", "--data", str(tmp_path))
    assert done.exit_code == 2
    assert "gradsmith-server migrate" in done.stderr


# --- nothing tells --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def api_process(settings: Settings, log: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`python -m app.host.server` as the supervisor starts it, on a port of its own, and its address."""
    listener = bind("127.0.0.1", 0)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "app.host.server", "--fd", str(listener.fileno())],
            env={
                **os.environ, "GRADSMITH_DATA_DIR": str(settings.data_dir), "REDIS_URL": settings.resolved_redis_url,
                "GRADSMITH_LOG_LEVEL": "debug", **environment,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(listener.fileno(),),
        )  # fmt: skip
    try:
        yield process, url_of(listener)
    finally:
        listener.close()
        process.terminate()
        process.wait(30)


def test_an_api_process_that_needs_keys_and_finds_none_ends_with_a_sentence(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRADSMITH_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("GRADSMITH_HOST", "0.0.0.0")
    monkeypatch.setenv("GRADSMITH_PORT", "0")
    monkeypatch.setattr("app.logs.configure", lambda *_: None)  # pytest has the logging of this process
    assert server.main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("gradsmith-server: refusing to serve without keys on 0.0.0.0: make the first with ")
    assert "`gradsmith-server keys create --scope admin --name me" in said


@pytest.mark.service
def test_no_key_is_found_in_logs_errors_or_process_lists(settings: Settings, tmp_path: Path) -> None:
    folder = str(settings.data_dir)
    made = [keys("create", "--name", "me", "--scope", scope, "--data", folder) for scope in ("admin", "read")]
    admin, reader = (done.stdout.strip() for done in made)
    log = tmp_path / "log"
    with api_process(settings, log, GRADSMITH_AUTH="on") as (process, url):
        bodies = []
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {reader}"}, timeout=30) as api:
            for path in (f"/keys/{reader}", f"/jobs/{reader}", f"/optimizers/{reader}", f"/no/{reader}", "/jobs"):
                bodies += [api.get(path), api.post(path, json={"kind": reader, reader: reader})]
            bodies += [api.get("/jobs", params={"api_key": reader}), api.get("/jobs", params={"status": reader})]
            bodies.append(api.get("/jobs", headers={"Authorization": f"Basic {reader}"}))
            bodies.append(api.get("/jobs", headers={"Authorization": f"Bearer {reader}0"}))
            bodies.append(api.get("/jobs", headers={"Authorization": reader}))
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {admin}"}, timeout=30) as api:
            new = api.post("/keys", json={"name": "new"}, headers={"Idempotency-Key": "once"}).json()["token"]
            bodies += [api.get("/keys"), api.delete(f"/keys/{reader}"), api.post("/keys", json={"name": 3, admin: 1})]
            bodies += [api.post("/jobs", json={"kind": "meta_train", "family": admin})]
            bodies += [api.get("/jobs", headers={"Last-Event-ID": admin, "If-None-Match": admin}), api.get("/docs")]
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    lines = log.read_text()
    assert "POST" in lines, "it logged what it was asked"
    assert any(answer.status_code == 422 for answer in bodies)
    for token in (admin, reader, new):
        secret = token.rsplit("_", 1)[1]
        assert secret not in lines
        assert secret.encode() not in arguments
        for answer in bodies:
            assert secret not in answer.text + str(answer.headers), (answer.request.method, answer.request.url.path)
