"""GET /doctor: the doctor's findings, for whoever keeps the server, from a process beside it."""

from __future__ import annotations

import asyncio
import threading

import httpx

from app.api.examination import Examination
from app.settings import Settings
from app.store.sessions import Database
from workshop.keyed import bearing, make_key, with_keys
from workshop.serving import serving


def test_the_findings_are_told_to_admins_of_the_default_workspace_alone(
    settings: Settings, sqlite_database: Database
) -> None:
    keyed = with_keys(settings, database_url=str(sqlite_database.url))
    with serving(keyed) as url:
        refused = [httpx.get(f"{url}/doctor")]
        for scope, workspace in (("read", "default"), ("submit", "default"), ("admin", "elsewhere")):
            with bearing(url, make_key(keyed, scope, workspace)) as api:  # type: ignore[arg-type]
                refused.append(api.get("/doctor"))
        assert [answer.status_code for answer in refused] == [401, 403, 403, 403]
        assert all(str(settings.data_dir) not in answer.text for answer in refused)

        answered = 0
        with bearing(url, make_key(keyed, "admin")) as api:
            api.timeout = httpx.Timeout(150)
            found: list[httpx.Response] = []
            asking = threading.Thread(target=lambda: found.append(api.get("/doctor")))
            asking.start()
            while asking.is_alive():
                assert httpx.get(f"{url}/healthz", timeout=120).status_code == 200
                answered += 1
                asking.join(0.1)
            told = found[0].json()
            assert told["complete"], told
            by_check = {each["check"]: each for each in told["checks"]}
            assert by_check["data folder"]["found"].startswith(str(settings.data_dir.resolve()))
            assert {"database", "redis", "keys", "torch", "families", "kernel"} <= by_check.keys()
            assert told["healthy"] == all(each["outcome"] != "fail" for each in told["checks"])
            assert api.get("/doctor").json() == told, "kept for half a minute"
            assert answered > 3, "others are answered meanwhile"


def test_a_doctor_that_takes_too_long_is_ended(settings: Settings, sqlite_database: Database) -> None:
    examination = Examination(
        settings.model_copy(update={"database_url": str(sqlite_database.url)}), patience_seconds=0.05
    )
    found = asyncio.run(examination.findings())
    assert not found.complete
    assert found.findings[-1] | {"advice": ""} == {
        "check": "doctor", "outcome": "warn", "found": "was not done within 0.05 s", "advice": "",
    }  # fmt: skip
    assert "doctor" in found.findings[-1]["advice"]
