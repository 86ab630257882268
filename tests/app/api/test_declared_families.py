"""POST /families: a family of the workspace's own, usable wherever a name is, and never changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.openapi.examples import FAMILY_REQUEST
from models.families import FAMILIES
from tests.app.api.conftest import Worker

RIDGE: dict[str, Any] = FAMILY_REQUEST


def declared(api: httpx.Client, name: str, **changes: Any) -> dict[str, Any]:
    answer = api.post("/families", json=RIDGE | {"name": name} | changes)
    assert answer.status_code in {200, 201}, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_declared_family_is_listed_and_shown(api: httpx.Client) -> None:
    answer = api.post("/families", json=RIDGE | {"name": "shown"})
    assert (answer.status_code, answer.headers["Location"]) == (201, "/families/shown")
    made = answer.json()
    assert (made["title"], made["coordinates_per_task"], made["declared"]) == ("Ridge regression", 10, True)
    assert api.get("/families/shown").json() == made
    listed = {family["name"]: family["declared"] for family in api.get("/families").json()["data"]}
    assert listed["shown"] is True
    assert listed["quadratic"] is False
    assert {name for name, own in listed.items() if not own} == FAMILIES.keys()


def test_the_same_request_again_changes_nothing_and_another_one_is_refused(api: httpx.Client) -> None:
    made = declared(api, "fixed")
    again = api.post("/families", json=RIDGE | {"name": "fixed"})
    assert (again.status_code, again.json()) == (200, made)
    other = api.post("/families", json=RIDGE | {"name": "fixed", "title": "Another"})
    problem = other.json()
    assert (other.status_code, problem["code"]) == (409, "family_exists")
    assert "such as fixed-2" in problem["detail"]
    assert api.get("/families/fixed").json() == made


def test_it_is_trained_measured_aliased_and_found_as_any_family_is(
    api: httpx.Client, worker: Callable[..., Worker]
) -> None:
    declared(api, "used", recipe={"meta_steps": 200}, evaluation={"test_tasks": 32})
    answer = api.post("/jobs", json={"kind": "meta_train", "family": "used", "tasks": {"constants": {"weight": 0.2}}})
    assert answer.status_code == 202, answer.text
    job = answer.json()
    spec = job["spec"]
    assert (job["family"], spec["recipe"]["meta_steps"], spec["evaluation"]["test_tasks"]) == ("used", 200, 32)
    assert spec["family"]["overrides"] == {"constants": {"weight": 0.2}}
    outcome = worker(str(job["id"])).finish_training(score=1.0)
    assert outcome.optimizer is not None
    reference = f"used@{outcome.optimizer.version}"
    measured = api.post("/jobs", json={"kind": "evaluate", "optimizer": reference})
    assert measured.status_code == 202, measured.text
    assert measured.json()["spec"]["family"]["tasks"]["constants"] == {"weight": 0.2}
    named = api.put("/families/used/aliases/prod", json={"optimizer": reference}, headers={"If-None-Match": "*"})
    assert named.status_code == 201, named.text
    assert api.post("/jobs", json={"kind": "preview", "family": "used"}).status_code == 202
    mixed = {"kind": "meta_train", "family": "quadratic", "recipe": {"mixture": [{"family": "used"}]}}
    assert api.post("/jobs", json=mixed).status_code == 202


def test_a_name_that_nobody_declared_is_refused_with_what_there_is(api: httpx.Client) -> None:
    declared(api, "near-enough")
    answer = api.post("/jobs", json={"kind": "meta_train", "family": "near-enogh"})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["suggestion"]) == (422, "unknown_family", "near-enough")
    assert "POST /families declares one of your own" in problem["detail"]
    assert api.get("/families/near-enogh").json()["suggestion"] == "near-enough"


@pytest.mark.parametrize(
    ("changes", "pointer", "message"),
    [
        ({"name": "quadratic"}, "/name", "a family of the server's own"),
        ({"name": "Über"}, "/name", "lower-case letters"),
        ({"tasks": {"kind": "cubic"}}, "/tasks/kind", "There is no kind of family 'cubic'"),
        ({"tasks": {"kind": "regresion"}}, "/tasks/kind", "did you mean 'regression'?"),
        ({"tasks": {}}, "/tasks/kind", "There is no kind of family None"),
        ({"tasks": RIDGE["tasks"] | {"loss": "sum(A @ thta)"}}, "/tasks/loss", "column 9: there is no 'thta'"),
        ({"tasks": {"kind": "quadratic", "dimension": "ten"}}, "/tasks/dimension", "not a whole number"),
        ({"tasks": {"kind": "quadratic", "size": 3}}, "/tasks/size", "not a field"),
        ({"recipe": {"meta_steps": 0}}, "/recipe/meta_steps", "send 1 or more"),
        ({"recipe": {"horizon": 100, "unroll_steps": 30}}, "/recipe", "100"),
        ({"recipe": {"mixture": [{"family": "quadratic"}]}}, "/recipe/mixture", "send it with the job"),
        ({"title": "a\x00b"}, "/title", "cannot be stored"),
    ],
)
def test_what_is_wrong_is_pointed_at_and_nothing_is_declared(
    api: httpx.Client, changes: dict[str, Any], pointer: str, message: str
) -> None:
    answer = api.post("/families", json=RIDGE | {"name": "refused"} | changes)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_request"), answer.text
    [error] = problem["errors"]
    assert error["pointer"].startswith(pointer)
    assert message in error["message"]
    assert api.get("/families/refused").status_code == 404
