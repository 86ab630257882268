"""Clients that send too slowly, too much or no HTTP at all: each is answered in time, and costs the others nothing."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.http.problems import CATALOGUE
from app.settings import Settings
from workshop.serving import serving

SECONDS = 0.4
POST = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def hasty_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that waits for nobody; it has no tables, which these requests never come to need."""
    folder = tmp_path_factory.mktemp("hasty")
    hasty = Settings(data_dir=folder, database_url=None, body_timeout_seconds=SECONDS, head_timeout_seconds=SECONDS)
    with serving(hasty) as url:
        yield url


@contextlib.contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as raw:
        yield raw


def dribble(raw: socket.socket, content: bytes, pause_seconds: float = 0.05) -> float:
    """Send a byte at a time until the other side has something to say; the seconds that took."""
    start = time.monotonic()
    raw.settimeout(pause_seconds)
    for byte in content:
        with contextlib.suppress(ConnectionError):
            raw.sendall(bytes([byte]))
        with contextlib.suppress(TimeoutError):
            raw.recv(1, socket.MSG_PEEK)
            break
    raw.settimeout(5)
    return time.monotonic() - start


def everything(raw: socket.socket) -> bytes:
    """What comes until the other side closes, which it must do within five seconds."""
    found = b""
    with contextlib.suppress(ConnectionResetError):  # it closed while we were still sending
        while chunk := raw.recv(65_536):
            found += chunk
    return found


def problem_of(answer: bytes, code: str) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0].startswith(f"http/1.1 {CATALOGUE[code].status} ")
    assert "content-type: application/problem+json" in lines
    assert "connection: close" in lines
    problem: dict[str, Any] = json.loads(body)
    assert (problem["code"], problem["title"]) == (code, CATALOGUE[code].title)
    assert f"x-request-id: {problem['request_id']}" in lines
    return problem


@pytest.mark.parametrize("framing", [b"Content-Length: 500\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nff\r\n"])
def test_a_body_that_dribbles_is_cut_off(hasty_url: str, framing: bytes) -> None:
    with connected(hasty_url) as raw:
        raw.sendall(POST + framing)
        seconds = dribble(raw, b'{"kind": "meta_train"' + b" " * 200)
        problem = problem_of(everything(raw), "too_slow")
    assert SECONDS * 0.9 < seconds < SECONDS + 3
    assert problem["timeout_seconds"] == SECONDS


def test_a_body_that_never_comes_is_cut_off(hasty_url: str) -> None:
    with connected(hasty_url) as raw:
        raw.sendall(POST + b"Content-Length: 500\r\nExpect: 100-continue\r\n\r\n")
        interim, _, answer = everything(raw).partition(b"\r\n\r\n")
    assert interim == b"HTTP/1.1 100 Continue"
    assert problem_of(answer, "too_slow")["detail"].startswith("0 bytes of the body came within 0.4 seconds")


def test_a_body_that_takes_its_time_but_not_too_much_is_read(hasty_url: str) -> None:
    with connected(hasty_url) as raw:
        raw.sendall(POST + b"Connection: close\r\nContent-Length: 2\r\n\r\n{")
        time.sleep(SECONDS / 2)
        raw.sendall(b"}")
        assert everything(raw).startswith(b"HTTP/1.1 422 ")


def test_requests_sent_ahead_are_answered_in_order(hasty_url: str) -> None:
    """Also when the body of the last comes later, within its time."""
    with connected(hasty_url) as raw:
        ahead = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2
        raw.sendall(ahead + POST + b"Connection: close\r\nContent-Length: 2\r\n\r\n{")
        time.sleep(SECONDS / 2)
        raw.sendall(b"}")
        statuses = [line for line in everything(raw).split(b"\r\n") if b"HTTP/1.1 " in line]
    assert [status.rpartition(b"HTTP/1.1 ")[2][:3] for status in statuses] == [b"200", b"200", b"422"]


def test_headers_that_dribble_are_cut_off(hasty_url: str) -> None:
    with connected(hasty_url) as raw:
        seconds = dribble(raw, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X-Slow: 1\r\n" * 20)
        problem_of(everything(raw), "too_slow")
    assert SECONDS * 0.9 < seconds < SECONDS + 3


def assert_well(raw: socket.socket) -> None:
    """Reads one whole answer of /healthz, whose headers and body may come apart."""
    answer = b""
    while not answer.endswith(b"}}"):
        answer += raw.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_second_request_has_the_same_time_for_its_headers(hasty_url: str) -> None:
    with connected(hasty_url) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert_well(raw)
        dribble(raw, b"GET /healthz HTTP/1.1\r\n" + b"X-Slow: 1\r\n" * 20)
        problem_of(everything(raw), "too_slow")


def test_a_connection_that_asks_nothing_is_closed(hasty_url: str) -> None:
    with connected(hasty_url) as raw:
        assert everything(raw) == b""


def test_the_rest_of_a_body_that_nobody_read_does_not_hold_the_connection(hasty_url: str) -> None:
    with connected(hasty_url) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n")
        assert_well(raw)
        seconds = dribble(raw, b"x" * 200)
        assert everything(raw) == b""
    assert seconds < SECONDS + 3


@pytest.mark.parametrize("head", [b"GET /healthz HTTP/1.1\r\n" + b"X-Long: y\r\n" * 7000, b"GET /" + b"a" * 70_000])
def test_a_head_without_end_is_refused(hasty_url: str, head: bytes) -> None:
    with connected(hasty_url) as raw, contextlib.suppress(ConnectionError):
        raw.sendall(head)
        problem_of(everything(raw), "headers_too_large")


@pytest.mark.parametrize(
    "request_bytes",
    [b"\x16\x03\x01\x02\x00 hello TLS\r\n\r\n", b"nonsense\r\n\r\n", b"GET /caf\xc3\xa9 HTTP/1.1\r\n\r\n"],
)
def test_what_is_no_http_is_a_problem_too(hasty_url: str, request_bytes: bytes) -> None:
    with connected(hasty_url) as raw:
        raw.sendall(request_bytes)
        problem_of(everything(raw), "invalid_http")


def test_an_answer_that_streams_outlasts_both_limits(settings: Settings) -> None:
    """Also one whose client sent a body with its GET, and stopped half-way."""
    hasty = settings.model_copy(update={"body_timeout_seconds": SECONDS, "head_timeout_seconds": SECONDS})
    with serving(hasty) as url, httpx.Client(base_url=url) as api:
        job = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic"}).json()["id"]
        head = f"GET /jobs/{job}/events HTTP/1.1\r\nHost: localhost\r\n".encode()
        with connected(url) as plain, connected(url) as with_body:
            plain.sendall(head + b"\r\n")
            with_body.sendall(head + b"Content-Length: 10\r\n\r\nhalf")
            time.sleep(SECONDS * 2)
            api.post(f"/jobs/{job}/cancel")
            for raw in (plain, with_body):
                found = b""
                while b"event: done" not in found:
                    chunk = raw.recv(65_536)
                    assert chunk, found
                    found += chunk
