"""Lists that go on by themselves, options, raw answers and waiting that is seen: the same for both clients."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

import gradsmith
from gradsmith import errors, retries
from gradsmith.types import Job
from tests.sdk.blocking import Made
from tests.sdk.records import job_json, problem_json


@pytest.fixture(autouse=True)
def _quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)


Answer = Callable[[httpx.Request], httpx.Response]


def client_of(made: Made, answer: Answer) -> gradsmith.Client:
    return made(http_client=httpx.Client(transport=httpx.MockTransport(answer), base_url="http://server"))


def paged(count: int, seen: list[dict[str, str]]) -> Answer:
    """A server of `count` jobs, whose cursor is the number of those that were sent."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked = dict(request.url.params)
        seen.append(asked)
        begin, limit = int(asked.get("after", 0)), int(asked["limit"])
        end = min(begin + limit, count)
        data = [job_json(id=f"job_{number}") for number in range(begin, end)]
        more = end < count
        return httpx.Response(200, json={"data": data, "has_more": more, "next": str(end) if more else None})

    return answer


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_a_list_goes_on_through_its_pages_with_the_same_filters(made: Made, count: int) -> None:
    seen: list[dict[str, str]] = []
    client = client_of(made, paged(count, seen))
    found = [job.id for job in client.jobs.list(status="failed", metadata={"team": "a"}, limit=4)]
    assert found == [f"job_{number}" for number in range(count)]
    assert len(seen) == max(1, -(-count // 4))
    assert all(each | {"after": ""} == {"status": "failed", "metadata.team": "a", "limit": "4", "after": ""}
               for each in seen)  # fmt: skip


def test_pages_are_fetched_when_they_are_needed(made: Made) -> None:
    seen: list[dict[str, str]] = []
    page = client_of(made, paged(9, seen)).jobs.list(limit=4)
    jobs = iter(page)
    assert [next(jobs).id for _ in range(4)] == [job.id for job in page.data]
    assert len(seen) == 1
    assert next(jobs).id == "job_4"
    assert [each.get("after") for each in seen] == [None, "4"]
    following = page.next_page()
    assert following is not None
    assert [job.id for job in following.data] == ["job_4", "job_5", "job_6", "job_7"]
    last = following.next_page()
    assert last is not None
    assert (len(last.data), last.has_more, last.next_page()) == (1, False, None)


def test_a_page_that_names_itself_ends_the_list_with_an_error(made: Made) -> None:
    page = {"data": [job_json()], "has_more": True, "next": "again"}
    client = client_of(made, lambda _request: httpx.Response(200, json=page))
    with pytest.raises(errors.InvalidResponse, match="'again' names itself"):
        list(client.jobs.list())


def test_options_are_of_the_copy_alone(made: Made) -> None:
    calls: list[dict[str, float]] = []

    def away(request: httpx.Request) -> httpx.Response:
        calls.append(request.extensions["timeout"])
        return httpx.Response(503, json=problem_json(503, "store_unavailable"))

    client = client_of(made, away)
    for asked, tries in ((client.with_options(timeout=2.5, max_retries=1), 2), (client, retries.TRIES)):
        calls.clear()
        with pytest.raises(errors.ServerError):
            asked.jobs.get("job_1")
        assert len(calls) == tries
        assert (calls[0]["read"] == 2.5) == (tries == 2)
    calls.clear()
    once = client.with_options(max_retries=0).with_options(timeout=httpx.Timeout(None))
    for asked_once in (lambda: once.jobs.get("job_1"), lambda: once.jobs.wait("job_1"),
                       lambda: list(once.jobs.stream("job_1"))):  # fmt: skip
        with pytest.raises(errors.ServerError):
            asked_once()
    assert [each["connect"] for each in calls] == [None] * 3
    assert calls[-1]["read"] is not None  # a stream that is silent for too long has died
    with pytest.raises(ValueError, match="max_retries is 0 or more, not -1"):
        client.with_options(max_retries=-1)
    with pytest.raises(ValueError, match="in seconds, above 0, not 0"):
        client.with_options(timeout=0)


def test_a_raw_answer_has_status_headers_and_bytes(made: Made) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/jobs":
            return httpx.Response(200, json={"data": [job_json()], "has_more": True, "next": "c"})
        if request.url.path == "/jobs/job_2":
            return httpx.Response(404, json=problem_json(404, "job_not_found"))
        return httpx.Response(200, json=job_json(), headers={"X-Request-Id": "req_9"})

    raw = client_of(made, answer).with_raw_response
    got = raw.jobs.get("job_1")
    assert (got.status_code, got.headers["X-Request-Id"]) == (200, "req_9")
    assert (json.loads(got.content)["id"], got.parse().id) == ("job_1", "job_1")
    assert repr(got) == "RawResponse(200, GET /jobs/job_1)"
    assert (raw.jobs.list().parse().next, len(raw.jobs.list().parse().data)) == ("c", 1)
    with pytest.raises(errors.NotFound):
        raw.jobs.get("job_2")
    with pytest.raises(TypeError, match="more than one request"):
        raw.jobs.wait("job_1")  # type: ignore[arg-type]


def test_numbers_of_numpy_are_sent_as_numbers(made: Made) -> None:
    sent: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content) if request.content else dict(request.url.params))
        return httpx.Response(200, json=job_json() | {"data": [], "has_more": False})

    client = client_of(made, answer)
    recipe = {"meta_steps": np.int64(3), "meta_learning_rate": np.float32(0.5), "rule": {"widths": np.arange(2)}}
    client.jobs.create(family="quadratic", seed=np.int64(7), recipe=recipe, evaluate=np.bool_(False))  # type: ignore[arg-type]
    client.jobs.list(limit=np.int64(5))  # type: ignore[arg-type]
    assert sent == [
        {"kind": "meta_train", "family": "quadratic", "seed": 7, "evaluate": False,
         "recipe": {"meta_steps": 3, "meta_learning_rate": 0.5, "rule": {"widths": [0, 1]}}},
        {"limit": "5"},
    ]  # fmt: skip


def test_waiting_tells_of_each_look(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    states = iter([("queued", 0), ("running", 4), ("running", 8), ("succeeded", 10)] * 2)

    def answer(_request: httpx.Request) -> httpx.Response:
        status, step = next(states)
        progress = {"step": step, "total": 10, "eta_seconds": None}
        return httpx.Response(200, json=job_json(status=status, progress=progress))

    client = client_of(made, answer)
    looks: list[Job] = []
    client.jobs.wait("job_1", poll_seconds=0.001, progress=looks.append)
    assert [(job.status, job.progress.step) for job in looks] == [
        ("queued", 0), ("running", 4), ("running", 8), ("succeeded", 10),
    ]  # fmt: skip
    client.jobs.wait("job_1", poll_seconds=0.001, progress=True)
    said = capsys.readouterr().err.splitlines()  # no terminal: a line at first and one at the end
    assert len(said) == 2
    assert "quadratic meta_train" in said[0]
    assert "░░ " in said[0]
    assert "100%  10/10  succeeded" in said[1]


def test_a_job_that_ended_in_a_way_of_a_newer_server_is_not_waited_for(made: Made) -> None:
    ended = job_json(status="archived", finished_at="2026-01-02T03:04:06Z", colour={"new": 1})
    client = client_of(made, lambda _request: httpx.Response(200, json=ended))
    began = time.monotonic()
    with pytest.raises(errors.JobFailed, match="job_1 ended as archived"):
        client.jobs.wait("job_1", timeout_seconds=5)
    assert time.monotonic() - began < 4
