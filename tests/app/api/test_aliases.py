"""Aliases over HTTP: 412 when somebody was faster, 428 when nothing was said, and they stand wherever an id does."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.app.api.shelf import OTHER_WEIGHTS, Shelf
from tests.app.api.test_optimizers import trained
from workshop.working import WEIGHTS, Worker

NEW = {"If-None-Match": "*"}
PROD = "/families/quadratic/aliases/prod"
RECORD = {"Accept": "application/json"}


@pytest.fixture
def two_versions(api: httpx.Client, worker: Callable[..., Worker]) -> list[str]:
    """Ids of quadratic@1, the best, and quadratic@2, the latest."""
    made = [trained(api, worker, WEIGHTS, 1.0), trained(api, worker, OTHER_WEIGHTS, 2.0)]
    return [outcome.optimizer.id for outcome in made if outcome.optimizer is not None]


_names = itertools.count()


@pytest.fixture
def alias() -> str:
    """A name that no other test uses."""
    return f"alias-{next(_names)}"


@pytest.fixture
def path(alias: str) -> str:
    return f"/families/quadratic/aliases/{alias}"


def put(api: httpx.Client, path: str, optimizer: str, headers: dict[str, str]) -> httpx.Response:
    return api.put(path, json={"optimizer": optimizer}, headers=headers)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_an_alias_is_made_read_moved_and_deleted(shelf: Shelf, alias: str, path: str) -> None:
    api = shelf.api
    made = put(api, path, "quadratic@1", NEW)
    assert (made.status_code, made.headers["Location"]) == (201, path)
    assert {name: value for name, value in made.json().items() if not name.endswith("_at")} == {
        "family": "quadratic", "alias": alias, "reference": f"quadratic@{alias}", "optimizer": shelf.first,
        "version": 1, "etag": made.headers["ETag"],
    }  # fmt: skip
    read = api.get(path)
    assert (read.json(), read.headers["ETag"]) == (made.json(), made.headers["ETag"])
    moved = put(api, path, shelf.second, {"If-Match": read.headers["ETag"]})
    assert (moved.status_code, moved.json()["optimizer"], moved.json()["version"]) == (200, shelf.second, 2)
    assert "Location" not in moved.headers
    assert moved.json()["created_at"] == made.json()["created_at"] <= moved.json()["updated_at"]
    assert moved.headers["ETag"] == api.get(path).headers["ETag"] != read.headers["ETag"]
    deleted = api.delete(path, headers={"If-Match": moved.headers["ETag"]})
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert code(api.get(path)) == (404, "alias_not_found")
    assert code(api.delete(path, headers={"If-Match": "*"})) == (404, "alias_not_found")


def test_who_saw_an_older_state_is_told_what_it_is_now(shelf: Shelf, path: str) -> None:
    api = shelf.api
    old = put(api, path, "quadratic@1", NEW).headers["ETag"]
    now = put(api, path, "quadratic@2", {"If-Match": f'"x", {old}'})
    for refused in (
        put(api, path, "quadratic@1", {"If-Match": old}),
        put(api, path, "quadratic@1", {"If-Match": f"W/{now.headers['ETag']}"}),  # the comparison is strong
        put(api, path, "quadratic@1", NEW),
        put(api, path, "quadratic@1", NEW | {"If-Match": now.headers["ETag"]}),  # both at once are never so
        api.delete(path, headers={"If-Match": old}),
    ):
        assert code(refused) == (412, "precondition_failed")
        assert refused.headers["ETag"] == now.headers["ETag"]
        assert refused.json()["optimizer"] == now.json()["optimizer"]
        assert now.json()["optimizer"] in refused.json()["detail"]
    absent = put(api, f"{path}-absent", "quadratic@1", {"If-Match": "*"})
    assert (*code(absent), absent.json()["optimizer"]) == (412, "precondition_failed", None)
    assert put(api, path, "quadratic@1", {"If-Match": "*"}).status_code == 200


def test_a_write_that_does_not_say_what_it_saw_is_refused(shelf: Shelf, path: str) -> None:
    api = shelf.api
    for answer in (put(api, path, "quadratic@1", {}), api.delete(path)):
        assert code(answer) == (428, "precondition_required")
        assert "If-Match" in answer.json()["detail"]
    put(api, path, "quadratic@1", NEW)
    for answer in (put(api, path, "quadratic@2", {}), api.delete(path)):
        assert code(answer) == (428, "precondition_required")
    assert api.get(path).json()["version"] == 1
    for headers in ({"If-Match": "1"}, {"If-Match": '"a'}, {"If-Match": ""}, {"If-None-Match": '"a"'}):
        answer = put(api, path, "quadratic@2", headers)
        assert code(answer) == (422, "invalid_request"), headers
        assert answer.json()["errors"][0]["location"] == "header"
        assert answer.json()["errors"][0]["pointer"] == f"/{next(iter(headers))}"


@pytest.mark.both_databases
def test_of_clients_who_move_it_at_once_one_wins_and_the_others_get_412(
    server: str, api: httpx.Client, two_versions: list[str]
) -> None:
    etag = put(api, PROD, two_versions[0], NEW).headers["ETag"]
    clients = 8
    gate = threading.Barrier(clients)

    def move(number: int, headers: dict[str, str]) -> httpx.Response:
        with httpx.Client(base_url=server, timeout=30) as client:
            client.get("/healthz")  # connected
            gate.wait(10)
            return put(client, PROD, two_versions[number % 2], headers)

    for _ in range(2):
        with ThreadPoolExecutor(clients) as threads:
            answers = list(threads.map(move, range(clients), [{"If-Match": etag}] * clients))
        assert sorted(answer.status_code for answer in answers) == [200] + [412] * (clients - 1)
        [winner] = [answer for answer in answers if answer.status_code == 200]
        assert api.get(PROD).json() == winner.json()
        etag = winner.headers["ETag"]


@pytest.mark.parametrize(("alias", "meaning"), [("latest", "the newest version"), ("best", "lowest validation score")])
def test_reserved_names_are_refused_with_what_they_mean(shelf: Shelf, alias: str, meaning: str) -> None:
    path = f"/families/quadratic/aliases/{alias}"
    for headers in (NEW, {"If-Match": "*"}):
        refused = put(shelf.api, path, shelf.first, headers)
        assert code(refused) == (422, "alias_reserved")
        assert meaning in refused.json()["detail"]
    assert code(shelf.api.delete(path, headers={"If-Match": "*"})) == (422, "alias_reserved")
    missing = shelf.api.get(path)
    assert code(missing) == (404, "alias_not_found")
    assert f"/optimizers/quadratic@{alias}" in missing.json()["detail"]


def test_what_an_alias_cannot_name_is_refused(shelf: Shelf, path: str) -> None:
    api = shelf.api
    for optimizer in ("quadratic@9", "opt_" + "0" * 32, "quadratic", "quadratic@unknown"):
        assert code(put(api, path, optimizer, NEW)) == (422, "unknown_optimizer"), optimizer
    other = put(api, path, "digits-mlp@1", NEW)
    assert code(other) == (422, "invalid_request")
    assert "of another family" in other.json()["detail"]
    for body in ({}, {"optimizer": 1}, {"optimizer": "quadratic@1", "x": 1}, []):
        assert code(api.put(path, json=body, headers=NEW)) == (422, "invalid_request"), body
    assert code(api.get(path)) == (404, "alias_not_found")


def test_what_is_no_name_of_an_alias_is_refused(shelf: Shelf) -> None:
    api = shelf.api
    for alias in ("Prod", "1", "9a", "a%20b", "x" * 65, "%00", "..%2f"):
        path = f"/families/quadratic/aliases/{alias}"
        answers = [put(api, path, "quadratic@1", NEW), api.get(path), api.delete(path, headers={"If-Match": "*"})]
        assert {answer.status_code for answer in answers} <= {404, 422}, alias
    wrong = put(api, "/families/quadratic/aliases/Prod", "quadratic@1", NEW)
    assert "lower-case" in wrong.json()["detail"]
    for method, tail in (("GET", ""), ("GET", "/prod"), ("DELETE", "/prod")):
        answer = api.request(method, f"/families/nope/aliases{tail}", headers={"If-Match": "*"})
        assert code(answer) == (404, "family_not_found")
    assert code(put(api, "/families/nope/aliases/prod", "quadratic@1", NEW)) == (404, "family_not_found")


def test_an_alias_stands_wherever_an_id_does(api: httpx.Client, two_versions: list[str]) -> None:
    first, second = two_versions
    etag = put(api, PROD, first, NEW).headers["ETag"]
    for target, weights in ((first, WEIGHTS), (second, OTHER_WEIGHTS)):
        etag = put(api, PROD, target, {"If-Match": etag}).headers["ETag"]
        bytes_ = api.get("/optimizers/quadratic@prod")
        assert bytes_.content == weights
        assert bytes_.headers["Cache-Control"] == "private, no-cache"
        assert bytes_.headers["Content-Location"] == f"/optimizers/{target}"
        record = api.get("/optimizers/quadratic@prod", headers=RECORD)
        assert (record.json()["id"], record.headers["Content-Location"]) == (target, f"/optimizers/{target}")
        assert "prod" in record.json()["aliases"]
        card = api.get("/optimizers/quadratic@prod/card")
        assert "`quadratic@prod`" in card.text
        assert card.headers["Content-Location"] == f"/optimizers/{target}/card"
        job = api.post("/jobs", json={"kind": "evaluate", "optimizer": "quadratic@prod"})
        assert (job.status_code, job.json()["optimizer"]) == (202, target)
        other = put(api, f"/families/quadratic/aliases/was-{target[-12:]}", "quadratic@prod", NEW)
        assert (other.status_code, other.json()["optimizer"]) == (201, target)
    for reference in ("quadratic@canary", "digits-mlp@prod"):
        assert code(api.get(f"/optimizers/{reference}")) == (404, "optimizer_not_found")
    detail = api.get("/optimizers/quadratic@canary").json()["detail"]
    assert "quadratic@prod" in detail
    unknown = api.post("/jobs", json={"kind": "evaluate", "optimizer": "quadratic@canary"})
    assert code(unknown) == (422, "unknown_optimizer")


def test_moving_an_alias_changes_the_record_and_the_card(shelf: Shelf, alias: str, path: str) -> None:
    """Who revalidates what they had by id learns of it; the weights are the same for ever."""
    api, url = shelf.api, f"/optimizers/{shelf.second}"
    before = {tail: api.get(url + tail, headers=RECORD if not tail else {}).headers["ETag"] for tail in ("", "/card")}
    weights = api.get(url).headers["ETag"]
    put(api, path, shelf.second, NEW)
    record = api.get(url, headers=RECORD | {"If-None-Match": before[""]})
    assert record.json()["aliases"][0] == "latest"
    assert alias in record.json()["aliases"]
    assert api.get(f"{url}/card", headers={"If-None-Match": before["/card"]}).status_code == 200
    assert api.get(url, headers={"If-None-Match": weights}).status_code == 304


def test_aliases_are_listed_in_pages_by_name(shelf: Shelf) -> None:
    api, url = shelf.api, "/families/digits-mlp/aliases"
    for alias in ("prod", "canary", "old"):
        put(api, f"{url}/{alias}", "digits-mlp@1", NEW)
    page = api.get(url, params={"limit": 2}).json()
    assert [found["alias"] for found in page["data"]] == ["canary", "old"]
    assert page["data"][0] == api.get(f"{url}/canary").json()
    rest = api.get(url, params={"limit": 2, "after": page["next"]}).json()
    assert ([found["alias"] for found in rest["data"]], rest["has_more"]) == (["prod"], False)
    assert api.get("/families/mnist-mlp/aliases").json() == {"data": [], "has_more": False, "next": None}
    crossed = api.get("/families/quadratic/aliases", params={"after": page["next"]})
    assert code(crossed) == (400, "bad_cursor")
    assert code(api.get(f"{url}?limt=2")) == (422, "invalid_request")


def test_optimizers_are_found_by_alias_and_tag(api: httpx.Client, worker: Callable[..., Worker]) -> None:
    def train(**metadata: str) -> str:
        body: dict[str, Any] = {"kind": "meta_train", "family": "quadratic", "metadata": metadata}
        job = api.post("/jobs", json=body).json()["id"]
        worker(job).finish_training()
        return str(api.get(f"/jobs/{job}").json()["optimizer"])

    first, second = train(team="vision", run="a=b"), train(team="audio")
    put(api, PROD, first, NEW)

    def found(query: str) -> list[str]:
        answer = api.get(f"/optimizers?{query}")
        assert answer.status_code == 200, answer.text
        return [record["id"] for record in answer.json()["data"]]

    assert found("alias=prod") == found("alias=prod&family=quadratic") == found("tag=team=vision") == [first]
    assert found("alias=latest") == found("alias=latest&tag=team") == [second]
    assert found("tag=team") == [second, first]
    assert found("tag=run%3Da%3Db&tag=team") == [first]
    assert found("alias=prod&tag=team=audio") == found("alias=canary") == found("family=digits-mlp&tag=team") == []
    assert api.get("/optimizers?tag=run").json()["data"][0]["tags"] == {"team": "vision", "run": "a=b"}
    page = api.get("/optimizers?tag=team&limit=1").json()
    assert found(f"tag=team&limit=1&after={page['next']}") == [first]
    assert code(api.get(f"/optimizers?tag=run&limit=1&after={page['next']}")) == (400, "bad_cursor")


@pytest.mark.parametrize(
    "query",
    ["alias=Prod", "alias=", "alias=3", "tag=", "tag==x", "tag=a%20b", "tag=a=%00", "&".join(["tag=a"] * 17),
     "tag=a=" + "x" * 513, "tags=a"],
)  # fmt: skip
def test_filters_that_fit_nothing_are_refused(standing_api: httpx.Client, query: str) -> None:
    assert code(standing_api.get(f"/optimizers?{query}")) == (422, "invalid_request")
