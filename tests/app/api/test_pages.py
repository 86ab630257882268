"""The dashboard's parts as they are served, answers in fewer bytes, and a service below a path."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from app.store.sessions import Database
from workshop.serving import serving
from workshop.working import Worker

STATIC = Path(__file__).parents[3] / "app" / "static" / "dashboard"
MODULES = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*.js"))


def parts_of(page: str) -> list[str]:
    """Addresses that a page or a module loads, from `src`, `href` and imports."""
    return re.findall(r"""(?:src|href)="(static/[^"]+)"|from "(\./[^"]+)"|import\("(\./[^"]+)"\)""", page)


def test_every_part_that_the_page_and_its_modules_load_is_served(standing_api: httpx.Client) -> None:
    page = standing_api.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    asked = [first for first, *_ in parts_of(page.text)]
    assert "static/dashboard/main.js" in asked
    for module in MODULES:
        folder = Path(module).parent
        text = (STATIC / module).read_text()
        asked += [f"static/dashboard/{(folder / (a or b)).as_posix()}" for _, a, b in parts_of(text) if a or b]
    for path in set(asked):
        found = standing_api.get(f"/{path}")
        assert found.status_code == 200, path
        assert found.headers["content-type"].startswith(("text/javascript", "text/css")), path
        assert standing_api.get(f"/{path}", headers={"If-None-Match": found.headers["ETag"]}).status_code == 304


def test_the_page_runs_no_script_of_its_own_text(standing_api: httpx.Client) -> None:
    page = standing_api.get("/")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["default-src"] == "'none'"
    assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|style=", page.text) == []


def test_all_that_the_dashboard_loads_is_under_150_kb_compressed(standing_api: httpx.Client) -> None:
    names = [path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.suffix in (".js", ".css")]
    sizes = {"": len(gzip.compress((STATIC / "index.html").read_bytes()))}
    for name in names:
        with standing_api.stream("GET", f"/static/dashboard/{name}") as answer:
            sizes[name] = sum(len(part) for part in answer.iter_raw())
    assert sum(sizes.values()) < 150_000, sizes


@pytest.mark.parametrize("name", ["../settings.py", "%2e%2e/settings.py", "vendor/README.md", "nothing.js", ""])
def test_no_other_file_is_served(standing_api: httpx.Client, name: str) -> None:
    assert standing_api.get(f"/static/dashboard/{name}").status_code == 404


def test_an_answer_is_compressed_for_whom_it_is_worth_it(standing_api: httpx.Client) -> None:
    path = "/openapi.json"
    plain = standing_api.get(path, headers={"Accept-Encoding": "identity"})
    small = standing_api.get(path, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert small.headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in small.headers["vary"]
    assert int(small.headers["content-length"]) < len(plain.content) / 4
    assert small.json() == plain.json()
    refused = standing_api.get(path, headers={"Accept-Encoding": "gzip;q=0"})
    assert "content-encoding" not in refused.headers
    assert "content-encoding" not in standing_api.get("/healthz", headers={"Accept-Encoding": "gzip"}).headers
    head = standing_api.head(path, headers={"Accept-Encoding": "gzip"})
    assert head.headers["content-length"] == small.headers["content-length"]


def test_a_compressed_answer_is_revalidated_by_the_tag_of_what_was_compressed(standing_api: httpx.Client) -> None:
    found = standing_api.get("/families", headers={"Accept-Encoding": "gzip"})
    plain = standing_api.get("/families", headers={"Accept-Encoding": "identity"})
    assert found.headers["Content-Encoding"] == "gzip"
    assert found.headers["ETag"] == plain.headers["ETag"]
    again = standing_api.get("/families", headers={"If-None-Match": found.headers["ETag"]})
    assert again.status_code == 304
    assert again.headers["Vary"] == found.headers["Vary"] == plain.headers["Vary"]


def test_a_list_of_jobs_has_a_tag_and_a_brief_form(settings: Settings, sqlite_database: Database) -> None:
    with serving(settings) as url, httpx.Client(base_url=url, timeout=60) as api:
        job = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic"}).json()["id"]
        whole, brief = api.get("/jobs").json(), api.get("/jobs?brief=true")
        assert whole["data"][0]["spec"]["kind"] == "meta_train"
        shortened = whole["data"][0] | {"spec": {}, "runtime": {}}
        assert {name: brief.json()["data"][0][name] for name in ("id", "spec", "runtime", "metadata")} == {
            name: shortened[name] for name in ("id", "spec", "runtime", "metadata")
        }
        claimed = Worker(settings, sqlite_database, job)  # from here on nothing waits, whose reason may change
        tag = {"If-None-Match": api.get("/jobs?brief=true").headers["ETag"]}
        assert api.get("/jobs?brief=true", headers=tag).status_code == 304
        claimed.progress(10)
        assert api.get("/jobs?brief=true", headers=tag).json()["data"][0]["progress"]["step"] == 10
        claimed.close()


def test_a_service_below_a_path_says_where_its_things_are(settings: Settings) -> None:
    below = settings.model_copy(update={"root_path": "/tools/gradsmith"})
    with serving(below) as url, httpx.Client(base_url=url, timeout=60) as api:
        for prefix in ("", "/tools/gradsmith"):  # whether or not the proxy takes the path off
            made = api.post(f"{prefix}/jobs", json={"kind": "meta_train", "family": "quadratic"})
            assert made.headers["Location"] == f"/tools/gradsmith/jobs/{made.json()['id']}"
            assert api.get(made.headers["Location"]).status_code == 200
            assert "/tools/gradsmith/" in api.get(f"{prefix}/docs").text
            assert api.get(f"{prefix}/").text.startswith("<!doctype html>")
        assert api.get("/tools/gradsmith").headers["Location"] == "/tools/gradsmith/"
