"""docs/api.md is a contract: it names every operation and error, and its curl lines are requests that exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from pydantic import TypeAdapter

from app.api.schemas import JobRequest
from app.errors import CATALOGUE

DOC = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
FAMILIES, JOBS, OPTIMIZERS = "/families/{name}", "/jobs/{job_id}", "/optimizers/{reference}"


def commands() -> list[list[str]]:
    """Every curl command of the document, as a shell would split it."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", DOC, re.DOTALL):
        for command in re.findall(r"curl (?:[^\n']|'[^']*')+", block):
            found.append(shlex.split(command.split(" | ")[0].rstrip(")")))
    return found


def template_of(path: str) -> str:
    for whole, template in (
        ("/families/quadratic/aliases/", "/families/{name}/aliases/{alias}"),
        ("/families/quadratic/aliases", "/families/{name}/aliases"),
        ("/families/", FAMILIES),
        ("/jobs/$JOB", JOBS),
        ("/optimizers/", OPTIMIZERS),
    ):
        if path.startswith(whole):
            rest = path.removeprefix(whole).partition("/")
            if "aliases" in whole:
                return template
            return template + rest[1] + rest[2]
    return path


def test_every_curl_line_is_a_request_that_exists(standing_api: httpx.Client) -> None:
    paths = standing_api.get("/openapi.json").json()["paths"]
    seen = set()
    for words in commands():
        url = next(word for word in words if word.startswith("$API"))
        method = words[words.index("-X") + 1].lower() if "-X" in words else "get"
        template = template_of(urlsplit(url.removeprefix("$API")).path)
        assert method in paths[template], words
        seen.add((method, template))
        if "-d" in words and method == "post":
            TypeAdapter(JobRequest).validate_python(json.loads(words[words.index("-d") + 1]))
    assert seen == {(method, path) for path, methods in paths.items() for method in methods}


def test_what_a_first_reader_got_wrong_is_said(standing_api: httpx.Client) -> None:
    assert '`ETag` is `"sha256:<hex>"`' in DOC
    assert "Cancelling writes no checkpoint" in DOC
    assert "below 4 it is refused" in DOC
    path = standing_api.get("/openapi.json").json()["paths"]["/jobs/{job_id}/curve"]["get"]
    [schema] = [each["schema"] for each in path["parameters"] if each["name"] == "max_points"]
    assert {"minimum": 4} in [{"minimum": kind.get("minimum")} for kind in schema["anyOf"]]


def test_every_error_is_named() -> None:
    for code, kind in CATALOGUE.items():
        assert f"`{code}`" in DOC, code
        assert str(kind.status) in DOC


def test_the_example_of_an_error_is_one() -> None:
    example = json.loads(next(block for block in re.findall(r"```json\n(.*?)```", DOC, re.DOTALL)))
    assert example["code"] in CATALOGUE
    assert example["errors"][0]["message"] in example["detail"]
