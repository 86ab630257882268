"""The client over a real HTTP server; httpx.MockTransport only where the network itself must fail."""

from __future__ import annotations

import hashlib
import json
import math
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

import gradsmith
from gradsmith import errors, retries
from gradsmith.calls import optimizers
from tests.sdk.blocking import Made
from tests.sdk.records import job_json, problem_json
from workshop.serving import serving_app


@pytest.fixture(autouse=True)
def _quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)


class Server:
    """Answers every request with what `answer` returns, and remembers them."""

    def __init__(self) -> None:
        self.requests: list[tuple[Request, bytes]] = []
        self.answer: Callable[[Request, int], Response] = lambda _request, _number: JSONResponse(job_json())
        self.app = FastAPI()
        self.url = ""

        @self.app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
        async def any_path(request: Request) -> Response:
            self.requests.append((request, await request.body()))
            return self.answer(request, len(self.requests))

    def replies(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.answer = lambda _request, _number: JSONResponse(content, status, headers)


@pytest.fixture
def server(running: Server) -> Server:
    running.requests.clear()
    running.replies(job_json())
    return running


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    made = Server()
    with serving_app(made.app) as url:
        made.url = url
        yield made


@pytest.fixture
def client(server: Server, made: Made) -> Iterator[gradsmith.Client]:
    with made(server.url) as client:
        yield client


# --- aliases ------------------------------------------------------------------------------------------------------


ALIAS = {
    "family": "quadratic", "alias": "prod", "reference": "quadratic@prod", "optimizer": "opt_1", "version": 3,
    "created_at": None, "updated_at": None, "etag": '"1-ab"',
}  # fmt: skip


def test_a_change_of_an_alias_says_what_was_seen(client: gradsmith.Client, server: Server) -> None:
    server.replies(ALIAS)
    alias = client.aliases.create("quadratic", "prod", "quadratic@3")
    client.aliases.move(alias, "opt_2")
    client.aliases.delete(alias)
    seen = [(request.method, request.headers.get("if-match"), body) for request, body in server.requests]
    assert seen == [
        ("PUT", None, b'{"optimizer": "quadratic@3"}'), ("PUT", '"1-ab"', b'{"optimizer": "opt_2"}'),
        ("DELETE", '"1-ab"', b""),
    ]  # fmt: skip
    assert server.requests[0][0].headers["if-none-match"] == "*"
    assert {request.url.path for request, _ in server.requests} == {"/families/quadratic/aliases/prod"}


def test_a_change_that_may_have_been_made_is_not_sent_again(client: gradsmith.Client, server: Server) -> None:
    """Its second try would meet its own first, and be told that somebody else was faster."""
    alias = gradsmith.types.Alias.from_json(ALIAS)
    server.replies(problem_json(503, "store_unavailable"), 503)
    for change in (lambda: client.aliases.move(alias, "opt_2"), lambda: client.aliases.delete(alias)):
        server.requests.clear()
        with pytest.raises(errors.ServerError):
            change()
        assert len(server.requests) == 1


def test_what_lasts_until_an_operator_acts_is_not_asked_again(client: gradsmith.Client, server: Server) -> None:
    server.replies(problem_json(500, "damaged_data"), 500)
    with pytest.raises(errors.ServerError, match="damaged_data"):
        client.optimizers.get("quadratic@best")
    assert len(server.requests) == 1


# --- jobs ---------------------------------------------------------------------------------------------------------


def test_create_sends_what_was_given_and_nothing_else(client: gradsmith.Client, server: Server) -> None:
    server.replies(job_json(status="queued", queue_position=0), 202)
    job = client.jobs.create(family="quadratic", recipe={"meta_steps": 5}, evaluate=False, seed=0)
    request, body = server.requests[0]
    assert (request.method, request.url.path) == ("POST", "/jobs")
    expected = {"kind": "meta_train", "family": "quadratic", "recipe": {"meta_steps": 5}, "evaluate": False, "seed": 0}
    assert json.loads(body) == expected
    assert request.headers["content-type"] == "application/json"
    assert len(request.headers["idempotency-key"]) == 36
    assert (job.id, job.status, job.queue_position, job.finished) == ("job_1", "queued", 0, False)
    assert job.created_at == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert job.progress == gradsmith.types.Progress(3, 10, 1.5)


def test_two_creates_have_keys_of_their_own_and_a_given_key_is_kept(client: gradsmith.Client, server: Server) -> None:
    for key in (None, None, "mine"):
        client.jobs.create(family="quadratic", idempotency_key=key)
    first, second, third = (request.headers["idempotency-key"] for request, _ in server.requests)
    assert first != second
    assert third == "mine"


def test_a_newer_server_s_fields_are_kept_in_raw(client: gradsmith.Client, server: Server) -> None:
    server.replies(job_json(colour="blue"))
    assert client.jobs.get("job_1").raw["colour"] == "blue"


def test_list_passes_filters_and_pages(client: gradsmith.Client, server: Server) -> None:
    server.replies({"data": [job_json(), job_json(id="job_0")], "has_more": True, "next": "c2"})
    page = client.jobs.list(status="running", metadata={"team": "a"}, limit=2)
    assert [job.id for job in page.data] == ["job_1", "job_0"]
    assert (page.has_more, page.next) == (True, "c2")
    client.jobs.list(after=page.next)
    first, second = (dict(request.query_params) for request, _ in server.requests)
    assert first == {"status": "running", "metadata.team": "a", "limit": "2"}
    assert second == {"limit": "20", "after": "c2"}


def test_wait_returns_when_the_job_has_succeeded(client: gradsmith.Client, server: Server) -> None:
    server.answer = lambda _request, number: JSONResponse(job_json(status="succeeded" if number > 2 else "running"))
    assert client.jobs.wait("job_1", poll_seconds=0.01).status == "succeeded"
    assert len(server.requests) == 3


def test_wait_warns_of_a_training_whose_result_no_automatic_alias_names(
    client: gradsmith.Client, server: Server
) -> None:
    server.replies(job_json(status="succeeded", status_reason="worse_than_standing_still: 9 and 4"))
    with pytest.warns(UserWarning, match="job_1 succeeded, but worse_than_standing_still: 9 and 4"):
        assert client.jobs.wait("job_1").status == "succeeded"


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_wait_raises_for_a_job_that_did_not_succeed(client: gradsmith.Client, server: Server, status: str) -> None:
    server.replies(job_json(status=status, status_reason="worker_lost: three workers died"))
    with pytest.raises(errors.JobFailed, match=rf"job_1 ended as {status}: worker_lost") as caught:
        client.jobs.wait("job_1")
    assert caught.value.job.status == status


def test_wait_gives_up_in_time_and_says_how_far_the_job_is(client: gradsmith.Client) -> None:
    with pytest.raises(errors.WaitTimeout, match=r"still running after 0.05 s \(step 3 of 10\)") as caught:
        client.jobs.wait("job_1", timeout_seconds=0.05, poll_seconds=0.02)
    assert isinstance(caught.value, TimeoutError)


def test_wait_is_as_patient_as_stream(client: gradsmith.Client, server: Server) -> None:
    """More failures than one request forgives: a server that restarts, and one whose database is not there yet."""
    away = JSONResponse(problem_json(503, "store_unavailable"), 503)
    states = {1: "running", 9: "running", 18: "succeeded"}
    server.answer = lambda _request, number: JSONResponse(job_json(status=states[number])) if number in states else away
    assert client.jobs.wait("job_1", poll_seconds=0.001).status == "succeeded"
    assert len(server.requests) == 18


def test_wait_goes_on_when_the_server_comes_back(made: Made) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:  # nobody listens there until the server is back
        port = free.getsockname()[1]
    refused: list[float] = []

    def refuse_or_answer(_request: httpx.Request) -> httpx.Response:
        if len(refused) < retries.FAILURES_IN_A_ROW - 1:
            refused.append(0.0)
            httpx.get(f"http://127.0.0.1:{port}", trust_env=False)  # raises ConnectError
        return httpx.Response(200, json=job_json(status="succeeded"))

    client = made("http://x", http_client=httpx.Client(transport=httpx.MockTransport(refuse_or_answer)))
    assert client.jobs.wait("job_1").status == "succeeded"
    assert len(refused) == retries.FAILURES_IN_A_ROW - 1


def test_wait_tells_of_a_server_that_stays_away_and_of_one_that_refuses(
    client: gradsmith.Client, server: Server
) -> None:
    server.replies(problem_json(503, "store_unavailable"), 503)
    with pytest.raises(errors.ServerError, match="store_unavailable"):
        client.jobs.wait("job_1")
    assert len(server.requests) == retries.FAILURES_IN_A_ROW
    server.requests.clear()
    server.replies(problem_json(404, "job_not_found"), 404)
    with pytest.raises(errors.NotFound):
        client.jobs.wait("job_1")
    assert len(server.requests) == 1


def test_the_time_of_wait_ends_it_while_the_server_is_away(client: gradsmith.Client, server: Server) -> None:
    away = JSONResponse(problem_json(503, "store_unavailable"), 503, {"Retry-After": "20"})
    server.answer = lambda _request, number: JSONResponse(job_json()) if number == 1 else away
    began = time.monotonic()
    with pytest.raises(errors.WaitTimeout, match=r"was running after 0.1 s .*does not answer now.*cancel"):
        client.jobs.wait("job_1", timeout_seconds=0.1, poll_seconds=0.01)
    assert time.monotonic() - began < 5
    server.answer = lambda _request, _number: away
    with pytest.raises(errors.ServerError):  # nothing was seen of the job, so there is nothing to tell of it
        client.jobs.wait("job_1", timeout_seconds=0.05)


def test_cancel_posts(client: gradsmith.Client, server: Server) -> None:
    server.replies(job_json(status="cancelling"), 202)
    assert client.jobs.cancel(gradsmith.types.Job.from_json(job_json())).status == "cancelling"
    request, _ = server.requests[0]
    assert (request.method, request.url.path) == ("POST", "/jobs/job_1/cancel")


def test_a_curve_has_its_non_finite_points_back(client: gradsmith.Client, server: Server) -> None:
    server.replies(
        {
            "job": "job_1",
            "attempt": 1,
            "status": "running",
            "total_points": 9,
            "step": [1, 2, 3],
            "loss": [0.5, None, None],
            "gradient_norm": [1.0, 2.0, 3.0],
            "validation": [None, 0.25, None],
            "learning_rate": [None, 0.1, 0.1],
            "skipped": [False, True, True],
            "non_finite": [
                {"index": 1, "column": "loss", "value": "nan"},
                {"index": 2, "column": "loss", "value": "-inf"},
            ],
        }
    )
    curve = client.jobs.curve("job_1", max_points=3)
    assert math.isnan(curve.loss[1])
    assert (curve.loss[0], curve.loss[2]) == (0.5, -math.inf)
    assert (curve.step, curve.validation, curve.total_points) == ((1, 2, 3), (None, 0.25, None), 9)
    assert (curve.learning_rate, curve.skipped) == ((None, 0.1, 0.1), (False, True, True))
    assert dict(server.requests[0][0].query_params) == {"max_points": "3", "method": "minmax"}


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "bad_cursor", errors.InvalidRequest),
        (401, "unauthorized", errors.Unauthorized),
        (403, "insufficient_scope", errors.Forbidden),
        (404, "job_not_found", errors.NotFound),
        (409, "job_finished", errors.Conflict),
        (409, "not_ready", errors.NotReady),
        (413, "body_too_large", errors.InvalidRequest),
        (418, "teapot", errors.ResponseError),
        (422, "unknown_family", errors.InvalidRequest),
    ],
)
def test_each_status_has_its_error(
    client: gradsmith.Client, server: Server, status: int, code: str, kind: type[errors.ResponseError]
) -> None:
    server.replies(problem_json(status, code), status)
    with pytest.raises(errors.ResponseError, match=f"what is wrong with {code}") as caught:
        client.jobs.get("job_1")
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, code, "req_7")
    assert len(server.requests) == 1  # none of these is worth a retry


def test_an_invalid_request_points_at_the_fields(client: gradsmith.Client, server: Server) -> None:
    entry = {"location": "body", "pointer": "/recipe/horizon", "code": "greater_than_equal", "message": "too small"}
    server.replies(problem_json(422, "invalid_request", errors=[entry]), 422)
    with pytest.raises(errors.InvalidRequest) as caught:
        client.jobs.create(family="quadratic", recipe={"horizon": math.nan})
    assert caught.value.errors == (
        gradsmith.types.FieldError("body", "/recipe/horizon", "greater_than_equal", "too small"),
    )


def test_not_ready_says_how_far_the_job_is(client: gradsmith.Client, server: Server) -> None:
    progress = {"step": 3, "total": 10, "eta_seconds": 1.5}
    server.replies(problem_json(409, "not_ready", progress=progress), 409)
    with pytest.raises(errors.NotReady) as caught:
        client.jobs.report("job_1")
    assert caught.value.progress == gradsmith.types.Progress(3, 10, 1.5)


def test_an_answer_of_another_server_is_named_as_such(client: gradsmith.Client, server: Server) -> None:
    server.replies({"hello": "world"})
    with pytest.raises(errors.InvalidResponse, match="is a Gradsmith server there"):
        client.jobs.get("job_1")
    server.answer = lambda _request, _number: Response("<html>nope</html>", 404, media_type="text/html")
    with pytest.raises(errors.NotFound, match="<html>nope"):
        client.jobs.get("job_1")


def test_a_malformed_id_stays_inside_its_path_segment(client: gradsmith.Client, server: Server) -> None:
    client.jobs.get("../families?x=1#y")
    assert server.requests[0][0].scope["raw_path"] == b"/jobs/..%2Ffamilies%3Fx%3D1%23y"


# --- retries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again_with_the_same_key(client: gradsmith.Client, server: Server, status: int) -> None:
    problem = JSONResponse(problem_json(status, "later"), status, {"Retry-After": "0"})
    server.answer = lambda _request, number: JSONResponse(job_json(), 202) if number == 3 else problem
    assert client.jobs.create(family="quadratic").id == "job_1"
    assert len(server.requests) == 3
    assert len({request.headers["idempotency-key"] for request, _ in server.requests}) == 1


def test_retries_end_and_the_last_error_is_told(client: gradsmith.Client, server: Server) -> None:
    server.replies(problem_json(503, "store_unavailable"), 503)
    with pytest.raises(errors.ServerError, match="store_unavailable"):
        client.jobs.get("job_1")
    assert len(server.requests) == retries.TRIES


def test_a_long_retry_after_is_told_and_not_slept(client: gradsmith.Client, server: Server) -> None:
    server.replies(problem_json(429, "rate_limited"), 429, {"Retry-After": "3600"})
    with pytest.raises(errors.RateLimited) as caught:
        client.jobs.get("job_1")
    assert caught.value.retry_after_seconds == 3600
    assert len(server.requests) == 1


def test_a_dropped_connection_is_tried_again(made: Made) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if len(seen) < 3:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
        return httpx.Response(202, json=job_json())

    http_client = httpx.Client(transport=httpx.MockTransport(handler), base_url="http://somewhere/gradsmith")
    client = made(http_client=http_client)
    assert client.jobs.create(family="quadratic").id == "job_1"
    assert {str(request.url) for request in seen} == {"http://somewhere/gradsmith/jobs"}
    assert len({request.headers["idempotency-key"] for request in seen}) == 1
    client.close()
    assert not http_client.is_closed  # it is the caller's


def test_no_server_is_an_error_that_says_how_to_start_one(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADSMITH_URL", "http://127.0.0.1:1")
    with (
        made() as client,
        pytest.raises(errors.ConnectionFailed, match=r"127.0.0.1:1.*\./run serve") as caught,
    ):
        client.families.list()
    shown = "".join(traceback.format_exception(caught.value))
    assert "Connection refused" in shown  # the reason, without the traceback of whoever met it first
    assert (shown.count("Traceback"), "httpcore" in shown) == (1, False)


def test_an_address_that_is_none_is_refused_at_once(made: Made) -> None:
    with pytest.raises(ValueError, match="localhost:8000"):
        made("localhost:8000")


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:80 80", "http://h:99999", "http://h:port", "http://[::1", "http://a\nb", "http://", "ftp://h",
     "http://h/x?y=1", "http://h#a", "//h"],
)  # fmt: skip
def test_an_address_in_the_environment_that_cannot_be_read_is_one_sentence(
    made: Made, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("GRADSMITH_URL", address)
    with pytest.raises(ValueError, match=r"the server's address.*GRADSMITH_URL") as caught:
        made()
    assert repr(address) in str(caught.value)


def test_blanks_and_line_breaks_around_an_address_do_no_harm(
    made: Made, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADSMITH_URL", f" {server.url}/\n")
    with made() as client:
        assert client.jobs.get("job_1").id == "job_1"


def test_the_key_comes_from_the_argument_or_the_environment(
    made: Made, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADSMITH_API_KEY", "gs_a_environment")
    with made(server.url) as client, made(server.url, "gs_b_argument") as other:
        client.jobs.get("job_1")
        other.jobs.get("job_1")
    sent = [request.headers["authorization"] for request, _ in server.requests]
    assert sent == ["Bearer gs_a_environment", "Bearer gs_b_argument"]


# --- optimizers and families --------------------------------------------------------------------------------------

WEIGHTS = bytes(range(256)) * 80
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def weights_answer(content: bytes = WEIGHTS, **headers: str) -> Response:
    return Response(
        content, headers={"ETag": f'"sha256:{SHA256}"', **headers}, media_type="application/vnd.safetensors"
    )


def test_pull_returns_the_checked_bytes(client: gradsmith.Client, server: Server) -> None:
    server.answer = lambda _request, _number: weights_answer()
    assert client.optimizers.pull("quadratic@best") == WEIGHTS
    request, _ = server.requests[0]
    assert request.scope["raw_path"] == b"/optimizers/quadratic@best/file"
    assert request.headers["accept"] == "application/vnd.safetensors"


def test_pull_writes_the_file_whole(client: gradsmith.Client, server: Server, tmp_path: Path) -> None:
    server.answer = lambda _request, _number: weights_answer()
    path = tmp_path / "rule.safetensors"
    path.write_bytes(b"older")
    assert client.optimizers.pull("quadratic@best", path) == path
    assert path.read_bytes() == WEIGHTS
    assert [entry.name for entry in tmp_path.iterdir()] == ["rule.safetensors"]
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode


def test_damaged_weights_never_reach_the_disk(client: gradsmith.Client, server: Server, tmp_path: Path) -> None:
    server.answer = lambda _request, _number: weights_answer(WEIGHTS[:-1] + b"!")
    path = tmp_path / "rule.safetensors"
    path.write_bytes(b"older")
    with pytest.raises(errors.IntegrityFailed, match="Pull again"):
        client.optimizers.pull("quadratic@best", path)
    assert path.read_bytes() == b"older"


def test_a_write_that_fails_leaves_nothing(
    client: gradsmith.Client, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = lambda _request, _number: weights_answer()

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(optimizers.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        client.optimizers.pull("quadratic@best", tmp_path / "rule.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_weights_without_a_hash_are_refused(client: gradsmith.Client, server: Server) -> None:
    server.answer = lambda _request, _number: weights_answer(ETag="")
    with pytest.raises(errors.InvalidResponse, match="no SHA-256"):
        client.optimizers.pull("quadratic@best")


def test_records_of_optimizers_and_families(client: gradsmith.Client, server: Server) -> None:
    record = {"id": "opt_1", "family": "quadratic", "version": 3, "aliases": ["best"], "sha256": SHA256, "new": 1}
    server.replies(record)
    optimizer = client.optimizers.get("quadratic@best")
    assert (optimizer.id, optimizer.reference, optimizer.aliases) == ("opt_1", "quadratic@3", ("best",))
    server.replies({"data": [record], "has_more": False, "next": None})
    assert [found.version for found in client.optimizers.list(family="quadratic")] == [3]
    family = {"name": "quadratic", "title": "Random quadratics", "description": "d", "recipe": {"meta_steps": 1000}}
    server.replies({"data": [family], "has_more": False, "next": None})
    assert [found.name for found in client.families.list()] == ["quadratic"]
    server.replies(family)
    assert client.families.get("quadratic").recipe["meta_steps"] == 1000


def test_a_client_may_be_used_by_several_threads(client: gradsmith.Client, server: Server) -> None:
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(client.jobs.get("job_1").id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["job_1"] * 8
    assert len(server.requests) == 8
