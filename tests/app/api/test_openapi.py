"""The OpenAPI document is part of the product."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from app.api.schemas import CurveDocument, Family, Optimizer
from app.http.problems import CATALOGUE, MEDIA_TYPE
from app.jobs.kinds import JobRequest
from app.jobs.schemas import Job
from app.main import ROUTERS, create_app
from app.openapi import document as openapi
from app.openapi import examples
from app.openapi.links import LINKS
from app.settings import Settings

COMMITTED = Path(__file__).resolve().parents[3] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def document(standing_api: httpx.Client) -> dict[str, Any]:
    served: dict[str, Any] = standing_api.get("/openapi.json").json()
    return served


def test_the_committed_copy_is_what_the_server_serves(document: dict[str, Any]) -> None:
    assert COMMITTED.read_text(encoding="utf-8") == openapi.text_of(document), (
        "run `python -m app.write_openapi` and commit docs/openapi.json"
    )


def test_an_independent_validator_takes_the_document(document: dict[str, Any]) -> None:
    validator = pytest.importorskip("openapi_spec_validator").OpenAPIV31SpecValidator

    def faults(of: dict[str, Any]) -> list[str]:
        return [f"{list(error.absolute_path)}: {error.message}" for error in validator(of).iter_errors()]

    assert document["openapi"].startswith("3.1.")
    assert faults(document) == []
    # it sees what was wrong before: a member that OpenAPI has only since 3.2
    newer = json.loads(json.dumps(document))
    answer = newer["paths"]["/jobs/{job_id}/events"]["get"]["responses"]["200"]
    answer["content"]["text/event-stream"]["itemSchema"] = {"type": "object"}
    [fault] = faults(newer)
    assert "itemSchema" in fault


def test_every_operation_is_named_described_and_exemplified(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in openapi.operations(document)]
    assert len(names) == len(set(names))
    for path, method, operation in openapi.operations(document):
        assert operation["operationId"].split("_")[0] in {*openapi.TAGS, "metrics"}, path
        assert operation["tags"][0] in openapi.TAGS
        assert operation["summary"]
        for parameter in operation.get("parameters", []):
            assert parameter["schema"], parameter
            assert {"type": "null"} not in parameter["schema"].get("anyOf", []), parameter
            if parameter["in"] == "path":
                assert parameter["description"], parameter
                assert "example" in parameter, parameter
        good = [answer for status, answer in operation["responses"].items() if int(status) < 300]
        assert "204" in operation["responses"] or any(
            "example" in content or content.get("schema", {}).get("format") == "binary"
            for answer in good
            for content in answer.get("content", {}).values()
        ), f"{method} {path} has no example"


def test_every_operation_says_what_may_go_wrong(document: dict[str, Any]) -> None:
    for path, method, operation in openapi.operations(document):
        responses = operation["responses"]
        assert list(responses) == sorted(responses)
        for status, answer in responses.items():
            answer = openapi.resolved(document, answer)
            assert answer["headers"]["X-Request-Id"], f"{method} {path} {status}"
            if int(status) >= 400:
                assert list(answer["content"]) == [MEDIA_TYPE], f"{method} {path}"
                for code in answer["content"][MEDIA_TYPE]["examples"]:
                    assert CATALOGUE[code].status == int(status)
        assert {"421", "500", "503"} <= set(responses), path
        if method != "get":
            assert {"400", "403", "408", "413", "415"} <= set(responses), path
        if operation["security"]:
            assert {"401", "403", "429"} <= set(responses), path
        if "{" in path:
            assert "404" in responses, path


def test_every_example_is_of_the_form_that_its_schema_says(document: dict[str, Any]) -> None:
    checked = 0

    def check(content: dict[str, Any], where: str) -> None:
        nonlocal checked
        values = [content["example"]] if "example" in content else []
        for name, example in content.get("examples", {}).items():
            if "$ref" in example:
                assert example["$ref"] == f"#/components/examples/{name}"
                example = document["components"]["examples"][name]
            values.append(example["value"])
        validator = Draft202012Validator(content.get("schema", True) | {"components": document["components"]})
        for value in values:
            checked += 1
            found = [f"{where}: {error.json_path} {error.message}" for error in validator.iter_errors(value)]
            assert not found

    for path, method, operation in openapi.operations(document):
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        for answer in (*bodies, *operation["responses"].values()):
            for media_type, content in answer.get("content", {}).items():
                if "schema" in content:
                    check(content, f"{method} {path} {media_type}")
        for parameter in operation.get("parameters", []):
            check(parameter, f"{method} {path} {parameter['name']}")
    for name, answer in document["components"]["responses"].items():
        check(answer["content"][MEDIA_TYPE], name)
    assert checked > 80


def test_every_link_leads_to_an_operation_and_its_parameters(document: dict[str, Any]) -> None:
    targets = {
        operation["operationId"]: {parameter["name"] for parameter in operation.get("parameters", [])}
        for _, _, operation in openapi.operations(document)
    }
    followed = set()
    for path, method, operation in openapi.operations(document):
        for answer in operation["responses"].values():
            for link in answer.get("links", {}).values():
                assert set(link["parameters"]) <= targets[link["operationId"]], f"{method} {path}"
                followed.add(link["operationId"])
    assert {(operation, status) for operation, status in LINKS} == {
        (operation["operationId"], status)
        for _, _, operation in openapi.operations(document)
        for status, answer in operation["responses"].items()
        if "links" in answer
    }
    with_parameters = {operation["operationId"] for path, _, operation in openapi.operations(document) if "{" in path}
    assert with_parameters <= followed  # whatever needs an id, an answer gives it


def test_a_server_with_keys_says_that_they_are_needed(document: dict[str, Any], tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path, auth="on"))
    keyed = app.openapi()
    for (path, method, open_here), (_, _, needing) in zip(
        openapi.operations(document), openapi.operations(keyed), strict=True
    ):
        public = path in ("/healthz", "/readyz")
        for_admins = path.startswith("/keys") or path == "/doctor" or (path.endswith("/fetch") and method == "post")
        scope = "admin" if for_admins else "read" if method == "get" else "submit"
        assert needing["security"] == ([] if public else [{"apiKey": [scope]}]), path
        assert open_here["security"] == ([] if public else [{}, {"apiKey": [scope]}]), path
    commands = re.findall(r'<pre class="command">(.*?)</pre>', app.state.reference().at("https://gs.test"), re.DOTALL)
    assert len(commands) > 25
    for command in commands:
        assert ("@me.key" in command) == ("healthz" not in command and "readyz" not in command)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
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
        node: Any = document
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


def test_apps_share_the_routes_that_were_built_at_import() -> None:
    """Built anew by each app, they would delay the first requests of every process, and of every test."""
    built = {id(route) for module in ROUTERS for route in module.router.routes}
    assert built
    assert built <= {id(route) for route in create_app(Settings()).routes}
