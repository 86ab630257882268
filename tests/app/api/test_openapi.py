"""The OpenAPI document is part of the product."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from app import openapi
from app.api import examples
from app.api.schemas import CurveDocument, Family, Job, JobRequest, Optimizer

COMMITTED = Path(__file__).resolve().parents[3] / "docs" / "openapi.json"


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_committed_copy_is_what_the_server_serves(standing_api: httpx.Client) -> None:
    served = openapi.text_of(standing_api.get("/openapi.json").json())
    assert COMMITTED.read_text(encoding="utf-8") == served, (
        "run `python -m app.write_openapi` and commit docs/openapi.json"
    )


def test_every_operation_is_named_described_and_exemplified(standing_api: httpx.Client) -> None:
    document = standing_api.get("/openapi.json").json()
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    for path, method, operation in operations(document):
        assert operation["operationId"].split("_")[0] in ("jobs", "families", "aliases", "optimizers", "health"), path
        assert operation["summary"]
        good = [answer for status, answer in operation["responses"].items() if status in ("200", "202")]
        assert "204" in operation["responses"] or any(
            "example" in content for answer in good for content in answer.get("content", {}).values()
        ), f"{method} {path} has no example"
        problems = [answer for status, answer in operation["responses"].items() if int(status) >= 400]
        assert problems
        for answer in problems:
            assert list(answer["content"]) == ["application/problem+json"], f"{method} {path}"
        if method == "post":
            assert {"403", "415", "413"} <= set(operation["responses"]), path
        if "{job_id}" in path or "{reference}" in path or "{name}" in path:
            assert "404" in operation["responses"], path


def test_every_reference_leads_somewhere(standing_api: httpx.Client) -> None:
    document = standing_api.get("/openapi.json").json()

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for value in node.values() for found in references(value)]
        if isinstance(node, list):
            return [found for value in node for found in references(value)]
        return []

    found = set(references(document))
    assert found
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


@pytest.mark.parametrize("body", [examples.META_TRAIN, examples.META_TRAIN_CHANGED])
def test_example_requests_are_accepted(standing_api: httpx.Client, body: dict[str, Any]) -> None:
    assert standing_api.post("/jobs", json=body).status_code == 202


def test_example_documents_are_of_the_form_that_is_served() -> None:
    TypeAdapter(JobRequest).validate_python(examples.EVALUATE)
    for model, example in (
        (Job, examples.JOB),
        (Job, examples.QUEUED_JOB),
        (Optimizer, examples.OPTIMIZER),
        (CurveDocument, examples.CURVE),
        (Family, examples.FAMILY),
    ):
        made = model.model_validate(example)
        assert set(json.loads(made.model_dump_json())) == set(example), model.__name__
