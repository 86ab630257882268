"""Whatever is sent, the answer is a job, or a problem that blames the request: never a 500."""

from __future__ import annotations

import json
from typing import Any, get_args
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.spec import JobKind

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


def or_anything(plausible: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return plausible | anything


numbers = st.integers(-(2**70), 2**70) | st.integers(-2, 200) | st.floats()
rule = st.dictionaries(
    st.sampled_from(["kind", "hidden_size", "layers", "input", "p", "output_scale"]), or_anything(numbers)
)
recipe = st.dictionaries(
    st.sampled_from(["meta_steps", "horizon", "unroll_steps", "tasks", "meta_learning_rate", "validation_interval"]),
    or_anything(numbers),
) | st.fixed_dictionaries({"rule": or_anything(rule)})
body = st.fixed_dictionaries(
    {"kind": or_anything(st.sampled_from(get_args(JobKind)))},
    optional={
        "family": or_anything(st.sampled_from(["quadratic", "digits-mlp"])),
        "optimizer": or_anything(st.sampled_from(["quadratic@1", "quadratic@best", "opt_" + "0" * 32])),
        "seed": or_anything(numbers),
        "recipe": or_anything(recipe),
        "evaluate": anything,
        "evaluation": or_anything(st.dictionaries(st.sampled_from(["horizon", "baselines", "test_tasks"]), anything)),
        "resources": or_anything(st.dictionaries(st.sampled_from(["device", "threads"]), anything)),
        "metadata": or_anything(st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3)),
    },
)
several = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def blames_the_request(answer: httpx.Response) -> None:
    assert 200 <= answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["code"]
        assert problem["detail"]


@several
@given(value=body | anything)
def test_any_json_body(standing_api: httpx.Client, value: Any) -> None:
    content = json.dumps(value).encode()
    answer = standing_api.post("/jobs", content=content, headers={"Content-Type": "application/json"})
    blames_the_request(answer)
    if answer.status_code == 202:
        assert standing_api.get(answer.headers["Location"]).json()["id"] == answer.json()["id"]


@several
@given(content=st.binary(max_size=200))
def test_any_bytes(standing_api: httpx.Client, content: bytes) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    blames_the_request(standing_api.post("/jobs", content=content, headers=headers))


PATHS = ["/jobs", "/optimizers", "/families", f"/jobs/job_{'0' * 32}/curve", f"/jobs/job_{'0' * 32}/events"]
names = st.sampled_from(["status", "kind", "family", "limit", "after", "metadata.a", "max_points", "method"]) | st.text(
    max_size=8
)


@several
@given(path=st.sampled_from(PATHS), query=st.lists(st.tuples(names, st.text(max_size=20)), max_size=4))
def test_any_query(standing_api: httpx.Client, path: str, query: list[tuple[str, str]]) -> None:
    text = "&".join(f"{quote(name, errors='replace')}={quote(value, errors='replace')}" for name, value in query)
    blames_the_request(standing_api.get(f"{path}?{text}"))


@several
@given(
    name=st.text(min_size=1, max_size=30),
    tail=st.sampled_from(["", "/card", "/curve", "/report", "/events"]),
    header=st.sampled_from(["Accept", "Range", "If-None-Match", "Last-Event-ID", "X-Request-Id", "If-Range"]),
    value=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(str.strip),
)
def test_any_name_and_header(standing_api: httpx.Client, name: str, tail: str, header: str, value: str) -> None:
    for noun in ("jobs", "optimizers", "families"):
        path = f"/{noun}/{quote(name, safe='', errors='replace')}{tail}"
        blames_the_request(standing_api.get(path, headers={header: value}))
