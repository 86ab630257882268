"""`resources.processes`: what is accepted, and what is refused before it is queued."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from workshop.working import Worker

SMALLEST = {"kind": "meta_train", "family": "quadratic"}


def test_a_job_says_how_many_processes_it_runs_in(api: httpx.Client) -> None:
    body = SMALLEST | {"recipe": {"tasks": 3}, "resources": {"processes": 3, "threads": 2}}
    answer = api.post("/jobs", json=body)
    assert answer.status_code == 202, answer.text
    resources = answer.json()["spec"]["resources"]
    assert (resources["processes"], resources["threads"]) == (3, 2)
    assert api.post("/jobs", json=SMALLEST).json()["spec"]["resources"]["processes"] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": {"tasks": 3}, "resources": {"processes": 4}}, "4 processes cannot share 3 tasks"),
        ({"family": "mnist-mlp", "resources": {"processes": 2}}, "2 processes cannot share 1 task of"),
        ({"resources": {"processes": 65}}, "64"),
        ({"resources": {"processes": 0}}, "1"),
        ({"resources": {"processes": "two"}}, "whole number"),
    ],
)
def test_processes_that_would_have_no_task_or_are_too_many_are_refused(
    standing_api: httpx.Client, changes: dict[str, object], words: str
) -> None:
    answer = standing_api.post("/jobs", json=SMALLEST | changes)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_request"), problem
    assert problem["errors"][0]["pointer"] == "/resources/processes"
    assert words in problem["errors"][0]["message"]


def test_an_evaluation_runs_in_one_process_whoever_asks_for_it(
    api: httpx.Client, worker: Callable[..., Worker]
) -> None:
    training = api.post("/jobs", json=SMALLEST | {"resources": {"processes": 2, "threads": 3}}).json()
    outcome = worker(training["id"]).finish_training()
    assert outcome.follow_up is not None
    resources = api.get(f"/jobs/{outcome.follow_up.id}").json()["spec"]["resources"]
    assert (resources["processes"], resources["threads"]) == (1, 3)
    answer = api.post("/jobs", json={"kind": "evaluate", "optimizer": "quadratic@1", "resources": {"processes": 2}})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_request"), problem
    assert problem["errors"][0]["pointer"] == "/resources/processes"
    assert "an evaluation runs in one process" in problem["errors"][0]["message"]
