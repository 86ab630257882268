"""docs/api.md is a contract: its lines are run as they stand, and each is held to the status that it promises."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.http.problems import CATALOGUE
from app.settings import Settings
from app.store.sessions import Database
from tests.app.api.walking import Line, Reader, Request, steps
from workshop.serving import serving
from workshop.weights import weights_file
from workshop.working import Worker, evaluation_result, preview_result

DOC = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text(encoding="utf-8")


def jobs_end(api: httpx.Client, settings: Settings) -> None:
    """What workers would do meanwhile: every queued job succeeds, and so does what follows from it."""
    with Database(settings.resolved_database_url) as database:
        while queued := api.get("/jobs", params={"status": "queued"}).json()["data"]:
            for job in queued:
                worker = Worker(settings, database, job["id"], job["attempt"])
                if job["kind"] == "meta_train":
                    worker.record(worker.metrics(*range(1, 101)))
                    worker.finish_training(weights_file(job["spec"]["recipe"]["rule"]))
                else:
                    made = {"evaluate": evaluation_result, "preview": preview_result}[job["kind"]]
                    worker.finish_evaluation(made(job["family"]))
                worker.close()


@pytest.fixture
def keyed_url(settings: Settings) -> Iterator[str]:
    """A server on the same stores that asks for keys, of which there are none yet."""
    with serving(settings.model_copy(update={"auth": "on"})) as url:
        yield url


@pytest.fixture
def reader(settings: Settings, tmp_path: Path) -> Iterator[Reader]:
    if shutil.which("curl") is None:
        pytest.skip("this machine has no curl")
    folder = tmp_path / "reader"
    folder.mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DATABASE_URL": settings.resolved_database_url,
        "GRADSMITH_DATA_DIR": str(settings.data_dir),
    }
    reading = Reader(folder, environment)
    yield reading
    reading.close()


@pytest.mark.long
def test_every_line_does_what_it_says(settings: Settings, keyed_url: str, reader: Reader) -> None:
    asked: list[Request] = []
    with serving(settings) as url, httpx.Client(base_url=url, timeout=30) as api:
        document = api.get("/openapi.json").json()
        meanwhile: dict[str, Callable[[], object]] = {
            "the jobs end": lambda: jobs_end(api, settings),
            "a server that asks for keys": lambda: reader.run(f"API={keyed_url}"),
        }
        for step in steps(DOC):
            if not isinstance(step, Line):
                meanwhile[step]()
                continue
            line = step.text
            if line.startswith("API="):
                line = f"API={url}"
            printed, requests = reader.run(line)
            assert requests or "$API" not in line or line.startswith("PROD="), f"{line}: nothing was asked"
            if requests:
                assert requests[-1].status == step.promised, f"{line}\n{printed}"
                assert all(request.status < 300 for request in requests[:-1]), requests
            if requests and requests[-1].status >= 400:
                assert json.loads(printed)["code"] in CATALOGUE, printed
            asked += requests
    seen = {operation_of(request, document) for request in asked}
    every = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert every - seen == set(), "no line of docs/api.md shows these"


def operation_of(request: Request, document: dict[str, dict[str, object]]) -> tuple[str, str]:
    path = urlsplit(request.url).path
    method = "GET" if request.method == "HEAD" else request.method
    fitting = [each for each in document["paths"] if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", each), path)]
    return method, min(fitting, key=lambda each: each.count("{"), default=path)


def test_what_a_first_reader_got_wrong_is_said(standing_api: httpx.Client) -> None:
    assert '`ETag` is `"sha256:<hex>"`' in DOC
    assert "Cancelling writes no checkpoint" in DOC
    assert "below 4 it is refused" in DOC
    path = standing_api.get("/openapi.json").json()["paths"]["/jobs/{job_id}/curve"]["get"]
    [schema] = [each["schema"] for each in path["parameters"] if each["name"] == "max_points"]
    assert 4 in [kind.get("minimum") for kind in schema.get("anyOf", [schema])]


def test_every_error_is_named() -> None:
    for code, kind in CATALOGUE.items():
        assert f"`{code}`" in DOC, code
        assert str(kind.status) in DOC


def test_the_example_of_an_error_is_one() -> None:
    example = json.loads(next(block for block in re.findall(r"```json\n(.*?)```", DOC, re.DOTALL)))
    assert example["code"] in CATALOGUE
    assert example["errors"][0]["message"] in example["detail"]
