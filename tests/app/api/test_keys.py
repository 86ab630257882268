"""Who comes in: keys, scopes, workspaces, and what is never told."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event, text

import gradsmith
from app.api import event_stream
from app.auth import keyring, required_scope
from app.auth.keyring import InvalidKey, KeyRing
from app.main import create_app
from app.settings import Settings
from app.store.sessions import Database
from workshop.keyed import bearing, id_of, make_key, with_keys
from workshop.serving import serving
from workshop.working import Worker, evaluation_result

SMALLEST = {"kind": "meta_train", "family": "quadratic", "seed": 7}
PUBLIC = {"/", "/docs", "/openapi.json", "/healthz", "/readyz", "/favicon.svg", "/favicon.ico"}


@pytest.fixture(scope="module")
def standing(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory, standing_redis_url: str
) -> Iterator[tuple[str, Settings]]:
    """One server with keys for all tests that use workspaces of their own, or do not care what others have made."""
    folder = tmp_path_factory.mktemp("keyed")
    shutil.copy(migrated_sqlite, folder / "gradsmith.db")
    settings = with_keys(Settings(data_dir=folder, database_url=None, redis_url=standing_redis_url))
    with serving(settings) as url:
        yield url, settings


@pytest.fixture
def keyed(app_settings: Settings) -> Iterator[tuple[str, Settings]]:
    """The URL of a server that asks for keys, on each database."""
    settings = with_keys(app_settings)
    with serving(settings) as url:
        yield url, settings


@cache
def operations() -> list[tuple[str, str]]:
    document = create_app(Settings()).openapi()
    return [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]


# --- which keys open the door -------------------------------------------------------------------------------------


def test_without_a_key_only_the_public_pages_answer(standing: tuple[str, Settings]) -> None:
    url, _ = standing
    with httpx.Client(base_url=url) as nobody:
        for path in PUBLIC:
            assert nobody.get(path).status_code == 200, path
        for method, path in [*operations(), ("GET", "/no/such/path"), ("POST", "/"), ("TRACE", "/jobs")]:
            answer = nobody.request(method, path)
            if path in PUBLIC and method == "GET":
                continue
            assert answer.status_code == 401, (method, path)
            assert answer.json()["code"] == "unauthenticated"
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="gradsmith"'
        basic = nobody.get("/jobs", headers={"Authorization": "Basic c29tZW9uZTpzZWNyZXQ="})
        assert (basic.status_code, basic.json()["code"]) == (401, "unauthenticated")
        assert "c29tZW9uZTpzZWNyZXQ" not in basic.text


def test_a_key_that_is_not_valid_is_refused_with_the_reason(standing: tuple[str, Settings]) -> None:
    url, settings = standing
    good, admin = make_key(settings), make_key(settings, "admin")
    revoked = make_key(settings)
    ended = make_key(settings, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    soon = make_key(settings, expires_at=datetime.now(UTC) + timedelta(seconds=30))
    with bearing(url, admin) as api:
        assert api.delete(f"/keys/{id_of(revoked)}").status_code == 204
    wrong_secret = good[:-1] + ("0" if good[-1] != "0" else "1")
    other_id = f"gs_{id_of(admin).removeprefix('key_')}_{good.rsplit('_', 1)[1]}"
    nobodys = "gs_" + "0" * 32 + "_" + "0" * 48
    for token, reason in (
        (good[:-1], "83 characters, and keys have 84: was it cut off"),
        (good + "0", "85 characters"),
        (good.upper(), "no key of the form"),
        ("gs_", "was it cut off"),
        ("sk-something", "no key of the form"),
        (wrong_secret, "no such key"),
        (other_id, "no such key"),
        (nobodys, "no such key"),
        (revoked, "has been revoked"),
        (ended, "expired at"),
    ):
        answer = httpx.get(f"{url}/jobs", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_key"), token
        assert reason in answer.json()["detail"]
        challenge = answer.headers["WWW-Authenticate"]
        assert challenge.startswith('Bearer realm="gradsmith", error="invalid_token", error_description="')
        assert token not in answer.text + challenge or len(token) < 10
    for token in (good, soon):
        for scheme in ("Bearer", "bearer", "BEARER  "):
            assert httpx.get(f"{url}/jobs", headers={"Authorization": f"{scheme} {token}"}).status_code == 200


def test_each_scope_holds_the_lesser_ones_and_no_more(standing: tuple[str, Settings]) -> None:
    url, settings = standing
    ranks = {"read": 0, "submit": 1, "admin": 2}
    for held in ranks:
        with bearing(url, make_key(settings, held)) as api:  # type: ignore[arg-type]
            for method, path in operations():
                needed = required_scope(method, path)
                if needed is None or path.endswith("/events") or (path, held) == ("/doctor", "admin"):
                    continue  # a stream; and what takes seconds, and has tests of its own
                answer = api.request(method, path.replace("{", "").replace("}", ""))
                refused = answer.status_code == 403 and answer.json()["code"] == "insufficient_scope"
                assert refused == (ranks[held] < ranks[needed]), (held, method, path, answer.text)
                if refused:
                    assert answer.json()["required_scope"] == needed
                    assert f'error="insufficient_scope", scope="{needed}"' in answer.headers["WWW-Authenticate"]
            assert api.post("/jobs", json=SMALLEST).status_code == (403 if held == "read" else 202)


def test_reads_need_read_writes_submit_and_what_is_the_machines_admin() -> None:
    needed = {f"{method} {path}": required_scope(method, path) for method, path in operations()}
    assert {path for path, scope in needed.items() if scope is None} == {"GET /healthz", "GET /readyz"}
    for operation, scope in needed.items():
        method, path = operation.split()
        if scope is not None:
            of_admins = path.startswith("/keys") or path == "/doctor" or operation == "POST /datasets/{dataset}/fetch"
            assert scope == ("admin" if of_admins else "read" if method == "GET" else "submit")
    for path in ("/keysmith", "/docs/../jobs", "/healthz/", "//", "/openapi.json/x"):
        assert required_scope("GET", path) in ("read", None)
    assert required_scope("GET", "/metrics") == "read"


def test_a_server_with_keys_trusts_the_key_and_not_the_host(standing: tuple[str, Settings]) -> None:
    url, settings = standing
    page = {"Host": "gradsmith.example.org", "Origin": "https://elsewhere.example"}
    with bearing(url, make_key(settings)) as api:
        answer = api.post("/jobs", json=SMALLEST, headers=page)
        assert answer.status_code == 202
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert api.post("/jobs", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    named = with_keys(settings, allowed_hosts=("api.example.org",))
    with serving(named) as other, bearing(other, make_key(named)) as api:
        assert api.get("/jobs", headers={"Host": "gradsmith.example.org"}).status_code == 421
        assert api.get("/jobs", headers={"Host": "api.example.org"}).status_code == 200


# --- workspaces ---------------------------------------------------------------------------------------------------


@pytest.mark.both_databases
def test_what_another_workspace_has_is_not_found_by_any_route(keyed: tuple[str, Settings], database: Database) -> None:
    url, settings = keyed
    ours, theirs = make_key(settings, "admin", "ours"), make_key(settings, "admin", "theirs")
    with bearing(url, ours) as api, bearing(url, theirs) as stranger:
        job = api.post("/jobs", json=SMALLEST | {"metadata": {"team": "ours"}}).json()["id"]
        worker = Worker(settings, database, job)
        worker.record(worker.metrics(1, 2, 3))
        made = worker.finish_training()
        worker.close()
        assert made.optimizer is not None
        assert made.follow_up is not None
        measuring = Worker(settings, database, made.follow_up.id)
        measuring.finish_evaluation(evaluation_result())
        measuring.close()
        optimizer, evaluation = made.optimizer.id, made.follow_up.id
        moved = api.put(
            "/families/quadratic/aliases/good", json={"optimizer": "quadratic@1"}, headers={"If-None-Match": "*"}
        )
        assert moved.status_code in (200, 201), moved.text
        queued = api.post("/jobs", json=SMALLEST).json()["id"]

        values = {
            "job_id": [job, evaluation, queued],
            "reference": [optimizer, "quadratic@1", "quadratic@latest", "quadratic@best", "quadratic@good"],
            "key_id": [id_of(ours)],
            "alias": ["good"],
        }
        asked = set()
        for method, path in operations():
            parameter = next((name for name in values if f"{{{name}}}" in path), None)
            if parameter is None or method == "PUT":
                continue
            for value in values[parameter]:
                filled = path.replace(f"{{{parameter}}}", value).replace("{name}", "quadratic")
                body = {"description": "mine"} if method == "PATCH" else None
                answer = stranger.request(method, filled, headers={"If-Match": "*"}, json=body)
                assert answer.status_code == 404, (method, filled, answer.text)
                assert answer.json()["code"].endswith("_not_found")
                asked.add(path)
        assert {"/jobs/{job_id}", "/jobs/{job_id}/events", "/jobs/{job_id}/curve", "/jobs/{job_id}/report"} <= asked
        assert {"/optimizers/{reference}", "/optimizers/{reference}/card", "/keys/{key_id}"} <= asked
        for body in ({"optimizer": optimizer}, {"optimizer": "quadratic@1"}, {"optimizer": "quadratic@good"}):
            answer = stranger.post("/jobs", json={"kind": "evaluate"} | body)
            assert (answer.status_code, answer.json()["code"]) == (422, "unknown_optimizer")
            answer = stranger.put("/families/quadratic/aliases/theirs", json=body, headers={"If-None-Match": "*"})
            assert answer.status_code in (404, 422), answer.text
        # What they are told is what they would be told of something that never was.
        never = "job_" + "0" * 32
        told, untold = stranger.get(f"/jobs/{job}").json(), stranger.get(f"/jobs/{never}").json()
        assert told["detail"].replace(job, never) == untold["detail"]
        lists = (
            "/jobs", "/jobs?metadata.team=ours", "/optimizers", "/optimizers?family=quadratic",
            "/optimizers?alias=good", "/families/quadratic/aliases",
        )  # fmt: skip
        for listed in lists:
            assert api.get(listed).json()["data"] != [], listed
            assert stranger.get(listed).json()["data"] == [], listed
        assert [key["workspace"] for key in stranger.get("/keys").json()["data"]] == ["theirs"]
        # A cursor of one workspace opens no list of another.
        cursor = api.get("/jobs?limit=1").json()["next"]
        assert stranger.get("/jobs", params={"after": cursor}).status_code == 400
        # The strangers' requests changed nothing, and their own versions count from 1.
        assert api.get(f"/jobs/{queued}").json()["status"] == "queued"
        assert api.get(f"/jobs/{job}").json()["status"] == "succeeded"
        own = Worker(settings, database, stranger.post("/jobs", json=SMALLEST).json()["id"])
        own.finish_training()
        own.close()
        assert (
            stranger.get("/optimizers/quadratic@latest", headers={"Accept": "application/json"}).json()["version"] == 1
        )
        assert api.get(f"/optimizers/{optimizer}").status_code == 200


def test_an_idempotency_key_belongs_to_the_key_that_used_it(standing: tuple[str, Settings]) -> None:
    url, settings = standing
    tokens = [make_key(settings), make_key(settings), make_key(settings, workspace="other")]
    made = set()
    for token in tokens:
        with bearing(url, token) as api:
            first = api.post("/jobs", json=SMALLEST, headers={"Idempotency-Key": "the-same"})
            again = api.post("/jobs", json=SMALLEST, headers={"Idempotency-Key": "the-same"})
        assert (first.status_code, again.headers.get("Idempotent-Replayed")) == (202, "true")
        assert first.json()["id"] == again.json()["id"]
        made.add(first.json()["id"])
    assert len(made) == 3


# --- making and revoking keys -------------------------------------------------------------------------------------


def test_a_key_is_made_shown_once_and_works(standing: tuple[str, Settings]) -> None:
    url, settings = standing
    with bearing(url, make_key(settings, "admin", "team")) as admin:
        answer = admin.post("/keys", json={"name": "nightly", "max_active_jobs": 5})
        assert answer.status_code == 201
        assert answer.headers["Cache-Control"] == "no-store"
        made = answer.json()
        token = made.pop("token")
        assert (made["name"], made["workspace"], made["scopes"]) == ("nightly", "team", ["read", "submit"])
        assert (made["status"], made["max_active_jobs"], made["expires_at"]) == ("active", 5, None)
        assert answer.headers["Location"] == f"/keys/{made['id']}"
        listed = admin.get("/keys").text
        assert admin.get(answer.headers["Location"]).json() == made
        assert json.loads(listed)["data"][0] == made
        assert token.rsplit("_", 1)[1] not in listed
        for wrong, pointer in (
            ({}, "/name"), ({"name": ""}, "/name"), ({"name": "x", "scopes": []}, "/scopes"),
            ({"name": "x", "scopes": ["root"]}, "/scopes/0"), ({"name": "x", "workspace": "ours"}, "/workspace"),
            ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
            ({"name": "x", "expires_at": "2099-01-01T00:00:00"}, "/expires_at"),
            ({"name": "x", "expires_at": "9999-12-31T23:59:59-12:00"}, "/expires_at"),
            ({"name": "x", "max_active_jobs": 0}, "/max_active_jobs"),
        ):  # fmt: skip
            refused = admin.post("/keys", json=wrong)
            assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer), refused.text
    with bearing(url, token) as api:
        assert api.post("/jobs", json=SMALLEST).status_code == 202
    with Database(settings.resolved_database_url) as database, database.read() as session:
        rows = session.execute(text("SELECT * FROM keys")).all()
    assert token.rsplit("_", 1)[1] not in str(rows)


def test_a_replayed_key_is_the_same_and_the_database_does_not_know_it(
    keyed: tuple[str, Settings], database: Database
) -> None:
    url, settings = keyed
    once, body = {"Idempotency-Key": "one-key-please"}, {"name": "nightly", "scopes": ["read"]}
    with bearing(url, make_key(settings, "admin")) as admin, bearing(url, make_key(settings, "admin")) as other:
        first, again = (admin.post("/keys", json=body, headers=once) for _ in range(2))
        assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
        assert first.json() == again.json()
        assert "salt" not in {*first.headers, *again.headers}
        assert httpx.get(f"{url}/jobs", headers={"Authorization": f"Bearer {again.json()['token']}"}).status_code == 200
        assert other.post("/keys", json=body, headers=once).json()["id"] != first.json()["id"]
        assert admin.post("/keys", json=body | {"name": "x"}, headers=once).status_code == 422
    with database.read() as session:
        stored = session.execute(text("SELECT body, headers FROM idempotency_keys")).all()
    assert len(stored) == 2
    assert first.json()["token"].rsplit("_", 1)[1] not in "".join(
        f"{bytes(body)!r}{headers}" for body, headers in stored
    )


def test_on_a_server_without_keys_one_can_be_made_but_is_not_shown_again(api: httpx.Client) -> None:
    once = {"Idempotency-Key": "prepare"}
    first, again = (api.post("/keys", json={"name": "later", "scopes": ["admin"]}, headers=once) for _ in range(2))
    assert first.json()["token"].startswith("gs_")
    assert again.json() == first.json() | {"token": None}


def test_the_last_admin_key_stays_until_there_is_another(keyed: tuple[str, Settings]) -> None:
    url, settings = keyed
    first, reader = make_key(settings, "admin"), make_key(settings, "read")
    make_key(settings, "admin", "elsewhere")
    make_key(settings, "admin", expires_at=datetime.now(UTC) - timedelta(days=1))
    with bearing(url, first) as admin:
        refused = admin.delete(f"/keys/{id_of(first)}")
        assert (refused.status_code, refused.json()["code"]) == (409, "last_admin_key")
        assert admin.delete(f"/keys/{id_of(reader)}").status_code == 204
        second = admin.post("/keys", json={"name": "second", "scopes": ["admin"]}).json()
        assert admin.delete(f"/keys/{id_of(first)}").status_code == 204
        assert admin.get("/keys").status_code == 401
    with bearing(url, second["token"]) as admin:
        assert admin.delete(f"/keys/{id_of(first)}").status_code == 204, "a second time changes nothing"
        statuses = {key["id"]: key["status"] for key in admin.get("/keys").json()["data"]}
        assert statuses[id_of(first)] == statuses[id_of(reader)] == "revoked"
        for unknown in ("key_" + "0" * 32, "key_1", first):
            assert admin.delete(f"/keys/{unknown}").json()["code"] == "key_not_found"
        assert first.rsplit("_", 1)[1] not in admin.get(f"/keys/{first}").text


@pytest.mark.both_databases
def test_two_who_revoke_each_other_leave_one(keyed: tuple[str, Settings]) -> None:
    url, settings = keyed
    for _ in range(3):
        pair = [make_key(settings, "admin", "duel"), make_key(settings, "admin", "duel")]
        with bearing(url, pair[0]) as left, bearing(url, pair[1]) as right:
            left.get("/keys"), right.get("/keys")
            with ThreadPoolExecutor(2) as pool:
                duel = [
                    pool.submit(left.delete, f"/keys/{id_of(pair[1])}"),
                    pool.submit(right.delete, f"/keys/{id_of(pair[0])}"),
                ]
                answers = [shot.result().status_code for shot in duel]
        assert 204 in answers
        assert set(answers) <= {204, 401, 409}
        with Database(settings.resolved_database_url) as database, database.write() as session:
            left_over = session.execute(
                text("SELECT id FROM keys WHERE workspace = 'duel' AND revoked_at IS NULL")
            ).all()
            assert len(left_over) == 1, answers
            session.execute(text("DELETE FROM keys WHERE workspace = 'duel'"))


def test_another_process_refuses_a_revoked_key_after_the_time_that_is_promised(settings: Settings) -> None:
    shared = with_keys(settings, key_cache_seconds=0.4)
    token, admin = make_key(shared), make_key(shared, "admin")
    with serving(shared) as one, serving(shared) as two, bearing(two, token) as there, bearing(one, admin) as here:
        assert there.get("/jobs").status_code == 200
        assert here.delete(f"/keys/{id_of(token)}").status_code == 204
        revoked = time.monotonic()
        while there.get("/jobs").status_code == 200:
            assert time.monotonic() - revoked < 0.4 + 0.3
            time.sleep(0.02)
        assert httpx.get(f"{one}/jobs", headers=there.headers).status_code == 401


def test_a_stream_ends_when_its_key_is_revoked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.05)
    shared = with_keys(settings, key_cache_seconds=0.1)
    token, admin = make_key(shared), make_key(shared, "admin")
    with serving(shared) as url, bearing(url, token) as api, bearing(url, admin) as manager:
        job = api.post("/jobs", json=SMALLEST).json()["id"]
        with api.stream("GET", f"/jobs/{job}/events", timeout=10) as stream:
            lines = stream.iter_lines()
            while not next(lines).startswith(": "):
                pass
            manager.delete(f"/keys/{id_of(token)}")
            began = time.monotonic()
            last = [line for line in lines if line][-1]
            assert time.monotonic() - began < 3
        assert last == ": This key has been revoked. Come back with another key and Last-Event-ID."
        assert api.get(f"/jobs/{job}/events").status_code == 401
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


# --- what verifying costs -----------------------------------------------------------------------------------------


def test_the_database_is_asked_once_for_many_requests_and_written_to_rarely(settings: Settings) -> None:
    token = make_key(settings)
    statements: list[str] = []

    async def ask_often(database: Database) -> None:
        moment = [0.0]
        ring = KeyRing(database, 5.0, lambda: moment[0])
        await asyncio.gather(*(ring.verify(token) for _ in range(50)))
        assert len(statements) == 1
        moment[0] = 4.9
        began = time.perf_counter()
        for _ in range(1000):
            await ring.verify(token)
        assert time.perf_counter() - began < 0.2, (
            "a tenth of the 667 us that 1,500 requests/s leave, and room for noise"
        )
        assert len(statements) == 1
        moment[0] = 5.0
        await ring.verify(token)
        assert len(statements) == 2
        with pytest.raises(InvalidKey):
            await ring.verify("gs_" + "0" * 32 + "_" + "0" * 48)
        await ring.stop()

    with Database(settings.resolved_database_url) as database:
        event.listen(
            database.engine, "before_cursor_execute", lambda *given: "keys" in given[2] and statements.append(given[2])
        )
        asyncio.run(ask_often(database))
        assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT", "SELECT", "UPDATE"]
        with database.read() as session:
            assert session.execute(text("SELECT last_used_at FROM keys")).scalar() is not None


def test_those_who_make_up_keys_fill_no_memory(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "MOST_REMEMBERED", 5)

    async def guess(database: Database) -> int:
        ring = KeyRing(database, 60.0)
        for number in range(20):
            with pytest.raises(InvalidKey):
                await ring.verify(f"gs_{number:032x}_{'0' * 48}")
        return len(ring._known)

    with Database(settings.resolved_database_url) as database:
        assert asyncio.run(guess(database)) == 5


def test_without_the_database_nobody_is_let_in(tmp_path: Any, redis_url: str) -> None:
    away = "postgresql://someone:secret@127.0.0.1:1/gradsmith"
    settings = Settings(data_dir=tmp_path, database_url=away, redis_url=redis_url, auth="on")
    with serving(settings) as url, bearing(url, "gs_" + "0" * 32 + "_" + "0" * 48) as api:
        assert api.get("/healthz").status_code == 200
        assert (api.get("/families").status_code, api.get("/families").json()["code"]) == (503, "store_unavailable")


# --- headers ------------------------------------------------------------------------------------------------------


def test_every_answer_tells_browsers_what_they_must_not_do(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("app.api.jobs.job_documents", broken)
    with serving(settings) as url, httpx.Client(base_url=url) as api:
        answers = {path: api.get(path) for path in ("/", "/docs", "/families", "/nothing", "/openapi.json")}
        answers["HEAD"] = api.head("/families")
        answers["host"] = api.get("/jobs", headers={"Host": "elsewhere.example"})
        answers["bug"] = httpx.get(f"{url}/jobs")
        assert answers["bug"].status_code == 500
        for path, answer in answers.items():
            assert answer.headers["X-Content-Type-Options"] == "nosniff", path
            assert answer.headers["X-Frame-Options"] == "DENY", path
            assert answer.headers["Referrer-Policy"] == "no-referrer", path
            assert "camera=()" in answer.headers["Permissions-Policy"], path
            assert answer.headers.get_list("Content-Security-Policy")[0].startswith("default-src 'none'"), path
            assert len(answer.headers.get_list("Content-Security-Policy")) == 1, path
            assert "Strict-Transport-Security" not in answer.headers, path
        behind_tls = api.get("/families", headers={"X-Forwarded-Proto": "https"})
        assert behind_tls.headers["Strict-Transport-Security"] == "max-age=31536000"


# --- the client ---------------------------------------------------------------------------------------------------


def test_the_python_client_sends_its_key_and_says_what_is_wrong_with_it(
    standing: tuple[str, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, settings = standing
    monkeypatch.delenv("GRADSMITH_API_KEY", raising=False)
    token, reader = make_key(settings, workspace="client"), make_key(settings, "read", "client")
    with pytest.raises(gradsmith.errors.Unauthorized, match="unauthenticated"), gradsmith.Client(url) as nobody:
        nobody.jobs.list()
    with pytest.raises(gradsmith.errors.Unauthorized, match="was it cut off"), gradsmith.Client(url, token[:-4]) as cut:
        cut.jobs.list()
    monkeypatch.setenv("GRADSMITH_API_KEY", f"{token}\n")  # as a file holds it
    with gradsmith.Client(url) as client:
        job = client.jobs.create("meta_train", family="quadratic", seed=1)
        assert next(iter(client.jobs.stream(job))).kind == "status"
        assert [found.id for found in client.jobs.list()] == [job.id]
    with gradsmith.Client(url, reader) as client:
        assert client.jobs.get(job.id).id == job.id
        with pytest.raises(gradsmith.errors.Forbidden, match="needs a key with scope submit"):
            client.jobs.cancel(job.id)
    for broken in (f"{token[:40]}\n{token[40:]}", token.replace("_", "\u00a0"), f"Bearer {token}"):
        with pytest.raises(ValueError, match="copy it again") as caught:
            gradsmith.Client(url, broken)
        assert token[40:60] not in str(caught.value)
