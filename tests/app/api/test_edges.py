"""What every request meets: problem documents, limits, request ids, and who may call at all."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app import auth
from app.http import problems
from app.http.negotiation import chosen
from app.http.problems import CATALOGUE, Problem, ProblemDocument
from app.main import create_app
from app.settings import Settings
from app.store.sessions import Database
from workshop.keyed import with_keys
from workshop.serving import serving

SMALLEST = {"kind": "meta_train", "family": "quadratic"}


def problem_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    ProblemDocument.model_validate(problem)
    kind = CATALOGUE[problem["code"]]
    assert (problem["status"], problem["title"]) == (answer.status_code, kind.title) == (kind.status, kind.title)
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    return problem


def test_an_unknown_path_and_an_unknown_method_are_problems_too(standing_api: httpx.Client) -> None:
    problem = problem_of(standing_api.get("/jbos"))
    assert (problem["code"], problem["instance"]) == ("not_found", "/jbos")
    answer = standing_api.delete("/jobs")
    assert problem_of(answer)["code"] == "method_not_allowed"
    assert answer.headers["Allow"] == "GET, HEAD, POST"
    assert standing_api.post("/healthz").headers["Allow"] == "GET, HEAD"
    assert standing_api.post("/openapi.json").headers["Allow"] == "GET, HEAD"
    assert problem_of(standing_api.get("/jobs/"))["code"] == "not_found"
    assert problem_of(standing_api.options("/jobs"))["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"kind=meta_train", "invalid_json"),
        (b"\xff\xfe\x00", "invalid_json"),
        (b"\x80abc", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b"", "invalid_request"),
        (b"null", "invalid_request"),
        (b"[]", "invalid_request"),
        (b'"meta_train"', "invalid_request"),
        (b"{}", "invalid_request"),
        (b"7", "invalid_request"),
    ],
)
def test_a_body_that_is_no_job(standing_api: httpx.Client, body: bytes, code: str) -> None:
    answer = standing_api.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert problem_of(answer)["code"] == code


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json"]
)
def test_only_json_is_taken(standing_api: httpx.Client, content_type: str) -> None:
    answer = standing_api.post("/jobs", content=b'{"kind": "meta_train"}', headers={"Content-Type": content_type})
    assert (answer.status_code, problem_of(answer)["code"]) == (415, "unsupported_media_type")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert standing_api.post(f"/jobs/job_{'0' * 32}/cancel", headers=form).status_code == 415


def test_json_may_say_its_charset(standing_api: httpx.Client) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert standing_api.post("/jobs", content=b"{}", headers=headers).status_code == 422


def test_a_body_over_the_limit_is_refused_with_and_without_its_length(standing_api: httpx.Client) -> None:
    big = b'{"kind": "' + b"x" * 1_000_000 + b'"}'
    headers = {"Content-Type": "application/json"}

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(big), 65_536):
            yield big[start : start + 65_536]

    for content in (big, chunks()):
        answer = standing_api.post("/jobs", content=content, headers=headers)
        assert (answer.status_code, problem_of(answer)["limit_bytes"]) == (413, 1_000_000)
    just_fits = b" " * (1_000_000 - 2) + b"{}"
    assert standing_api.post("/jobs", content=just_fits, headers=headers).status_code == 422


def test_a_body_whose_length_is_a_lie_is_refused_before_it_is_sent(standing_api: httpx.Client) -> None:
    address = urlsplit(str(standing_api.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
        raw.sendall(
            b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999999\r\n\r\n"
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_sane_request_id_is_kept_and_another_replaced(standing_api: httpx.Client) -> None:
    assert standing_api.get("/healthz", headers={"X-Request-Id": "mine-1.2:3"}).headers["X-Request-Id"] == "mine-1.2:3"
    made = {standing_api.get("/healthz").headers["X-Request-Id"] for _ in range(3)}
    assert len(made) == 3
    for bad in ("two words", "x" * 129, "<script>", "", "gs_" + "0" * 32 + "_" + "f" * 48):
        answer = standing_api.get("/nothing", headers={"X-Request-Id": bad})
        assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["X-Request-Id"])


def test_liveness_and_readiness(standing_api: httpx.Client) -> None:
    assert standing_api.get("/healthz").json() == {"status": "ok", "checks": {}}
    assert standing_api.get("/readyz").json() == {"status": "ok", "checks": {"database": "ok", "redis": "ok"}}


def test_without_its_tables_the_server_is_alive_and_not_ready(tmp_path: Path, redis_url: str) -> None:
    settings = Settings(data_dir=tmp_path / "empty", database_url=None, redis_url=redis_url)
    with serving(settings) as url, httpx.Client(base_url=url) as api:
        assert api.get("/healthz").status_code == 200
        for answer in (api.get("/readyz"), api.get("/jobs"), api.post("/jobs", json=SMALLEST)):
            problem = problem_of(answer)
            assert (answer.status_code, problem["code"]) == (503, "store_unavailable")
            assert "migrate" in problem["detail"]
            assert str(tmp_path) not in answer.text  # the log names the file
            assert answer.headers["Retry-After"] == "2"


def test_a_database_that_is_away_is_a_503_that_names_no_host(tmp_path: Path, redis_url: str) -> None:
    away = "postgresql://someone:secret@127.0.0.1:1/gradsmith"
    with serving(Settings(data_dir=tmp_path, database_url=away, redis_url=redis_url)) as url, httpx.Client() as api:
        assert api.get(f"{url}/healthz").status_code == 200
        for answer in (api.get(f"{url}/readyz"), api.get(f"{url}/jobs"), api.post(f"{url}/jobs", json=SMALLEST)):
            assert (answer.status_code, problem_of(answer)["code"]) == (503, "store_unavailable")
            assert "secret" not in answer.text
            assert "127.0.0.1" not in answer.text


def test_a_bug_is_a_500_that_tells_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret is 1234")

    monkeypatch.setattr("app.api.jobs.job_documents", broken)
    with serving(settings) as url, httpx.Client(base_url=url) as api:
        answer = api.get("/jobs")
    problem = problem_of(answer)
    assert (answer.status_code, problem["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert any(problem["request_id"] in record.getMessage() for record in caplog.records)


# --- who may call -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_a_server_for_others_without_keys_does_not_start(settings: Settings, host: str) -> None:
    others = settings.model_copy(update={"host": host})
    with Database(others.resolved_database_url) as database:
        with pytest.raises(auth.UnguardedAddress, match=r"keys create --scope admin.*GRADSMITH_AUTH=off"):
            auth.refuse_without_keys(others, database)
        auth.refuse_without_keys(others.model_copy(update={"auth": "off"}), database)
        auth.refuse_without_keys(settings, database)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
def test_loopback_needs_no_keys_unless_they_are_asked_for(tmp_path: Path, host: str) -> None:
    assert not auth.keys_required(Settings(data_dir=tmp_path, host=host))
    assert auth.keys_required(Settings(data_dir=tmp_path, host=host, auth="on"))


@pytest.mark.parametrize(
    ("address", "auth", "status"),
    [
        ("127.0.0.1", "auto", 200), ("127.3.2.1", "auto", 200), ("::1", "auto", 200),
        ("192.0.2.7", "auto", 403), ("2001:db8::7", "auto", 403), ("192.0.2.7", "off", 200),
    ],
)  # fmt: skip
def test_without_keys_a_connection_to_another_address_is_refused_whatever_the_host(
    tmp_path: Path, address: str, auth: Any, status: int
) -> None:
    """As when the program that serves us binds elsewhere than our settings say."""
    app = create_app(Settings(data_dir=tmp_path, auth=auth))

    async def bound_there(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "server": (address, 8000)}, receive, send)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(bound_there)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as api:
            return await api.get("/healthz")

    answer = asyncio.run(ask())
    assert answer.status_code == status
    if status != 200:
        assert problem_of(answer)["code"] == "keys_required"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("LOCALHOST", 200),
        ("evil.example", 421), ("localhost.evil.example", 421), ("127.0.0.1.evil.example:80", 421), ("", 421),
        ("localhost#", 400), ("localhost?", 400), ("[::1]x", 400), ("localhost:70000", 400),
        ("a@localhost", 400), ("localhost:port", 400), ("localhost/x", 400), ("api.internal:80", 421),
    ],
)  # fmt: skip
def test_only_known_hosts_are_answered(standing_api: httpx.Client, host: str, status: int) -> None:
    answer = standing_api.get("/healthz", headers={"Host": host})
    assert answer.status_code == status
    if status == 421:
        problem = problem_of(answer)
        assert problem["code"] == "host_not_allowed"
        assert f'the Host "{host}"' in problem["detail"]
        name = host.partition(":")[0]
        assert (f'add "{name}" to its setting GRADSMITH_ALLOWED_HOSTS' in problem["detail"]) == bool(name)
    elif status == 400:
        assert problem_of(answer)["detail"].startswith(f'The request has the Host "{host}", which is no host.')


@pytest.mark.parametrize("host", ["10.244.0.5:8000", "10.244.0.5", "[fd00::5]:8000", "203.0.113.7"])
def test_probes_by_an_address_are_answered_and_nothing_else_is(standing_api: httpx.Client, host: str) -> None:
    """As a kubelet asks: by the pod's address, which no setting can list beforehand."""
    for path in ("/healthz", "/readyz"):
        for method, status in (("GET", 200), ("HEAD", 200), ("POST", 421)):
            assert standing_api.request(method, path, headers={"Host": host}).status_code == status, (method, path)
        assert standing_api.get(path, headers={"Host": "evil.example"}).status_code == 421
    for path in ("/jobs", "/", "/metrics", "/docs", "/healthz/", "/readyz/x"):
        assert standing_api.get(path, headers={"Host": host}).status_code == 421, path


def answered_raw(url: str, head: str) -> tuple[int, dict[str, Any]]:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
        raw.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65_536), b""))
    headers, _, body = answer.partition(b"\r\n\r\n")
    status = int(headers.split()[1])
    if status >= 400:
        assert b"content-type: application/problem+json" in headers.lower()
    return status, json.loads(body)


def test_a_request_has_one_host_also_where_any_is_answered(settings: Settings) -> None:
    """RFC 9112, section 3.2. A server with keys answers to every name, but not to two at once."""
    with serving(with_keys(settings)) as keyed:
        for head, found in (
            ("GET /healthz HTTP/1.1", "has no Host header"),
            ("GET /healthz HTTP/1.1\r\nHost: a.example\r\nHost: b.example", 'has 2 Host headers, "a.example" and "b.'),
            ("GET /healthz HTTP/1.1\r\nHost: a.example\r\nHost: a.example", "has 2 Host headers"),
            ("GET /healthz HTTP/1.1\r\nHost: a/b", 'has the Host "a/b", which is no host'),
        ):
            status, problem = answered_raw(keyed, head)
            assert (status, problem["code"]) == (400, "invalid_http"), head
            assert problem["detail"].startswith(f"The request {found}")
        assert answered_raw(keyed, "GET /healthz HTTP/1.1\r\nHost: a.example")[0] == 200
        assert answered_raw(keyed, "GET /healthz HTTP/1.1\r\nHost:")[0] == 200
        assert answered_raw(keyed, "GET /healthz HTTP/1.0")[0] == 200, "HTTP/1.0 has no such header"


def test_without_keys_a_host_is_needed_in_any_version(standing_api: httpx.Client) -> None:
    url = str(standing_api.base_url)
    assert answered_raw(url, "GET /healthz HTTP/1.1")[0] == 400
    assert answered_raw(url, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example")[0] == 400
    assert answered_raw(url, "GET /healthz HTTP/1.0")[0] == 421


def test_more_hosts_by_settings(settings: Settings) -> None:
    more = settings.model_copy(update={"allowed_hosts": ("API.internal",)})
    with serving(more) as url, httpx.Client(base_url=url) as api:
        assert api.get("/healthz", headers={"Host": "api.internal:80"}).status_code == 200
        assert api.get("/healthz", headers={"Host": "other.internal"}).status_code == 421
    everyone = settings.model_copy(update={"allowed_hosts": ("*",)})
    with serving(everyone) as url, httpx.Client(base_url=url) as api:
        assert api.get("/healthz", headers={"Host": "whatever"}).status_code == 200


def test_a_page_of_another_origin_can_neither_write_nor_read(standing_api: httpx.Client) -> None:
    own = str(standing_api.base_url).rstrip("/")
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        answer = standing_api.post("/jobs", json={}, headers={"Origin": origin})
        assert (answer.status_code, problem_of(answer)["code"]) == (403, "cross_origin")
        read = standing_api.get("/jobs", headers={"Origin": origin})
        assert not [name for name in read.headers if name.lower().startswith("access-control")]
    assert standing_api.post("/jobs", json={}, headers={"Origin": own}).status_code == 422


# --- pages for people, and the shape of the whole ---------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere(standing_api: httpx.Client, path: str) -> None:
    answer = standing_api.get(path)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", answer.text)


@pytest.mark.parametrize("page", ["/", "/docs"])
def test_pages_have_a_mark_which_anyone_may_see_and_keep(standing_api: httpx.Client, page: str) -> None:
    answer = standing_api.get(page)
    assert re.search('<link rel="icon" href="/?favicon.svg"', answer.text)
    assert "img-src 'self'" in answer.headers["Content-Security-Policy"]
    for path, media_type, start in (
        ("/favicon.svg", "image/svg+xml", b"<svg "),
        ("/favicon.ico", "image/x-icon", b"\x00\x00\x01\x00"),
    ):
        found = standing_api.get(path)
        assert (found.status_code, found.headers["content-type"]) == (200, media_type)
        assert found.content.startswith(start)
        assert found.headers["Cache-Control"] == "public, max-age=86400"


def test_the_reference_names_every_operation_and_every_error(standing_api: httpx.Client) -> None:
    page = standing_api.get("/docs").text
    for methods in standing_api.get("/openapi.json").json()["paths"].values():
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in page
    for code in CATALOGUE:
        assert f'id="problem-{code}"' in page


def test_small_answers_on_a_kept_connection_do_not_wait_for_acknowledgements(standing_api: httpx.Client) -> None:
    """Without TCP_NODELAY, which uvloop sets, each takes 40 ms and more."""
    times = []
    for _ in range(40):
        start = time.perf_counter()
        assert standing_api.get("/healthz").status_code == 200
        times.append(time.perf_counter() - start)
    assert min(times) < 0.03, times


def test_an_installed_server_has_its_pages_too() -> None:
    """A file that is not listed as package data is missing in the container, which installs a wheel."""
    root = Path(__file__).resolve().parents[3]
    listed = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    packaged = {path for pattern in listed["app"] for path in (root / "app").glob(pattern)}
    files = {path for path in (root / "app").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in files if path.suffix != ".py"} <= packaged


def test_every_translation_has_its_entry_in_the_catalogue() -> None:
    assert set(problems.TRANSLATIONS.values()) <= set(CATALOGUE)
    assert set(problems.RETRY_AFTER_SECONDS) <= set(CATALOGUE)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html", "text/html"),
        ("text/*", "text/html"),
        ("text/html;q=0.5, application/json", "application/json"),
        ("text/html;q=0.5, application/json;q=0.4", "text/html"),
        ("*/*;q=0.1, image/png", "image/png"),
        ("application/json;q=0, */*", "text/html"),
        ("application/json;q=0, text/html;level=1, */*;q=0.3", "text/html"),
        ("TEXT/HTML", "text/html"),
    ],
)
def test_the_best_rated_media_type_is_chosen(accept: str | None, expected: str) -> None:
    assert chosen(accept, ("application/json", "text/html", "image/png")) == expected


@pytest.mark.parametrize("accept", ["text/csv", "application/json;q=0", "nonsense", "text/html;q=x", "a/b;q=nan"])
def test_nothing_acceptable_is_a_406(accept: str) -> None:
    with pytest.raises(Problem) as caught:
        chosen(accept, ("application/json", "text/html"))
    assert caught.value.code == "not_acceptable"
