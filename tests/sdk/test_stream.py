"""Following a job: every event once and in order, over connections that break anywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import gradsmith
from gradsmith import errors, retries
from gradsmith.cli import live
from gradsmith.cli.program import program
from gradsmith.events import (
    CheckpointEvent,
    DoneEvent,
    Event,
    EventStream,
    LogEvent,
    MetricsEvent,
    ResumedEvent,
    StatusEvent,
)
from tests.sdk.blocking import Made
from tests.sdk.records import job_json, problem_json
from workshop.serving import serving_app

METRICS: dict[str, Any] = {
    "step": [1, 2],
    "loss": [3.0, None],
    "gradient_norm": [1, 1],
    "validation": [None, 0.5],
    "learning_rate": [0.1, 0.1],
    "skipped": [False, True],
}
HISTORY: list[tuple[str, str, dict[str, Any]]] = [
    ("1-1", "status", {"status": "running", "attempt": 1, "reason": None}),
    ("1-2", "metrics", METRICS),
    ("1-3", "log", {"message": "a line\u2028and \u00e9\r\n", "level": "info"}),
    ("1-4", "checkpoint", {"step": 2}),
    ("2-1", "resumed", {"from_step": 2}),
    ("2-2", "weather", {"sun": True}),
    ("2-10", "done", {"status": "succeeded", "reason": None, "optimizer": "opt_1"}),
]


def block(id_: str | None, kind: str, data: dict[str, Any]) -> bytes:
    opening = "" if id_ is None else f"id: {id_}\n"
    return f"{opening}event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def place(id_: str) -> tuple[int, ...]:
    return tuple(int(part) for part in id_.split("-"))


class BreakingServer:
    """Replays HISTORY as the API does, and cuts each connection after the next number of bytes in `cuts`."""

    def __init__(self) -> None:
        self.cuts: list[int] = []
        self.seen: list[str | None] = []
        self.repeat = 0
        self.app = FastAPI()
        self.url = ""

        @self.app.get("/jobs/{job}/events")
        def events(job: str, request: Request) -> Response:
            if job != "job_1":
                return JSONResponse(problem_json(404, "job_not_found"), 404)
            last = request.headers.get("last-event-id")
            self.seen.append(last)
            after = place(last) if last else (0, 0)
            if after >= (2, 10):
                return Response(status_code=204)
            entries = [entry for entry in HISTORY if place(entry[0]) > after]
            if self.repeat:
                entries = [entry for entry in HISTORY if place(entry[0]) <= after][-self.repeat :] + entries
            body = b"retry: 1\n\n" + block(None, "status", {"status": "running", "attempt": 1, "reason": None})
            body += b": heartbeat\n\n" + b"".join(block(*entry) for entry in entries)
            body = body[: self.cuts.pop(0)] if self.cuts else body
            return StreamingResponse(
                iter([body[position : position + 7] for position in range(0, len(body), 7)]),
                media_type="text/event-stream",
            )


@pytest.fixture(scope="module")
def running() -> Iterator[BreakingServer]:
    made = BreakingServer()
    with serving_app(made.app) as url:
        made.url = url
        yield made


@pytest.fixture
def server(running: BreakingServer) -> BreakingServer:
    running.cuts, running.seen, running.repeat = [], [], 0
    return running


@pytest.fixture
def client(server: BreakingServer, made: Made) -> Iterator[gradsmith.Client]:
    with made(server.url) as client:
        yield client


@pytest.fixture(autouse=True)
def _quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)


def test_every_event_comes_typed_once_and_in_order(client: gradsmith.Client, server: BreakingServer) -> None:
    opening, *events = client.jobs.stream("job_1")
    assert isinstance(opening, StatusEvent)
    assert opening.id is None
    kinds = [StatusEvent, MetricsEvent, LogEvent, CheckpointEvent, ResumedEvent, Event, DoneEvent]
    assert [type(event) for event in events] == kinds
    assert [event.id for event in events] == [id_ for id_, _, _ in HISTORY]
    assert [event.data for event in events] == [data for _, _, data in HISTORY]
    metrics, log, done = events[1], events[2], events[-1]
    assert isinstance(metrics, MetricsEvent)
    assert metrics.loss[0] == 3.0
    assert math.isnan(metrics.loss[1])
    assert metrics.validation == (None, 0.5)
    assert (metrics.learning_rate, metrics.skipped) == ((0.1, 0.1), (False, True))
    assert isinstance(log, LogEvent)
    assert log.message == "a line\u2028and \u00e9\r\n"
    assert isinstance(done, DoneEvent)
    assert done.optimizer == "opt_1"
    assert server.seen == [None]


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 900), max_size=8), repeat=st.integers(0, 2))
def test_however_the_connection_breaks_nothing_is_lost_or_doubled(
    running: BreakingServer, made: Made, cuts: list[int], repeat: int
) -> None:
    running.cuts, running.seen, running.repeat = list(cuts), [], repeat
    with made(running.url) as client:
        events = list(client.jobs.stream("job_1"))
    assert [event.id for event in events if event.id] == [id_ for id_, _, _ in HISTORY]
    assert len([event for event in events if event.id is None]) == 1  # the opening status, told once


def test_a_stream_goes_on_behind_an_event(client: gradsmith.Client, server: BreakingServer) -> None:
    events = [event.id for event in client.jobs.stream("job_1", after="1-4")]
    assert events == [None, "2-1", "2-2", "2-10"]
    assert list(client.jobs.stream("job_1", after="2-10")) == []  # 204: past the end
    assert server.seen == ["1-4", "2-10"]


def test_an_unknown_job_is_an_error_and_not_a_retry(client: gradsmith.Client) -> None:
    with pytest.raises(errors.NotFound, match="job_not_found"):
        next(client.jobs.stream("job_2"))


def mocked(made: Made, handler: Any) -> gradsmith.Client:
    return made(http_client=httpx.Client(transport=httpx.MockTransport(handler), base_url="http://server"))


def test_a_server_that_is_away_for_a_while_is_waited_for(made: Made) -> None:
    calls = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        if calls in {1, 3}:
            raise httpx.ConnectError("Connection refused", request=request)
        if calls == 2:
            return httpx.Response(503, json=problem_json(503, "store_unavailable"), headers={"Retry-After": "0"})
        return httpx.Response(200, content=block(*HISTORY[-1]), headers={"Content-Type": "text/event-stream"})

    assert [event.kind for event in mocked(made, handler).jobs.stream("job_1")] == ["done"]
    assert calls == 4


def test_a_server_that_stays_away_is_told_in_the_end(made: Made) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused", request=request)

    with pytest.raises(errors.ConnectionFailed, match="Connection refused") as caught:
        list(mocked(made, handler).jobs.stream("job_1"))
    assert caught.value.__suppress_context__  # its message says it; httpx's traceback would bury it


def test_a_server_that_only_closes_is_told_in_the_end(made: Made) -> None:
    calls = 0

    def handler(_request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        return httpx.Response(200, content=b"", headers={"Content-Type": "text/event-stream"})

    with pytest.raises(errors.ConnectionFailed, match="again and again"):
        list(mocked(made, handler).jobs.stream("job_1"))
    assert calls == retries.FAILURES_IN_A_ROW


@pytest.mark.parametrize(
    ("content", "media_type", "named"),
    [
        (b"<html>", "text/html", "not an event stream"),
        (b"id: 1-1\nevent: log\ndata: {oops\n\n", "text/event-stream", "no JSON"),
        (b"id: 1-1\nevent: log\ndata: [1]\n\n", "text/event-stream", "no JSON object"),
        (b"id: 1-1\nevent: checkpoint\ndata: {}\n\n", "text/event-stream", "without what it must have"),
    ],
)
def test_what_is_no_event_stream_is_named(made: Made, content: bytes, media_type: str, named: str) -> None:
    client = mocked(made, lambda _request: httpx.Response(200, content=content, headers={"Content-Type": media_type}))
    with pytest.raises(errors.InvalidResponse, match=named):
        list(client.jobs.stream("job_1"))


@given(
    texts=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), max_size=5),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    data=st.data(),
)
def test_lines_do_not_depend_on_how_the_bytes_were_cut(texts: list[str], ending: str, data: st.DataObject) -> None:
    whole = "".join(text + ending for text in texts).encode() + b":\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    seen: list[str] = []

    class Lines(EventStream):
        def line(self, line: str) -> None:
            seen.append(line)

    stream = Lines()
    assert [message for chunk in chunks for message in stream.feed(chunk)] == []
    assert seen == [*texts, ":"]


def test_a_block_follows_the_standard() -> None:
    text = ["data", "", "data: a", "data:b", ": comment", "unknown: x", "id:1-1", "", "retry: 5", "", "data: unclosed"]
    stream = EventStream()
    messages = [message for line in text if (message := stream.line(line)) is not None]
    found = [(message.id, message.data, message.retry_milliseconds) for message in messages]
    assert found == [(None, "", None), ("1-1", "a\nb", None), (None, "", 5)]


RETRIED: list[tuple[str, str, dict[str, Any]]] = [
    ("1-1", "status", {"status": "running", "attempt": 1, "reason": None}),
    ("1-2", "done", {"status": "failed", "reason": "it broke", "optimizer": None}),
    ("2-1", "status", {"status": "queued", "attempt": 2, "reason": "retried"}),
    ("2-2", "log", {"message": "again", "level": "info"}),
    ("2-3", "done", {"status": "succeeded", "reason": None, "optimizer": "opt_1"}),
]


@pytest.mark.parametrize("held", [5, 2, 4])
def test_the_end_of_an_attempt_before_a_retry_ends_no_stream(made: Made, held: int) -> None:
    """held: so many events has the first connection, before it breaks"""
    connections = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal connections
        connections += 1
        last = request.headers.get("last-event-id")
        entries = [entry for entry in RETRIED if last is None or place(entry[0]) > place(last)]
        told = entries[:held] if connections == 1 else entries
        opening = block(None, "status", {"status": "running", "attempt": 2, "reason": "retried"})
        body = b"retry: 1\n\n" + opening + b"".join(block(*entry) for entry in told)
        return httpx.Response(200, content=body, headers={"Content-Type": "text/event-stream"})

    events = list(mocked(made, handler).jobs.stream("job_1"))
    assert [event.id for event in events if event.id] == [id_ for id_, _, _ in RETRIED]
    assert connections == (1 if held == len(RETRIED) else 2)


def test_an_attempt_that_starts_while_its_job_is_followed_is_told_to_its_end(made: Made) -> None:
    """A worker was lost: the job goes on as its second attempt, and the opening status knew only the first."""

    def handler(_request: httpx.Request) -> httpx.Response:
        opening = block(None, "status", {"status": "running", "attempt": 1, "reason": None})
        body = opening + b"".join(block(*entry) for entry in HISTORY)
        return httpx.Response(200, content=body, headers={"Content-Type": "text/event-stream"})

    assert [event.id for event in mocked(made, handler).jobs.stream("job_1")][1:] == [id_ for id_, _, _ in HISTORY]


@pytest.mark.parametrize("retried_late", [False, True])
def test_commands_follow_a_retried_job_to_its_end(retried_late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """retried_late: only when the stream of the first attempt had ended, so that its opening knew of no other"""
    monkeypatch.setattr(live, "_SECONDS_BETWEEN_LOOKS", 0.01)
    job = "job_" + "1" * 32
    app, opened = FastAPI(), 0

    @app.get("/jobs/{job}")
    def get(job: str) -> dict[str, Any]:
        going_on = opened < (2 if retried_late else 1)
        return job_json(id=job, status="running" if going_on else "succeeded", attempt=2)

    @app.get("/jobs/{job}/events")
    def events(request: Request) -> Response:
        nonlocal opened
        opened += 1
        after = request.headers.get("last-event-id") or request.query_params.get("after")
        behind = [entry for entry in RETRIED if not after or place(entry[0]) > place(after)]
        first_only = retried_late and opened == 1
        opening = block(None, "status", {"status": "running", "attempt": 1 if first_only else 2, "reason": None})
        told = behind[:2] if first_only else behind
        return Response(opening + b"".join(block(*entry) for entry in told), media_type="text/event-stream")

    with serving_app(app) as url:
        environment = {"GRADSMITH_URL": url}
        watched = CliRunner().invoke(program, ["jobs", "watch", job, "--json"], env=environment)
        assert (watched.exit_code, json.loads(watched.stdout)["status"]) == (0, "succeeded"), watched.output
        assert opened == (2 if retried_late else 1)
        assert "again" in watched.stderr
        logs = CliRunner().invoke(program, ["jobs", "logs", job], env=environment)
        assert [line.split()[0] for line in logs.stdout.splitlines()] == [id_ for id_, _, _ in RETRIED]
