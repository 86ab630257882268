"""POST /datasets: a file is kept whole, once, with what is in it; or nothing of it is, and the answer says why."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import socket
import time
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from app.settings import Settings
from workshop.keyed import bearing, make_key, with_keys
from workshop.serving import serving

ROLES = {"target": "churned", "group": "customer"}


def customers(groups: int = 12, rows: int = 6) -> bytes:
    """A table with a row of text, a missing value and a group that is too small."""
    lines = ["customer,income,visits,note,churned"]
    for group in range(groups):
        for row in range(rows if group else 2):
            income = "" if row == 5 else f"{group + row / 10:.1f}"
            lines.append(f'c{group:02},{income},{row},"a, b",{"yes" if (group + row) % 2 else "no"}')
    return "\n".join(lines).encode() + b"\n"


@pytest.fixture
def small(settings: Settings) -> Iterator[httpx.Client]:
    """A server of its own that takes 100 kB, unpacked 200 kB."""
    limits = {"dataset_limit_bytes": 100_000, "dataset_unpacked_bytes": 200_000, "body_timeout_seconds": 1.0}
    with serving(settings.model_copy(update=limits)) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def bring(api: httpx.Client, name: str, content: bytes, **params: Any) -> httpx.Response:
    return api.post("/datasets", params={"name": name} | params, content=content, headers={"Content-Type": "text/csv"})


def kept_in(settings: Settings) -> list[str]:
    return sorted(path.name for path in (settings.data_dir / "datasets").glob("*/*"))


def test_a_file_is_inspected_kept_once_listed_and_deleted(api: httpx.Client, app_settings: Settings) -> None:
    content = customers()
    sha256 = hashlib.sha256(content).hexdigest()
    answer = bring(api, "customers", content, **ROLES, sha256=sha256)
    assert (answer.status_code, answer.headers.get("Location")) == (201, "/datasets/customers"), answer.text
    made = answer.json()
    assert (made["rows"], made["usable_rows"], made["inputs"]) == (68, 68, ["income", "visits"])
    assert (made["sha256"], made["format"], made["classes"]) == (sha256, "csv", ["no", "yes"])
    assert made["groups"] == {"count": 12, "smallest": 2, "median": 6.0, "largest": 6, "too_small": 1}
    income, visits = made["columns"][1:3]
    assert (income["type"], income["missing"], income["low"], income["high"]) == ("number", 11, 0.0, 11.4)
    assert (visits["type"], visits["distinct"]) == ("whole number", 6)
    assert made["preview"][0] == ["c00", "0.0", "0", "a, b", "no"]
    assert bring(api, "customers", content, **ROLES).status_code == 200
    assert bring(api, "customers", content).json()["code"] == "dataset_exists"
    assert bring(api, "twin", content, target="visits", input="income").json()["inputs"] == ["income"]
    assert kept_in(app_settings) == [sha256]
    assert [each["name"] for each in api.get("/datasets").json()["data"]] == ["customers", "twin"]
    assert api.get("/datasets/customers").json() == made
    assert api.delete("/datasets/twin").status_code == 204
    assert kept_in(app_settings) == [sha256]
    assert api.delete("/datasets/customers").status_code == 204
    assert kept_in(app_settings) == []
    assert api.get("/datasets/customers").json()["code"] == "dataset_not_found"


def test_a_family_of_it_knows_its_bytes_and_keeps_it(api: httpx.Client, app_settings: Settings) -> None:
    content = customers()
    bring(api, "customers", content, **ROLES)
    tasks = {"kind": "regression", "dataset": "customers", "loss": "logistic"}
    answer = api.post("/families", json={"name": "churn", "tasks": tasks})
    assert answer.status_code == 201, answer.text
    table = answer.json()["tasks"]["dataset"]
    assert (table["sha256"], table["groups"], table["largest"]) == (hashlib.sha256(content).hexdigest(), 11, 6)
    assert answer.json()["coordinates_per_task"] == 3
    assert api.post("/families", json={"name": "churn", "tasks": tasks}).status_code == 200
    refused = api.delete("/datasets/customers")
    assert (refused.status_code, refused.json()["code"]) == (409, "dataset_needed")
    assert "churn" in refused.json()["detail"]
    assert api.post("/jobs", json={"kind": "meta_train", "family": "churn"}).status_code == 202
    stolen = {"kind": "meta_train", "family": "churn", "tasks": {"dataset": table | {"sha256": "0" * 64}}}
    assert api.post("/jobs", json=stolen).json()["errors"][0]["pointer"] == "/tasks/dataset"
    (app_settings.data_dir / "datasets" / "blobs" / table["sha256"]).unlink()
    lost = api.post("/jobs", json={"kind": "meta_train", "family": "churn"}).json()
    assert lost["code"] == "data_set_missing"
    assert "gradsmith data add FILE --name customers" in lost["detail"]
    assert bring(api, "customers", content, **ROLES).status_code == 200  # and it is there again
    assert api.post("/jobs", json={"kind": "meta_train", "family": "churn"}).status_code == 202


def test_a_job_takes_no_fewer_tokens_than_its_table_was_found_to_fit(api: httpx.Client) -> None:
    rows = [f"g{row % 9},{row % 4},{(row + 1) % 4},0.5" for row in range(90)]
    bring(api, "tokens", "\n".join(["who,t0,t1,y", *rows]).encode(), target="y", group="who")
    tasks = {"kind": "transformer", "dataset": "tokens", "vocabulary": 3}
    refused = api.post("/families", json={"name": "words", "tasks": tasks})
    assert refused.json()["errors"][0]["code"] == "unfitting_inputs", "the highest token is 3"
    assert api.post("/families", json={"name": "words", "tasks": tasks | {"vocabulary": 4}}).status_code == 201

    def asked(vocabulary: int, name: str = "words") -> httpx.Response:
        return api.post("/jobs", json={"kind": "meta_train", "family": name, "tasks": {"vocabulary": vocabulary}})

    answer = asked(3)
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["pointer"], error["code"]) == (422, "/tasks/vocabulary", "narrowed")
    assert "3 is less than its family's 4, with which its table was looked through" in error["message"]
    assert (asked(4).status_code, asked(8).status_code) == (202, 202)
    within = {"kind": "mixture", "families": [{"family": "words", "tasks": {"vocabulary": 3}}]}
    mixed = api.post("/families", json={"name": "mixed-words", "tasks": within})
    assert mixed.json()["errors"][0]["pointer"] == "/tasks/families/0/tasks/vocabulary"
    assert asked(3, "markov-transformer").status_code == 202, "there is no table to fit"


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"dataset": "custmers"}, "data_set_missing", "Did you mean 'customers'?"),
        ({"dataset": {"name": "customers"}}, "invalid_request", "send the name of one of your data sets"),
        ({"loss": "poisson"}, "invalid_request", "poisson needs a target of numbers"),
        ({"dataset": "aimless"}, "invalid_request", "has no target"),
    ],
)
def test_what_no_family_can_be_made_of_is_refused(
    standing_api: httpx.Client, change: dict[str, Any], code: str, said: str
) -> None:
    bring(standing_api, "customers", customers(), **ROLES)
    bring(standing_api, "aimless", customers())
    tasks = {"kind": "regression", "dataset": "customers", "loss": "logistic"} | change
    problem = standing_api.post("/families", json={"name": "churn", "tasks": tasks}).json()
    assert problem["code"] == code
    assert said in problem["detail"]


def _npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def _stored(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _lying(content: bytes) -> bytes:
    """An npz whose directory says that its array unpacks to 1,000 bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        size = file.infolist()[0].file_size
    assert content.count(size.to_bytes(4, "little")) >= 1
    return content.replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little"))


REFUSED = {
    "empty": (b"", {}, "is empty"),
    "no rows": (b"a,b\n", {}, "holds no row"),
    "no names": (b"1,2\n3,4\n", {}, "first line has to name the columns"),
    "twice": (b"a,a\n1,2\n", {}, "Two columns have the name 'a'"),
    "truncated": (customers()[:-4], {"sha256": hashlib.sha256(customers()).hexdigest()}, "arrived damaged"),
    "a short line": (customers()[:-14], {}, "Line 69 has 1 values, and the line of names has 5"),
    "in quotes": (b'a,b\n1,"2\n', {}, "Is the file whole?"),
    "no utf-8": (b"a,b\n1,\xff\xfe\n", {}, "not UTF-8"),
    "a long line": (b"a\n" + b"1" * 1_000_000, {}, "that is no table"),
    "parquet": (b"PAR1" + b"x" * 40, {}, "`gradsmith data add FILE` converts it"),
    "gzip": (b"\x1f\x8b\x08" + b"x" * 40, {}, "a gzip file"),
    "pickle": (b"\x80\x04\x95" + b"x" * 40, {}, "a pickle"),
    "binary": (b"\x7fELF\0\0\0", {}, "neither text nor npz"),
    "no such target": (customers(), {"target": "chruned"}, "Did you mean 'churned'?"),
    "text as input": (customers(), {"input": "note"}, "no column of numbers"),
    "both": (customers(), {"target": "visits", "group": "visits"}, "give it one role"),
    "damaged": (customers(), {"sha256": "0" * 64}, "arrived damaged"),
    "pickled": (_npz(x=np.array([{}, {}], dtype=object)), {}, "Python objects"),
    "half an npz": (_npz(x=np.arange(3000.0))[:-300], {}, "no whole npz"),
    "damaged npz": (_stored(x=np.arange(3000.0)).replace(b"NUMPY", b"NUMPX"), {}, "no whole npz"),
    "unequal": (_npz(x=np.zeros(3), y=np.zeros(4)), {}, "different numbers of rows: x 3, y 4"),
    "a zip": (b"PK\x03\x04" + b"x" * 50, {}, "no whole npz"),
    "half safetensors": (save({"x": np.zeros(100)})[:-80], {}, "no whole safetensors"),
}  # fmt: skip


BOMBS = {
    "unpacks to 1,600,128 bytes, and at most 200,000 fit": _npz(x=np.zeros(200_000)),
    "no whole npz": _lying(_npz(x=np.zeros(200_000))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(standing_api: httpx.Client, name: str) -> None:
    content, params, said = REFUSED[name]
    answer = bring(standing_api, "refused", content, **params)
    assert (answer.status_code, answer.json()["code"]) == (422, "dataset_refused"), answer.text
    assert said in answer.json()["detail"]
    assert standing_api.get("/datasets/refused").status_code == 404


def test_bombs_and_files_that_are_too_large_or_too_slow_leave_nothing(small: httpx.Client, settings: Settings) -> None:
    for said, content in BOMBS.items():
        answer = bring(small, "bomb", content)
        assert (answer.status_code, said in answer.json()["detail"]) == (422, True), answer.text
    wide = bring(small, "large", customers() + b"x" * 200_000)
    assert (wide.status_code, wide.json()["limit_bytes"]) == (413, 100_000)
    in_parts = small.post(
        "/datasets?name=large", content=iter([b"a,b\n", b"1,2\n" * 50_000]), headers={"Content-Type": "text/csv"}
    )
    assert in_parts.status_code == 413
    with _connected(small) as stream:
        stream.sendall(_head(small, 1000) + b"a,b\n")
        assert stream.recv(4096).startswith(b"HTTP/1.1 408")
    assert kept_in(settings) == []


@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_arrays_are_columns(standing_api: httpx.Client, form: str) -> None:
    arrays = {"x": np.arange(60.0).reshape(20, 3), "y": np.arange(20) % 3, "g": np.arange(20) // 4}
    content = _npz(**arrays) if form == "npz" else save(arrays)
    answer = bring(standing_api, form, content, target="y", group="g")
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert (found["format"], found["rows"], found["inputs"]) == (form, 20, ["x.0", "x.1", "x.2"])
    assert (found["classes"], found["groups"]["count"]) == (["0", "1", "2"], 5)


@pytest.mark.parametrize("cuts", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_uploads_that_break_off_leave_nothing_behind(small: httpx.Client, settings: Settings, cuts: int) -> None:
    content = customers(40, 30)
    drawn = random.Random(16)
    for number in range(cuts):
        sent = content[: drawn.randrange(len(content))]
        with _connected(small) as stream:
            if number % 2:
                stream.sendall(_head(small, len(content)) + sent)
            else:
                stream.sendall(_head(small, None) + f"{len(sent):x}\r\n".encode() + sent + b"\r\n")
            if number % 4 < 2:  # else a reset, which meets what was sent in the buffer
                stream.shutdown(socket.SHUT_WR)
                stream.recv(4096)
    ends = time.monotonic() + 10
    while kept_in(settings) and time.monotonic() < ends:
        time.sleep(0.02)
    assert kept_in(settings) == []
    assert small.get("/datasets").json()["data"] == []
    assert bring(small, "cut", content, **ROLES).status_code == 201


def _connected(api: httpx.Client) -> socket.socket:
    address = urlsplit(str(api.base_url))
    return socket.create_connection((address.hostname or "", address.port or 80), timeout=30)


def _head(api: httpx.Client, length: int | None) -> bytes:
    how = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    host = urlsplit(str(api.base_url)).netloc
    return f"POST /datasets?name=cut HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/csv\r\n{how}\r\n\r\n".encode()


def test_other_pages_and_other_bodies_are_refused(standing_api: httpx.Client) -> None:
    for headers, status in (
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Type": "text/csv", "Origin": "https://elsewhere.example"}, 403),
    ):
        answer = standing_api.post("/datasets?name=other", content=customers(), headers=headers)
        assert answer.status_code == status, answer.text
    assert standing_api.get("/datasets/%00").json()["code"] == "dataset_not_found"
    for params in ({"name": "Not A Name"}, {"name": "digits"}, {"name": "a", "tagret": "x"}):
        answer = standing_api.post("/datasets", params=params, content=b"", headers={"Content-Type": "text/csv"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), json.dumps(answer.json())


def test_one_workspace_does_not_see_the_data_of_another(settings: Settings) -> None:
    keyed = with_keys(settings)
    with serving(keyed) as url, contextlib.ExitStack() as stack:
        ours, theirs, reader = (
            stack.enter_context(bearing(url, make_key(settings, scope, workspace)))
            for scope, workspace in (("submit", "ours"), ("submit", "theirs"), ("read", "ours"))
        )
        content = customers()
        assert bring(ours, "customers", content, **ROLES).status_code == 201
        assert bring(reader, "another", content).json()["code"] == "insufficient_scope"
        assert theirs.get("/datasets/customers").status_code == 404
        assert theirs.get("/datasets").json()["data"] == []
        tasks = {"kind": "regression", "dataset": "customers", "loss": "logistic"}
        assert theirs.post("/families", json={"name": "churn", "tasks": tasks}).json()["code"] == "data_set_missing"
        assert bring(theirs, "customers", content).status_code == 201
        assert theirs.delete("/datasets/customers").status_code == 204
        assert kept_in(settings) == [hashlib.sha256(content).hexdigest()]
        assert ours.get("/datasets/customers").status_code == 200
