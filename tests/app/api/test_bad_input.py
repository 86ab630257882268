"""What nobody should send, at every operation of the OpenAPI document: each answer blames the request, in time."""

from __future__ import annotations

import itertools
import json
import socket
import time
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from app.http.body import MOST_LEVELS, MOST_VALUES
from app.http.problems import ProblemDocument
from app.openapi import document as openapi

JSON = {"Content-Type": "application/json"}
SMALLEST = b'{"kind": "meta_train", "family": "quadratic"}'


@pytest.fixture(scope="module")
def operations(standing_api: httpx.Client) -> list[tuple[str, str, dict[str, Any]]]:
    return list(openapi.operations(standing_api.get("/openapi.json").json()))


def problem_of(answer: httpx.Response) -> dict[str, Any]:
    assert 400 <= answer.status_code < 500, f"{answer.status_code} {answer.text[:300]}"
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    ProblemDocument.model_validate(problem)
    return problem


# --- bodies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"kind": "meta_train", "family": "quadratic", "family": "digits-mlp"}', '"family" twice'),
        (b'{"kind": "meta_train", "family": "quadratic", "recipe": {"horizon": 1, "horizon": 2}}', '"horizon" twice'),
        (rb'{"kind": "meta_train", "family": "quadratic", "\u006bind": "evaluate"}', '"kind" twice'),
        (b'{"kind": "meta_train", "family": "quadratic", "seed": NaN}', "NaN is no JSON number"),
        (b'{"kind": "meta_train", "family": "quadratic", "seed": Infinity}', "Infinity is no JSON number"),
        (b'{"kind": "meta_train", "family": "quadratic", "seed": -Infinity}', "-Infinity is no JSON number"),
        (SMALLEST.decode().encode("utf-16"), "byte 0 is not UTF-8"),
        (b'{"kind": "meta_train", "family": "caf\xe9"}', "byte 37 is not UTF-8"),
        (SMALLEST + SMALLEST, "Extra data at character 45"),
        (SMALLEST[:-1] + b",}", "at character 45"),
        (b"{'kind': 'meta_train'}", "at character 1"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'{"seed": ' + b"[" * MOST_LEVELS + b"]" * MOST_LEVELS + b"}", "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 499_000 + b"]" * 499_000, "nested too deeply"),
    ],
)
def test_json_that_has_no_one_meaning_is_refused(standing_api: httpx.Client, body: bytes, reason: str) -> None:
    problem = problem_of(standing_api.post("/jobs", content=body, headers=JSON))
    assert problem["code"] == "invalid_json"
    assert reason in problem["detail"]


@pytest.mark.parametrize(
    "many",
    [
        {"kind": "meta_train", "family": "quadratic", **{f"field{number}": 0 for number in range(50_000)}},
        {"kind": "meta_train", "family": "quadratic", "recipe": {"validation_horizons": [0] * 50_000}},
        {"kind": "meta_train", "family": "quadratic", "recipe": {"mixture": [{"a": 1, "b": 2}] * 20_000}},
    ],
    ids=["fields", "entries", "both"],
)
def test_a_body_with_too_many_values_is_refused_before_it_is_validated(
    standing_api: httpx.Client, many: dict[str, Any]
) -> None:
    problem = problem_of(standing_api.post("/jobs", json=many))
    assert (problem["status"], problem["code"], problem["limit_values"]) == (413, "body_too_large", MOST_VALUES)
    assert f"at most {MOST_VALUES:,}" in problem["detail"]


def test_as_many_values_as_are_read_are_validated(standing_api: httpx.Client) -> None:
    fields = {f"field{number}": 0 for number in range(MOST_VALUES - 2)}
    began = time.process_time()  # the server is a thread of this process
    problem = problem_of(standing_api.post("/jobs", json={"kind": "meta_train", "family": "quadratic", **fields}))
    assert time.process_time() - began < 1
    assert problem["code"] == "invalid_request"
    assert len(problem["errors"]) == 100


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (
            b'{"kind": "meta_train", "family": "quadratic", "recipe": {"meta_learning_rate": 1e999}}',
            "meta_learning_rate",
        ),
        (rb'{"kind": "meta_train", "family": "quadratic", "metadata": {"a": "\ud800"}}', "/metadata/a"),
        (rb'{"kind": "meta_train", "family": "quad\u0000ratic"}', "/family"),
        (b'{"kind": "meta_train", "family": "' + b"q" * 900_000 + b'"}', "/family"),
        (b'{"seed": ' + b"[" * (MOST_LEVELS - 1) + b"]" * (MOST_LEVELS - 1) + b"}", "/kind"),
        (b"\xef\xbb\xbf{}", "/kind"),
    ],
)
def test_json_that_is_clear_but_fits_nothing_says_where(standing_api: httpx.Client, body: bytes, pointer: str) -> None:
    problem = problem_of(standing_api.post("/jobs", content=body, headers=JSON))
    assert problem["code"] == "invalid_request"
    assert any(pointer in error["pointer"] for error in problem["errors"]), problem
    assert len(json.dumps(problem)) < 20_000  # not everything that was sent comes back


def test_a_byte_order_mark_is_no_part_of_the_text(standing_api: httpx.Client) -> None:
    assert standing_api.post("/jobs", content=b"\xef\xbb\xbf" + SMALLEST, headers=JSON).status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b",".join(itertools.repeat(b"[]", 330_000)) + b"]",
        b"{" + b",".join(b'"%d":0' % number for number in range(95_000)) + b"}",
        b'{"metadata": {' + b",".join(b'"%d":"%d"' % (number, number) for number in range(60_000)) + b"}}",
    ],
)
def test_a_megabyte_of_small_things_is_refused_in_a_moment(standing_api: httpx.Client, body: bytes) -> None:
    assert len(body) < 1_000_000
    start = time.process_time()  # the server is in this process; what else the machine does is not its fault
    problem_of(standing_api.post("/jobs", content=body, headers=JSON))
    assert time.process_time() - start < 3  # about 0.3 s


def test_no_operation_takes_what_is_not_json(
    standing_api: httpx.Client, operations: list[tuple[str, str, dict[str, Any]]]
) -> None:
    writing = [
        (path, method)
        for path, method, operation in operations
        if method != "get" and JSON["Content-Type"] in operation.get("requestBody", {}).get("content", JSON.values())
    ]
    assert len(writing) >= 7
    for path, method in writing:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
            answer = standing_api.request(
                method, path.replace("{", "").replace("}", ""), content=b"{}", headers={"Content-Type": content_type}
            )
            assert problem_of(answer)["code"] == "unsupported_media_type"
        answer = standing_api.request(
            method, path.replace("{", "").replace("}", ""), content=b'{"a": 1, "a": 2}', headers=JSON
        )
        assert problem_of(answer)["code"] == "invalid_json"


# --- paths and queries --------------------------------------------------------------------------------------------

NAMES = [
    "../../etc/passwd", "..\\..", "%2e%2e", "\x00", "quadratic\x00", "job_" + "0" * 31, "job_" + "0" * 33,
    "job_" + "0" * 32, "job_" + "A" * 32, "opt_" + "\u0660" * 32, "quadratic@", "@", "quadratic@0", "quadratic@-1",
    "quadratic@" + "9" * 400, "quadratic@\u0661", "quadratic@best@best", "' OR 1=1 --", "a/b", "é", "\U0001f600",
    "{job_id}", " ", "x" * 20_000, "\r\nX-Evil: 1", "<script>alert(1)</script>",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:30])
def test_a_name_of_nothing_is_answered_by_every_operation(
    standing_api: httpx.Client, operations: list[tuple[str, str, dict[str, Any]]], name: str
) -> None:
    for path, method, operation in operations:
        if "{" not in path:
            continue
        # also the alias of a family that exists
        for family in ("quadratic", name) if "{alias}" in path else (name,):
            where = path.replace("{name}", quote(family, safe=""))
            for parameter in ("alias", "job_id", "reference", "key_id", "dataset"):
                where = where.replace(f"{{{parameter}}}", quote(name, safe=""))
            answer = standing_api.request(
                method, where, headers={"If-Match": '"1"'} | (JSON if "requestBody" in operation else {}),
                content=b'{"optimizer": "quadratic@1"}' if "requestBody" in operation else None,
            )  # fmt: skip
            problem = problem_of(answer)
            assert str(answer.status_code) in operation["responses"] or problem["code"] == "not_found", where[:100]
            assert "x-evil" not in answer.headers


def test_a_path_with_dots_leads_nowhere(standing_api: httpx.Client) -> None:
    """As a client that resolves nothing sends it."""
    address = urlsplit(str(standing_api.base_url))
    for path in (
        b"/../../etc/passwd",
        b"/jobs/../../../etc/passwd",
        b"/static/../../settings.py",
        b"//etc/passwd",
        b"/%2e%2e/x",
    ):
        with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
            raw.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert raw.recv(65_536).startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 "))


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 0x2\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Bad Header: 1\r\n",
    ],
)
def test_a_request_whose_end_is_unclear_is_refused(standing_api: httpx.Client, framing: bytes) -> None:
    """Whoever stands before us may find another end, and take the rest for a request of somebody else's."""
    address = urlsplit(str(standing_api.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
        raw.sendall(
            b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + framing + b"\r\n{}"
        )
        found = raw.recv(65_536)
        assert found.startswith(b"HTTP/1.1 400 "), found
        assert b"application/problem+json" in found


@pytest.mark.parametrize(
    "cursor", ["", "x", "=", "A" * 1024, "A" * 1025, "é", "%00", "AAAAAAAAAAA", "../", "null", "e30", "-1", "0"]
)
def test_no_list_takes_a_cursor_that_it_did_not_give(
    standing_api: httpx.Client, operations: list[tuple[str, str, dict[str, Any]]], cursor: str
) -> None:
    lists = [path for path, _, operation in operations if operation["operationId"].endswith("_list")]
    paged = [path for path in lists if path not in ("/families", "/datasets")]
    assert len(paged) >= 4
    for path in paged:
        answer = standing_api.get(path.replace("{name}", "quadratic"), params={"after": cursor})
        code = problem_of(answer)["code"]
        assert code == ("invalid_request" if len(cursor) > 1024 else "bad_cursor"), path


@pytest.mark.parametrize("limit", ["0", "-1", "101", "1e1", "", "ten", "1.5", "\u0663", "9" * 400, "1&limit=2000"])
def test_no_list_is_longer_than_a_hundred(standing_api: httpx.Client, limit: str) -> None:
    for path in ("/jobs", "/optimizers", "/keys", "/families/quadratic/aliases"):
        answer = standing_api.get(f"{path}?limit={limit}")
        assert problem_of(answer)["code"] == "invalid_request", f"{path}?limit={limit}"


HEADERS = {
    "Accept": ["", "*", "nonsense", "text/html;q=2", "application/json;q=nan", ",,,", "a/b;" * 500],
    "If-None-Match": ["*", '"', 'W/"', "sha256:0", '"a", "b', "," * 1000, '"' + "x" * 8000 + '"'],
    "If-Match": ["", "*", '"', 'W/"a"', '"a" "b"', '"' + "x" * 8000 + '"'],
    "Range": ["bytes", "bytes=", "bytes=-", "bytes=5-1", "bytes=-0", "bytes=a-b", "bytes=0-0,1-1", "lines=1-2",
              "bytes=" + "9" * 40 + "-", "bytes=0-" + "9" * 40],
    "If-Range": ['"', "yesterday", "Tue, 24 Nov 2026 09:00:00 GMT"],
    "Last-Event-ID": ["x", "1", "1-", "-1-1", "1-1-1", "99999999999-1", "1-99999999999999999999", "\u0661-\u0661"],
    "Idempotency-Key": ["x" * 256, "two words", "tab\there"],
    "X-Request-Id": ["x" * 500, "a\tb"],
    "Host": ["localhost"],
}  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_whatever_a_header_holds_the_answer_is_as_documented(
    standing_api: httpx.Client, operations: list[tuple[str, str, dict[str, Any]]], header: str
) -> None:
    """An operation that documents the header is sent every value, each other one a third of them, in turn: the same
    middleware reads what they do not."""
    reading = [(path, operation) for path, method, operation in operations if method == "get" and path != "/metrics"]
    assert len(reading) >= 15
    for number, (path, operation) in enumerate(reading):
        documented = header.lower() in {each["name"].lower() for each in operation.get("parameters", [])}
        where = path
        for parameter in operation.get("parameters", []):
            where = where.replace(f"{{{parameter['name']}}}", quote(str(parameter.get("example", ""))))
        for value in HEADERS[header] if documented else HEADERS[header][number % 3 :: 3]:
            answer = standing_api.get(where, headers=[(header.encode(), value.encode())])
            assert str(answer.status_code) in operation["responses"], f"{where} {header}: {value[:50]}"
            if answer.status_code >= 400:
                problem_of(answer)


@pytest.mark.parametrize(
    "rest",
    [b"Transfer-Encoding: xchunked\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"],
)
def test_a_body_that_turns_out_not_to_be_one_is_refused_and_not_cut_off(
    standing_api: httpx.Client, rest: bytes
) -> None:
    address = urlsplit(str(standing_api.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
        raw.sendall(b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + rest)
        answer = b""
        while part := raw.recv(65_536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["code"] == "invalid_http"
