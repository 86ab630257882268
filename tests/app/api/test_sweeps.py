"""Sweeps through the API: what is refused, who makes the children, how a sweep ends, is cancelled and is retried.

Children are ended by hand here; `tests/workers/test_sweep.py` has real workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.jobs.sweeps.coordinator import Coordinator
from app.report.search import search_figure
from app.settings import Settings
from app.store.sessions import Database
from workshop.working import Worker

BODY: dict[str, Any] = {
    "kind": "sweep",
    "family": "quadratic",
    "seed": 5,
    "recipe": {"meta_learning_rate": [0.001, 0.01], "rule": {"hidden_size": [5, 10, 20]}},
    "parallel": 2,
    "evaluate": False,
    "metadata": {"study": "first"},
}


def waited(look: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def children(api: httpx.Client, sweep: str, **filters: str) -> list[dict[str, Any]]:
    found = api.get("/jobs", params={"sweep": sweep, "limit": "100", **filters}).json()["data"]
    return sorted(found, key=lambda child: child["trial"]["number"])


def posted(api: httpx.Client, **changes: Any) -> str:
    answer = api.post("/jobs", json=BODY | changes)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def run_all(
    api: httpx.Client, sweep: str, worker: Callable[..., Worker], score: Callable[[dict[str, Any]], Any]
) -> None:
    """End every child with a score of its values, or as failed where that is None, until the sweep has ended."""
    while api.get(f"/jobs/{sweep}").json()["status"] == "running":
        for child in children(api, sweep, status="queued"):
            found = score(child["trial"]["values"])
            working = worker(child["id"], child["attempt"])
            if found is None:
                working.fail("the loss was not finite")
            else:
                working.finish_training(score=found)
        time.sleep(0.01)


def by_size(values: dict[str, Any]) -> float:
    return float(values["recipe.rule.hidden_size"]) + float(values["recipe.meta_learning_rate"])


@pytest.mark.both_databases
def test_a_grid_makes_each_combination_once_and_names_the_best(
    api: httpx.Client, worker: Callable[..., Worker]
) -> None:
    answer = api.post("/jobs", json=BODY)
    assert answer.status_code == 202, answer.text
    sweep = answer.json()
    assert (sweep["status"], sweep["progress"]["total"], sweep["queue_position"]) == ("running", 6, None)
    assert sweep["started_at"] is not None
    run_all(api, sweep["id"], worker, by_size)
    made = children(api, sweep["id"])
    assert [child["trial"]["number"] for child in made] == list(range(6))
    wanted = [(rate, size) for rate in (0.001, 0.01) for size in (5, 10, 20)]
    values = [child["trial"]["values"] for child in made]
    assert [(each["recipe.meta_learning_rate"], each["recipe.rule.hidden_size"]) for each in values] == wanted
    recipes = [child["spec"]["recipe"] for child in made]
    assert [(each["meta_learning_rate"], each["rule"]["hidden_size"]) for each in recipes] == wanted
    assert {child["spec"]["seed"] for child in made} == {5}
    assert {child["sweep"] for child in made} == {sweep["id"]}
    assert all(child["metadata"] == {"study": "first"} and not child["spec"]["evaluate"] for child in made)
    ended = api.get(f"/jobs/{sweep['id']}").json()
    assert (ended["status"], ended["status_reason"], ended["progress"]["step"]) == ("succeeded", None, 6)
    assert ended["optimizer"] == made[0]["optimizer"]  # 0.001 and 5
    assert "event: done" in api.get(f"/jobs/{sweep['id']}/events").text
    search = api.get(f"/jobs/{sweep['id']}/search").json()
    assert (search["best"], search["total"], search["sampler"]) == (0, 6, "grid")
    assert search["criterion"] == "both of 128 tasks after 100 steps"
    scores = [by_size(trial["values"]) for trial in search["trials"]]
    assert [trial["score"] for trial in search["trials"]] == scores
    assert [trial["best_so_far"] for trial in search["trials"]] == [min(scores[: n + 1]) for n in range(6)]
    drawn = api.get(f"/jobs/{sweep['id']}/search.png")
    assert drawn.content.startswith(b"\x89PNG")
    assert api.get(drawn.url.path, headers={"If-None-Match": drawn.headers["ETag"]}).status_code == 304
    alone = api.get(f"/jobs/{made[0]['id']}/search")
    assert (alone.status_code, alone.json()["code"]) == (404, "no_search")


def test_at_most_parallel_children_wait_or_run(api: httpx.Client, worker: Callable[..., Worker]) -> None:
    sweep = posted(api)
    waited(lambda: len(children(api, sweep)) == 2)
    first, second = children(api, sweep)
    worker(first["id"]).finish_training(score=1.0)
    made = waited(lambda: len(found := children(api, sweep)) == 3 and found)
    assert [child["status"] for child in made] == ["succeeded", "queued", "queued"]
    assert second["id"] == made[1]["id"]


def test_the_best_is_evaluated_once_where_that_is_asked_for(api: httpx.Client, worker: Callable[..., Worker]) -> None:
    sweep = posted(api, evaluate=True, evaluation={"test_tasks": 32})
    run_all(api, sweep, worker, by_size)
    ended = api.get(f"/jobs/{sweep}").json()
    evaluations = api.get("/jobs", params={"kind": "evaluate"}).json()["data"]
    assert [each["id"] for each in evaluations] == [ended["evaluation"]]
    assert (evaluations[0]["parent"], evaluations[0]["optimizer"]) == (sweep, ended["optimizer"])
    assert evaluations[0]["spec"]["evaluation"]["test_tasks"] == 32
    assert evaluations[0]["spec"]["rule"]["hidden_size"] == 5
    assert api.get(f"/jobs/{sweep}/report").json()["code"] == "not_ready"


def test_children_that_fail_are_counted_and_told(api: httpx.Client, worker: Callable[..., Worker]) -> None:
    sweep = posted(api)
    run_all(api, sweep, worker, lambda values: None if values["recipe.rule.hidden_size"] == 5 else by_size(values))
    ended = api.get(f"/jobs/{sweep}").json()
    assert ended["status"] == "succeeded"
    assert ended["status_reason"] == "2 of its 6 children have no validation score: trials 0, 3"
    assert ended["optimizer"] == children(api, sweep)[1]["optimizer"]


def test_a_sweep_whose_children_all_fail_fails_and_can_be_retried(
    api: httpx.Client, worker: Callable[..., Worker]
) -> None:
    sweep = posted(api)
    run_all(api, sweep, worker, lambda _values: None)
    ended = api.get(f"/jobs/{sweep}").json()
    assert ended["status"] == "failed"
    assert "none of its 6 children has a validation score; trial 0: the loss was not finite" in ended["status_reason"]
    alone = api.post(f"/jobs/{children(api, sweep)[0]['id']}/retry")
    assert (alone.status_code, alone.json()["code"]) == (409, "job_finished")
    assert f"POST /jobs/{sweep}/retry" in alone.json()["detail"]
    again = api.post(f"/jobs/{sweep}/retry")
    assert (again.status_code, again.json()["status"], again.json()["attempt"]) == (202, "running", 2)
    run_all(api, sweep, worker, by_size)
    assert api.get(f"/jobs/{sweep}").json()["status"] == "succeeded"
    assert [child["attempt"] for child in children(api, sweep)] == [2] * 6


@pytest.mark.both_databases
def test_a_sweep_is_cancelled_whole_and_goes_on_when_it_is_retried(
    api: httpx.Client, worker: Callable[..., Worker], app_settings: Settings, database: Database
) -> None:
    sweep = posted(api)
    waited(lambda: len(children(api, sweep)) == 2)
    first, second = children(api, sweep)
    running = worker(first["id"])
    answer = api.post(f"/jobs/{sweep}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
    assert [child["status"] for child in children(api, sweep)] == ["cancelling", "cancelled"]
    Coordinator(app_settings, database).advance()
    assert api.get(f"/jobs/{sweep}").json()["status"] == "cancelling"  # a child still runs
    running.finish_training(score=1.0)  # too late: it ends as cancelled
    waited(lambda: api.get(f"/jobs/{sweep}").json()["status"] == "cancelled")
    assert [child["status"] for child in children(api, sweep)] == ["cancelled", "cancelled"]
    assert f"its sweep {sweep} was cancelled" in children(api, sweep)[1]["status_reason"]
    assert api.post(f"/jobs/{sweep}/retry").status_code == 202
    run_all(api, sweep, worker, by_size)
    made = children(api, sweep)
    assert api.get(f"/jobs/{sweep}").json()["status"] == "succeeded"
    assert [child["trial"]["number"] for child in made] == list(range(6))
    assert (made[0]["id"], made[1]["id"]) == (first["id"], second["id"])


RATE = "/recipe/meta_learning_rate"


def rate(**ends: Any) -> dict[str, Any]:
    return {"recipe": {"meta_learning_rate": ends}}


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"recipe": {}}, "", "sweeps nothing; send a list of values, or a range"),
        ({"recipe": {"meta_steps": []}}, "/recipe/meta_steps", "an empty list"),
        ({"recipe": {"meta_stepz": [1, 2]}}, "/recipe/meta_stepz", "did you mean 'meta_steps'?"),
        ({"recipe": {"rule": {"hidden": [1, 2]}}}, "/recipe/rule/hidden", "hidden_size"),
        ({"recipe": {"meta_steps": [100, 0]}}, "/recipe/meta_steps/1", "0 is too small; send 1 or more"),
        ({"recipe": {"meta_steps": [100, "200"]}}, "/recipe/meta_steps/1", "is text, not a whole number"),
        ({"recipe": {"meta_steps": [100, 100]}}, "/recipe/meta_steps/1", "in the list already"),
        (rate(low=0.1, high=2), f"{RATE}/high", "2"),
        (rate(low=0.1, high=0.01), f"{RATE}/high", "above low"),
        (rate(low=0, high=1, log=True), f"{RATE}/low", "log"),
        (rate(low=0.1), f"{RATE}/high", "a number as its high end"),
        ({"recipe": {"meta_steps": {"low": 10, "high": 99.5}}}, "/recipe/meta_steps/high", "99.5"),
        (rate(low=0.1, high=0.2) | {"sampler": "grid"}, RATE, "a grid takes lists"),
        ({"recipe": {"horizon": [100, 200]}}, "/recipe/horizon", "recipe.validation_horizons"),
        ({"recipe": {"validation_tasks": [64, 128]}}, "/recipe/validation_tasks", "would not compare"),
        ({"recipe": {"objective": ["area", "final"]}}, "/recipe/objective", "would not compare"),
        ({"recipe": {"unroll_steps": [20, 30]}}, "/recipe/unroll_steps/1", "not a multiple of unroll_steps 30"),
        (
            {"recipe": {"meta_steps": list(range(1, 30)), "pool": list(range(1, 19))}},
            "/recipe",
            "522 combinations, and a sweep has 512 trials at most",
        ),
        ({"recipe": {"meta_steps": 0, "meta_learning_rate": [0.1, 0.2]}}, "/recipe/meta_steps", "0 is too small"),
        ({"recipe": {"meta_steps": 0}, "seed": [1, 2]}, "/recipe/meta_steps", "0 is too small"),
        ({"recipe": {"meta_steps": {"low": 1, "high": 10**400}}}, "/recipe/meta_steps/high", "too large"),
        ({"recipe": {"mixture": [1], "meta_steps": [1, 2]}}, "/recipe/mixture/0", "object"),
        ({"trials": 5}, "/trials", "the grid has 6 combinations"),
        ({"trials": 7, "sampler": "random"}, "/trials", "send 6 at most"),
        ({"trials": 1000, "sampler": "random"}, "/trials", "512"),
        ({"parallel": 0}, "/parallel", "1 or more"),
        ({"sampler": "hyperband"}, "/sampler", "grid"),
        ({"seed": [1, -1]}, "/seed/1", "a seed is an integer"),
        ({"halving": {"rungs": 3}}, "/halving", "send 9 trials at least"),
        ({"recipe": {"meta_steps": [10, 20]}, "halving": {"rungs": 2, "reduction": 2}}, "/recipe/meta_steps", "rungs"),
        ({"tasks": {"dimension": -1}}, "/tasks/dimension", "-1 is too small"),
        ({"family": "quadratik"}, "/family", "Did you mean 'quadratic'?"),
        ({"recipe": {"mixture": [{"family": "nowhere"}], "meta_steps": [1, 2]}}, "/recipe/mixture/0/family", "nowhere"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_refused_with_its_place(
    standing_api: httpx.Client, changes: dict[str, Any], pointer: str, words: str
) -> None:
    answer = standing_api.post("/jobs", json=BODY | changes)
    assert answer.status_code == 422, answer.text
    first = answer.json()["errors"][0]
    assert (first["pointer"], words in first["message"]) == (pointer, True), first


def test_a_sweep_of_nothing_is_refused_in_a_whole_sentence(standing_api: httpx.Client) -> None:
    detail = standing_api.post("/jobs", json=BODY | {"recipe": {}}).json()["detail"]
    assert detail.startswith("The body sweeps nothing; send a list of values, or a range such as ")


def test_a_sweep_that_no_worker_can_hold_is_refused(standing_api: httpx.Client) -> None:
    answer = standing_api.post("/jobs", json=BODY | {"family": "mnist-mlp", "recipe": {"tasks": [8, 4096]}})
    assert (answer.status_code, answer.json()["code"]) == (422, "job_too_large"), answer.text
    assert "Lower recipe.tasks" in answer.json()["detail"]


def test_a_search_is_drawn_whatever_was_swept_and_however_little_is_known() -> None:
    values: list[Any] = ["area", None, {"kind": "mlp"}, "a name that is much too long", True]
    trials = [
        {
            "number": n,
            "rung": n // 3,
            "status": "failed" if n == 1 else "succeeded",
            "score": None if n == 1 else 1.0 + n,
            "best_so_far": 1.0,
            "values": {"recipe.rate": 10.0**-n, "recipe.rule": value},
        }
        for n, value in enumerate(values)
    ]
    fields = [{"name": "recipe.rate", "log": True}, {"name": "recipe.rule", "log": False}]
    search = {"family": "<b>&", "sampler": "grid", "criterion": "area", "total": 9, "best": 0, "fields": fields}
    for few in (0, 1, 2, 5):
        picture = search_figure(search | {"trials": trials[:few], "best": 0 if few else None}, image_format="svg")
        assert b"</svg>" in picture
    assert picture == search_figure.__wrapped__(search | {"trials": trials, "best": 0}, image_format="svg")
    waiting = [trial | {"status": "queued", "score": None, "best_so_far": None} for trial in trials]
    assert b"</svg>" in search_figure(search | {"trials": waiting, "best": None}, image_format="svg")
