"""Servers that break what they promise: cut answers, wrong lengths, wrong encodings, newer versions. Both clients get
the right answer or raise one of our errors, and never anything else."""

from __future__ import annotations

import gzip
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gradsmith
from gradsmith import errors, retries
from gradsmith.events import DoneEvent, Event
from tests.sdk.blocking import Made
from tests.sdk.records import job_json, problem_json


class Scripted(socketserver.ThreadingTCPServer):
    """Sends the next of `answers` to each request, byte for byte, and closes; the last one for ever."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.answers: list[bytes] = []
        self.requests: list[bytes] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answering(socketserver.BaseRequestHandler):
    server: Scripted

    def handle(self) -> None:
        self.request.settimeout(10)
        received = b""
        while b"\r\n\r\n" not in received:
            part = self.request.recv(65536)
            if not part:
                return
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:"), 0
        )
        while len(body) < length:
            body += self.request.recv(65536)
        with self.server.lock:
            self.server.requests.append(head)
            answer = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        self.request.sendall(answer)
        self.request.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def running() -> Iterator[Scripted]:
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@pytest.fixture
def server(running: Scripted) -> Scripted:
    running.answers, running.requests = [], []
    return running


@pytest.fixture
def client(server: Scripted, made: Made) -> Iterator[gradsmith.Client]:
    with made(server.url) as client:
        yield client


@pytest.fixture(autouse=True)
def _quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.0005)


def answer(content: Any, status: str = "200 OK", *headers: str, length: int | str | None = None) -> bytes:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    said = len(body) if length is None else length
    usual = (f"HTTP/1.1 {status}", f"Content-Length: {said}", "Content-Type: application/json", "Connection: close")
    head = (*usual, *headers, "", "")  # closed, and said so: the client asks on another connection
    return "\r\n".join(head).encode() + body


GOOD = answer(job_json())
BUSY = answer(problem_json(429, "rate_limited"), "429 Too Many Requests", "Retry-After: 0")
AWAY = answer(problem_json(503, "store_unavailable"), "503 Service Unavailable", "Retry-After: 0")


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(BUSY, id="429"),
        pytest.param(AWAY, id="503"),
        pytest.param(b"", id="nothing"),
        pytest.param(GOOD[:9], id="cut in the status"),
        pytest.param(GOOD[:40], id="cut in the headers"),
        pytest.param(GOOD[:-20], id="cut in the body"),
        pytest.param(answer(job_json(), length=10_000), id="a length that is too long"),
        pytest.param(answer(job_json(), length="ten"), id="a length that is no number"),
        pytest.param(answer(job_json(), length=-1), id="a length below 0"),
        pytest.param(answer(b"5\r\nab", "200 OK", "Transfer-Encoding: chunked", length=2), id="two lengths"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000, id="a header without an end"),
    ],
)
def test_what_breaks_twice_is_asked_a_third_time_with_the_same_key(
    client: gradsmith.Client, server: Scripted, bad: bytes
) -> None:
    server.answers = [bad, bad, GOOD]
    assert client.jobs.create(family="quadratic").id == "job_1"
    keys = {line for head in server.requests for line in head.split(b"\r\n") if line.lower().startswith(b"idempotency")}
    assert (len(server.requests), len(keys)) == (3, 1)
    server.answers, server.requests = [bad], []
    with pytest.raises(errors.ServiceError) as caught:
        client.with_options(max_retries=2).jobs.get("job_1")
    assert len(server.requests) == 3
    expected = {BUSY: errors.RateLimited, AWAY: errors.ServerError}.get(bad, errors.ConnectionFailed)
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(answer(job_json(), length=30), id="a length that is too short"),
        pytest.param(answer(job_json(), "200 OK", "Content-Encoding: gzip"), id="gzip that is none"),
        pytest.param(answer(gzip.compress(b"{}")[:-9], "200 OK", "Content-Encoding: gzip"), id="gzip that is cut"),
        pytest.param(answer(b"\xff\xfe\x00"), id="no text"),
        pytest.param(answer([]), id="a list"),
        pytest.param(answer({"id": "job_1"}), id="half of a job"),
        pytest.param(answer(job_json(created_at="yesterday")), id="a moment that is none"),
        pytest.param(answer(job_json(progress=3)), id="progress that is a number"),
        pytest.param(answer(b""), id="an empty body"),
    ],
)
def test_an_answer_that_is_whole_and_wrong_is_told_at_once(
    client: gradsmith.Client, server: Scripted, wrong: bytes
) -> None:
    server.answers = [wrong]
    with pytest.raises(errors.InvalidResponse, match="is a Gradsmith server there"):
        client.jobs.get("job_1")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "content"),
    [
        ("302 Found", b""),
        ("404 Not Found", b"<html>"),
        ("422 Unprocessable", json.dumps(problem_json(422, "new_code", errors={"a": 1}, progress=[])).encode()),
        ("409 Conflict", json.dumps(problem_json(409, "not_ready", progress={"step": 1, "unit": "parts"})).encode()),
        ("460 Of a later version", b"[]"),
        ("400 Bad Request", b"\xff" * 10),
    ],
)
def test_a_refusal_in_any_form_is_a_response_error(
    client: gradsmith.Client, server: Scripted, status: str, content: bytes
) -> None:
    server.answers = [answer(content, status)]
    with pytest.raises(errors.ResponseError) as caught:
        client.jobs.get("job_1")
    assert caught.value.status == int(status[:3])
    assert str(caught.value)


def test_wherever_an_answer_is_cut_it_is_the_job_or_one_of_our_errors(
    client: gradsmith.Client, server: Scripted
) -> None:
    once = client.with_options(max_retries=0)
    for length in range(0, len(GOOD), 11):
        server.answers = [GOOD[:length]]
        with pytest.raises(errors.ConnectionFailed):
            once.jobs.get("job_1")
    server.answers = [GOOD]
    assert once.jobs.get("job_1").id == "job_1"


def test_weights_with_a_wrong_length_are_not_written(
    client: gradsmith.Client, server: Scripted, tmp_path: Path
) -> None:
    tag = 'ETag: "sha256:' + "0" * 64 + '"'
    for lie, kind in ((20, errors.IntegrityFailed), (2000, errors.ConnectionFailed)):
        server.answers = [answer(b"w" * 100, "200 OK", tag, length=lie)]
        with pytest.raises(kind):
            client.optimizers.pull("quadratic@1", tmp_path / "rule.safetensors")
    assert list(tmp_path.iterdir()) == []


def event(number: int, kind: str = "log", **data: Any) -> str:
    return f"id: 1-{number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"


def stream(text: str, cut: int | None = None) -> bytes:
    body = text.encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return (head + body)[:cut]


def test_a_stream_that_is_cut_in_headers_and_bodies_goes_on_where_it_was(
    client: gradsmith.Client, server: Scripted
) -> None:
    lines = [event(number, message=f"line {number}", level="info") for number in range(1, 5)]
    end = event(5, "done", status="succeeded")
    first = "".join(lines[:2])
    server.answers = [
        stream(first, 30), BUSY, stream(first + lines[2], -len(lines[2]) // 2), AWAY, b"",
        stream("".join(lines[1:]), -3), stream(lines[3] + end),
    ]  # fmt: skip
    assert [said.id for said in client.jobs.stream("job_1")] == [f"1-{number}" for number in range(1, 6)]
    asked = [line for head in server.requests for line in head.lower().split(b"\r\n") if line.startswith(b"last-event")]
    assert asked == [b"last-event-id: 1-2"] * 3 + [b"last-event-id: 1-3"]


def test_a_server_that_is_a_version_newer_is_understood(client: gradsmith.Client, server: Scripted) -> None:
    newer = job_json(
        kind="distil", status="hibernating", progress={"step": 1, "total": 2, "eta_seconds": None, "unit": "rounds"},
        spec={"version": 9}, owner={"team": 1}, tags=None, metadata=None,
    )  # fmt: skip
    server.answers = [answer(newer)]
    job = client.jobs.get("job_1")
    assert (job.kind, job.status, job.finished, job.metadata, job.raw["owner"]) == (
        "distil", "hibernating", False, {}, {"team": 1},
    )  # fmt: skip
    server.answers = [answer({"data": [newer, job_json()], "has_more": False, "next": None, "total": 2})]
    assert [each.kind for each in client.jobs.list()] == ["distil", "meta_train"]
    metrics = {"step": [1], "loss": [0.5], "entropy": [1.5], "gradient_norm": [None]}
    text = 'id: 1-1\nevent: dream\ndata: {"deep": [1]}\nnew-field: 3\n\n' + event(2, "metrics", **metrics)
    server.answers = [stream(text + event(3, "done", status="hibernated", optimizer=None, more=1))]
    dream, points, done = client.jobs.stream("job_1")
    assert (type(dream), dream.kind, dream.data) == (Event, "dream", {"deep": [1]})
    assert points.data["entropy"] == [1.5]
    assert isinstance(done, DoneEvent)
    assert done.status == "hibernated"
