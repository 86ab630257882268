"""The links of the OpenAPI document, each followed once on a server that has something of everything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.openapi import document as openapi
from app.openapi.examples import FAMILY_REQUEST
from app.openapi.links import LINKS, Link
from app.settings import Settings
from app.store.sessions import Database
from workshop.serving import serving
from workshop.weights import weights_file
from workshop.working import Worker, evaluation_result


@pytest.fixture
def api(settings: Settings) -> Iterator[httpx.Client]:
    with serving(settings) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


class Caller:
    """Calls operations by their id, and reads OpenAPI's runtime expressions."""

    def __init__(self, api: httpx.Client) -> None:
        self.api = api
        self.document = api.get("/openapi.json").json()
        self.operations = {
            each["operationId"]: (path, method, each) for path, method, each in openapi.operations(self.document)
        }

    def call(self, operation_id: str, parameters: dict[str, str], body: Any = None) -> httpx.Response:
        path, method, operation = self.operations[operation_id]
        places = {parameter["name"]: parameter["in"] for parameter in operation.get("parameters", [])}
        for name, value in parameters.items():
            path = path.replace(f"{{{name}}}", value)
        query = {name: value for name, value in parameters.items() if places[name] == "query"}
        headers = {name: value for name, value in parameters.items() if places[name] == "header"}
        if method == "get" and path.endswith("/events"):
            with self.api.stream("GET", path, headers=headers) as answer:  # it may go on for ever
                return answer
        sent: dict[str, Any] = {"json": body}
        if isinstance(body, bytes):
            sent, headers = {"content": body}, headers | {"Content-Type": "application/octet-stream"}
        answer = self.api.request(method, path, params=query, headers=headers, **sent)
        assert str(answer.status_code) in operation["responses"], f"{operation_id}: {answer.status_code} {answer.text}"
        return answer

    def follow(self, link: Link, sent: dict[str, str], answer: httpx.Response) -> httpx.Response:
        given = {name: self._value(expression, sent, answer) for name, expression in link.parameters.items()}
        bodies: dict[str, Any] = {"aliases_put": {"optimizer": "quadratic@1"}, "families_preview": {}}
        bodies["optimizers_change"] = {"description": "linked"}
        body = bodies.get(link.operation)
        return self.call(link.operation, given, body)

    def _value(self, expression: str, sent: dict[str, str], answer: httpx.Response) -> str:
        if path := re.fullmatch(r"\$request\.path\.(\w+)", expression):
            return sent[path[1]]
        if header := re.fullmatch(r"\$response\.header\.([\w-]+)", expression):
            return answer.headers[header[1]]
        found = answer.json()
        for part in expression.removeprefix("$response.body#/").split("/"):
            found = found[int(part) if part.isdecimal() else part]
        assert isinstance(found, str), expression
        return found


def test_every_link_leads_on(api: httpx.Client, settings: Settings, sqlite_database: Database) -> None:
    caller = Caller(api)
    followed: dict[tuple[str, str, str], int] = {}

    def visit(operation: str, sent: dict[str, str], body: Any = None, *, only: str | None = None) -> httpx.Response:
        """Call, and follow the links of its answer; those that change something one at a time, for they end others."""
        answer = caller.call(operation, sent, body)
        for link in LINKS[operation, str(answer.status_code)]:
            changes = link.name in ("cancel", "retry", "move", "delete", "revoke")
            if link.name == only if only else not changes:
                way = (operation, str(answer.status_code), link.name)
                status = caller.follow(link, sent, answer).status_code
                followed[way] = min(status, followed.get(way, status))  # a job has no search, a sweep no curve
        return answer

    def trained() -> str:
        job: str = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic"}).json()["id"]
        worker = Worker(settings, sqlite_database, job)
        worker.record(worker.metrics(1, 2, 3))
        made = worker.finish_training()
        worker.close()
        assert made.follow_up is not None
        measuring = Worker(settings, sqlite_database, made.follow_up.id)
        measuring.finish_evaluation(evaluation_result())
        measuring.close()
        return job

    trained()
    done = trained()
    training = {"kind": "meta_train", "family": "quadratic"}
    for only in (None, "cancel", "retry"):
        visit("jobs_create", {}, training, only=only)
        visit("families_preview", {"name": "quadratic"}, {}, only=only)
        visit("jobs_get", {"job_id": done}, only=only)
        queued = api.post("/jobs", json=training).json()["id"]
        visit("jobs_cancel", {"job_id": queued}, only=only)
        cancelled = api.post("/jobs", json=training).json()["id"]
        api.post(f"/jobs/{cancelled}/cancel")
        visit("jobs_retry", {"job_id": cancelled}, only=only)
        running = api.post("/jobs", json=training).json()["id"]
        worker = Worker(settings, sqlite_database, running)
        visit("jobs_cancel", {"job_id": running}, only=only)
        worker.close()
    sweep = {"kind": "sweep", "family": "quadratic", "recipe": {"meta_steps": [1, 2]}}
    swept = {"job_id": api.post("/jobs", json=sweep).json()["id"]}
    for name in ("search", "search_png", "search_svg"):
        visit("jobs_get", swept, only=name)
    for listing in ("jobs_list", "optimizers_list", "families_list"):
        visit(listing, {} if listing == "families_list" else {"limit": "1"})
    visit("jobs_curves", {"job": done})
    visit("families_create", {}, FAMILY_REQUEST)
    visit("families_get", {"name": "quadratic"})
    for number, only in enumerate((None, "delete")):
        visit("datasets_create", {"name": f"linked-{number}"}, b"a,b\n1,2\n", only=only)
    visit("datasets_list", {})
    for seed, only in enumerate((None, "delete")):
        file = weights_file({"kind": "lstm"}, extra={"family": "quadratic"}, seed=seed)
        visit("optimizers_create", {}, file, only=only)
    visit("optimizers_get", {"reference": "quadratic@1"})
    for number, only in enumerate((None, "move", "delete")):
        place = {"name": "quadratic", "alias": f"alias-{number}"}
        target = {"optimizer": "quadratic@2"}
        made = visit("aliases_put", place | {"If-None-Match": "*"}, target, only=only)
        api.put(f"/families/quadratic/aliases/{place['alias']}", json=target, headers={"If-None-Match": "*"})
        seen = api.get(f"/families/quadratic/aliases/{place['alias']}").headers["ETag"]
        visit("aliases_put", place | {"If-Match": seen}, target, only=only)
        api.put(f"/families/quadratic/aliases/{place['alias']}", json=target, headers={"If-None-Match": "*"})
        visit("aliases_get", place, only=only)
        api.put(f"/families/quadratic/aliases/{place['alias']}", json=target, headers={"If-None-Match": "*"})
        assert made.status_code == 201
    visit("aliases_list", {"name": "quadratic", "limit": "1"})
    for only in (None, "revoke"):
        visit("keys_create", {}, {"name": "linked"}, only=only)
    visit("keys_list", {"limit": "1"})

    assert set(followed) == {(*source, link.name) for source, links in LINKS.items() for link in links}
    refused = {way: status for way, status in followed.items() if status >= 400}
    # what depends on how far a job is: nothing to read yet, or no more to stop
    assert set(refused.values()) <= {409}, refused
    assert all(name in ("curve", "report", "cancel", "retry") for _, _, name in refused), refused
