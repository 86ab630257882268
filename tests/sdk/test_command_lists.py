"""What the command's lists say of records that a service, which is made here, has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from typer.testing import CliRunner

from gradsmith.cli.program import program
from tests.sdk.records import problem_json
from workshop.serving import serving_app

EVALUATIONS = [
    {"family": "churn", "overrides": {}, "verdict": {"final": "loses", "area": "loses"}, "job": "job_2"},
    {"family": "quadratic", "overrides": {}, "verdict": {"final": "wins", "area": "wins"}, "job": "job_1"},
]
OPTIMIZER = {
    "id": "opt_" + "1" * 32, "family": "quadratic", "version": 3, "sha256": "ab", "aliases": ["best", "latest"],
    "evaluations": EVALUATIONS,
}  # fmt: skip


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = FastAPI()

    @app.get("/optimizers")
    def optimizers(family: str = "quadratic") -> dict[str, Any]:
        return {"data": [OPTIMIZER] if family == "quadratic" else [], "has_more": False, "next": None}

    @app.get("/optimizers/{name}")
    def optimizer(name: str) -> dict[str, Any]:
        return OPTIMIZER | {"reference": name}

    @app.get("/families")
    def families() -> dict[str, Any]:
        return {"data": [{"name": name} for name in ("quadratic", "churn")], "has_more": False, "next": None}

    @app.get("/jobs")
    def jobs() -> dict[str, Any]:
        return {"data": [], "has_more": False, "next": None}

    @app.post("/jobs")
    def create() -> JSONResponse:
        nothing = {"location": "body", "pointer": "", "code": "nothing_swept", "message": "sweeps nothing"}
        return JSONResponse(problem_json(422, "invalid_request", errors=[nothing]), 422)

    with serving_app(app) as address:
        yield address


def said(url: str, *arguments: str) -> str:
    done = CliRunner().invoke(program, arguments, env={"GRADSMITH_URL": url, "COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_a_list_has_the_verdict_on_the_optimizers_own_family(url: str) -> None:
    row = said(url, "optimizers", "list").splitlines()[-1]
    assert ("wins, wins" in row, "loses" in row) == (True, False)
    shown = said(url, "optimizers", "show", "quadratic@3")
    assert "evaluation 1 on churn" in shown
    assert "evaluation 2 " in shown
    assert "evaluation 2 on" not in shown


def test_a_sweep_without_ranges_says_what_to_add(url: str) -> None:
    for dry in ((), ("--dry-run",)):
        told = " ".join(said(url, "sweep", "quadratic", *dry).split())
        assert "add --set recipe.meta_learning_rate=0.001..0.1:log" in told


@pytest.mark.parametrize("noun", ["job", "optimizer"])
def test_an_empty_list_of_one_family_says_so(url: str, noun: str) -> None:
    for family, expected in (
        ("chrn", f"No {noun}s of family 'chrn'. Did you mean 'churn'?"),
        ("nosuch", "there is no such family"),
        ("churn", f"`gradsmith {noun}s` lists those of every family"),
    ):
        told = " ".join(said(url, f"{noun}s", "list", "--family", family).split())
        assert expected in told
        assert "starts one" not in told
        assert "makes one" not in told


@pytest.mark.parametrize("command", ["show", "pull"])
def test_a_family_in_the_place_of_an_optimizer_is_told_its_references(url: str, command: str) -> None:
    told = " ".join(said(url, "optimizers", command, "churn").split())
    assert "did you mean churn@best or churn@latest?" in told
