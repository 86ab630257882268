"""Fetching what was trained: bytes, record, card."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import httpx
import pytest
from safetensors.numpy import load

from app.store.outcomes import Outcome
from app.store.sessions import Database
from models.families import FAMILIES
from tests.app.api.shelf import OTHER_WEIGHTS, Shelf
from tests.app.store.damage import flip_a_bit
from workshop.working import WEIGHTS, Worker, evaluation_result


def trained(api: httpx.Client, worker: Callable[..., Worker], weights: bytes, score: float | None) -> Outcome:
    job = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic", "seed": 11}).json()["id"]
    return worker(job).finish_training(weights, score, cost={"seconds": 31.5}, skipped_steps=2)


@pytest.fixture
def two_versions(api: httpx.Client, worker: Callable[..., Worker]) -> list[str]:
    """Ids of quadratic@1, the best, and quadratic@2, the latest."""
    made = [trained(api, worker, WEIGHTS, 1.0), trained(api, worker, OTHER_WEIGHTS, 2.0)]
    return [outcome.optimizer.id for outcome in made if outcome.optimizer is not None]


def test_every_reference_gives_the_bytes_it_names(api: httpx.Client, two_versions: list[str]) -> None:
    first, second = two_versions
    expected = {
        first: WEIGHTS, "quadratic@1": WEIGHTS, "quadratic@best": WEIGHTS,
        second: OTHER_WEIGHTS, "quadratic@2": OTHER_WEIGHTS, "quadratic@latest": OTHER_WEIGHTS,
    }  # fmt: skip
    for reference, content in expected.items():
        answer = api.get(f"/optimizers/{reference}")
        assert answer.status_code == 200
        assert answer.content == content, reference
        assert answer.headers["content-type"] == "application/vnd.safetensors"
        assert answer.headers["ETag"] == f'"sha256:{hashlib.sha256(content).hexdigest()}"'
        assert answer.headers["Content-Location"] == f"/optimizers/{first if content is WEIGHTS else second}"
        assert answer.headers["Vary"] == "Accept, Accept-Encoding"
    assert load(api.get("/optimizers/quadratic@1").content)["weight"].tolist() == list(range(64))


def test_damaged_weights_are_not_served(
    api: httpx.Client, two_versions: list[str], database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    flip_a_bit(database, "weights", "content", 0.9)
    first = two_versions[0]
    for address in (f"/optimizers/{first}", "/optimizers/quadratic@best", "/optimizers/quadratic@1/weights"):
        answer = api.get(address)
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (500, "damaged_data"), address
        assert first in problem["detail"]
        assert "backup" in problem["detail"]
        assert "Retry-After" not in answer.headers
        assert answer.headers["Cache-Control"] == "no-store"
    assert any(f"optimizer {first} (quadratic@1) are damaged" in record.getMessage() for record in caplog.records)
    assert api.get("/optimizers/quadratic@1/record").json()["id"] == first


@pytest.mark.parametrize(
    ("wanted", "first", "end"), [("bytes=0-9", 0, 10), ("bytes=10-", 10, None), ("bytes=-7", -7, None)]
)
def test_a_part_of_the_bytes(shelf: Shelf, wanted: str, first: int, end: int | None) -> None:
    answer = shelf.api.get("/optimizers/quadratic@1", headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (206, WEIGHTS[first:end])
    start = first % len(WEIGHTS)
    last = (end or len(WEIGHTS)) - 1
    assert answer.headers["Content-Range"] == f"bytes {start}-{last}/{len(WEIGHTS)}"


def test_ranges_that_cannot_be_served(shelf: Shelf) -> None:
    size = len(WEIGHTS)
    for wanted in (f"bytes={size}-", "bytes=9-3", "bytes=-0", "bytes=a-b", "bytes=-", "bytes"):
        answer = shelf.api.get("/optimizers/quadratic@1", headers={"Range": wanted})
        assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable"), wanted
        assert answer.headers["Content-Range"] == f"bytes */{size}"
    for wanted in ("lines=1-2", "bytes=0-1,4-5"):  # what a server may ignore: other units, several ranges
        assert shelf.api.get("/optimizers/quadratic@1", headers={"Range": wanted}).content == WEIGHTS


def test_the_record_says_what_is_known(
    api: httpx.Client, two_versions: list[str], worker: Callable[..., Worker]
) -> None:
    answer = api.get("/optimizers/quadratic@1", headers={"Accept": "application/json"})
    record = answer.json()
    assert (record["id"], record["reference"], record["version"]) == (two_versions[0], "quadratic@1", 1)
    assert record["aliases"] == ["best"]
    assert record["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert record["size_bytes"] == len(WEIGHTS)
    assert record["card"] == {"cost": {"seconds": 31.5}, "skipped_steps": 2}
    assert record["evaluations"] == []
    assert "no-cache" in answer.headers["Cache-Control"]
    assert answer.headers["Vary"] == "Accept, Accept-Encoding"
    etag = answer.headers["ETag"]
    headers = {"Accept": "application/json", "If-None-Match": etag}
    assert api.get("/optimizers/quadratic@1", headers=headers).status_code == 304

    evaluation = api.get(f"/jobs/{record['job']}").json()["evaluation"]
    worker(evaluation).finish_evaluation(evaluation_result(verdict="ties"))
    changed = api.get("/optimizers/quadratic@1", headers=headers)
    assert changed.status_code == 200
    assert [(found["job"], found["verdict"]) for found in changed.json()["evaluations"]] == [
        (evaluation, {"final": "ties", "area": "ties"})
    ]
    assert changed.json()["evaluations"][0]["best_baseline"]["final"]["baseline"] == "adam"


def test_the_list_is_paged_and_filtered(api: httpx.Client, two_versions: list[str]) -> None:
    page = api.get("/optimizers", params={"limit": 1}).json()
    assert [record["id"] for record in page["data"]] == two_versions[1:]
    rest = api.get("/optimizers", params={"limit": 1, "after": page["next"]}).json()
    assert [record["id"] for record in rest["data"]] == two_versions[:1]
    assert rest["has_more"] is False
    assert api.get("/optimizers", params={"family": "digits-mlp"}).json()["data"] == []
    assert api.get("/optimizers", params={"famly": "x"}).status_code == 422


def test_the_card_says_what_it_is_and_where_not_to_use_it(
    api: httpx.Client, two_versions: list[str], worker: Callable[..., Worker]
) -> None:
    answer = api.get("/optimizers/quadratic@1/card")
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert answer.headers["Content-Location"] == f"/optimizers/{two_versions[0]}/card"
    card = answer.text
    assert "Not measured" not in card
    for needed in ("# quadratic@1", "100 steps", "| Seed | 11 |", "2.13.0", "31.5", "Where it should not be used"):
        assert needed in card, needed
    record = api.get("/optimizers/quadratic@1", headers={"Accept": "application/json"}).json()
    evaluation = api.get(f"/jobs/{record['job']}").json()["evaluation"]
    assert f"Evaluation job `{evaluation}` is queued" in card
    measuring = worker(evaluation)
    assert f"Evaluation job `{evaluation}` is running" in api.get("/optimizers/quadratic@1/card").text
    measuring.finish_evaluation(evaluation_result(verdict="loses"))
    card = api.get("/optimizers/quadratic@1/card").text
    assert "Being measured" not in card
    assert "loses to tuned Adam, the best baseline" in card
    assert "0.31" in card
    assert "0.25 to 0.38" in card
    assert "Where a tuned baseline beat it" in card
    etag = api.get("/optimizers/quadratic@1/card").headers["ETag"]
    assert api.get("/optimizers/quadratic@1/card", headers={"If-None-Match": etag}).status_code == 304


@pytest.mark.usefixtures("two_versions")
def test_a_card_whose_evaluation_was_cancelled_asks_for_another(api: httpx.Client) -> None:
    record = api.get("/optimizers/quadratic@1", headers={"Accept": "application/json"}).json()
    evaluation = api.get(f"/jobs/{record['job']}").json()["evaluation"]
    assert api.post(f"/jobs/{evaluation}/cancel").json()["status"] == "cancelled"
    card = api.get("/optimizers/quadratic@1/card").text
    assert "Not measured" in card
    assert "Being measured" not in card


def test_an_optimizer_that_is_still_trained_is_not_ready(api: httpx.Client, worker: Callable[..., Worker]) -> None:
    assert api.get("/optimizers/quadratic@latest").status_code == 404
    job = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic"}).json()["id"]
    worker(job).progress(412, 1000, 7.0)
    for reference in ("quadratic@latest", "quadratic@best", "quadratic@1"):
        for path in ("", "/card"):
            answer = api.get(f"/optimizers/{reference}{path}")
            problem = answer.json()
            assert (answer.status_code, problem["code"], problem["job"]) == (409, "not_ready", job)
            assert problem["progress"]["step"] == 412
    assert api.get("/optimizers/quadratic@2").status_code == 404


def test_what_no_automatic_alias_may_name_is_said_by_record_and_job(
    api: httpx.Client, worker: Callable[..., Worker]
) -> None:
    job = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic"}).json()["id"]
    worker(job).finish_training(shortfall="worse_than_standing_still: 9 and 4")
    record = api.get("/optimizers/quadratic@1/record").json()
    assert (record["automatic"], record["aliases"]) == (False, [])
    assert api.get(f"/jobs/{job}").json()["status_reason"] == "worse_than_standing_still: 9 and 4"
    for reference in ("quadratic@latest", "quadratic@best"):
        problem = api.get(f"/optimizers/{reference}").json()
        assert problem["code"] == "optimizer_not_found"
        assert "There are quadratic@1. None of them beats parameters that never move" in problem["detail"]
    second = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic"}).json()["id"]
    assert api.get("/optimizers/quadratic@2").json()["job"] == second, "versions count whatever is named"


@pytest.mark.parametrize(
    "reference",
    ["opt_" + "0" * 32, "opt_1", "quadratic@9", "quadratic@newest", "nope@best", "x", "%00", "a@%00", "@", "%FF@best"],
)
def test_an_unknown_reference_is_not_found(standing_api: httpx.Client, reference: str) -> None:
    for path in ("", "/card"):
        answer = standing_api.get(f"/optimizers/{reference}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "optimizer_not_found"), path


def test_accepting_neither_weights_nor_json_is_refused(shelf: Shelf) -> None:
    answer = shelf.api.get("/optimizers/quadratic@1", headers={"Accept": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
    assert "application/vnd.safetensors" in answer.json()["detail"]


def test_families_show_their_recipe_and_schemas(standing_api: httpx.Client) -> None:
    listed = standing_api.get("/families").json()
    assert [family["name"] for family in listed["data"]] == list(FAMILIES)
    detail = standing_api.get("/families/digits-mlp").json()
    assert detail["coordinates_per_task"] == 64 * 20 + 20 + 20 * 10 + 10
    assert detail["recipe"] == FAMILIES["digits-mlp"].recipe.model_dump(mode="json")
    assert detail["schemas"]["tasks"]["properties"]["hidden"]["maxItems"] == 8
    assert detail["schemas"]["recipe"]["properties"]["horizon"]["maximum"] == 10_000
    missing = standing_api.get("/families/nope")
    assert (missing.status_code, missing.json()["code"]) == (404, "family_not_found")
