"""A kind of job has a row on each floor. Where one lacks a row, mypy says so or one of these."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi import params
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter

from app.api.jobs import router
from app.auth import unkeyed
from app.http.problems import Problem
from app.jobs.kinds import AnyRequest, JobRequest
from app.jobs.room import refuse_too_large
from app.jobs.submission import prepared, submit
from app.settings import Settings
from app.store.idempotency import Answer
from app.store.jobs import JobRepository, kind_of, spec_of
from app.store.sessions import Database
from app.store.tables import JobRow
from models.spec import JobKind, JobSpec
from workshop.working import Worker

ROOT = Path(__file__).parents[3]
KINDS: tuple[str, ...] = get_args(JobKind)
BODY: TypeAdapter[Any] = TypeAdapter(JobRequest)


def by_kind(*models: type[BaseModel]) -> dict[str, type[BaseModel]]:
    return {get_args(model.model_fields["kind"].annotation)[0]: model for model in models}


SPECS = by_kind(*get_args(get_args(JobSpec)[0]))
REQUESTS = by_kind(*get_args(AnyRequest))


def examples() -> dict[str, dict[str, Any]]:
    """The body of each kind that the API's document shows."""
    [route] = [each for each in router.routes if isinstance(each, APIRoute) and each.operation_id == "jobs_create"]
    assert route.body_field is not None
    info = route.body_field.field_info
    assert isinstance(info, params.Body)
    return {example["value"]["kind"]: example["value"] for example in (info.openapi_examples or {}).values()}


def test_every_kind_has_its_rows() -> None:
    workers = {path.stem for path in (ROOT / "workers/kinds").glob("*.py")} - {"__init__"}
    requests = {path.stem for path in (ROOT / "app/jobs/kinds").glob("*.py")} - {"__init__"}
    assert requests - workers == {"sweeping"}, "no worker runs a sweep"
    assert len(requests) == len(KINDS)
    for rows in (SPECS, REQUESTS, examples()):
        assert set(rows) == set(KINDS)
    assert all((request.__doc__ or "").partition(".")[0] for request in REQUESTS.values()), "what a wrong kind is told"
    api = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f'"kind": "{kind}"' not in api] == []
    # no type checker reads what a browser decides
    assert [kind for kind in KINDS if f'"{kind}"' not in (ROOT / "app/static/dashboard/new-job.js").read_text()] == []


def trained(settings: Settings, database: Database) -> None:
    """quadratic@1, for kinds that measure one."""
    [job] = posted(settings, database, {"kind": "meta_train", "family": "quadratic", "evaluate": False})
    worker = Worker(settings, database, job.id)
    worker.finish_training()
    worker.close()


def posted(settings: Settings, database: Database, *bodies: dict[str, Any]) -> list[JobRow]:
    asked = [prepared(BODY.validate_python(body), unkeyed(), settings) for body in bodies]
    answers = submit(database, settings, asked)
    with database.read() as session:
        jobs = JobRepository(session)
        found = [answers[each] for each in asked]
        return [
            jobs.get(answer.headers["Location"].removeprefix("/jobs/"))
            for answer in found
            if isinstance(answer, Answer) or pytest.fail(str(answer))
        ]


def test_every_kind_goes_from_its_request_to_the_spec_that_a_worker_reads(
    settings: Settings, sqlite_database: Database
) -> None:
    trained(settings, sqlite_database)
    shown = examples()
    for kind, job in zip(KINDS, posted(settings, sqlite_database, *map(shown.get, KINDS)), strict=True):  # type: ignore[arg-type]
        spec = spec_of(job)
        assert isinstance(spec, SPECS[kind])
        assert (kind_of(job), job.total, job.device) == (kind, spec.total, spec.resources.device)
        with pytest.raises(Problem, match="Lower ") as refused:
            refuse_too_large(spec, 1)
        advice = str(refused.value).partition("Lower ")[2].rstrip(".").replace(" or ", ", ").split(", ")
        fields = [field.split(".") for field in advice]
        assert all(name in spec.model_dump()[part] for part, name in fields), advice


def trees() -> Iterator[tuple[str, ast.AST]]:
    for folder in ("app", "models", "workers", "workshop"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def decisions(tree: ast.AST) -> tuple[list[int], list[int]]:
    """Lines where a kind of job is decided: by a `match` that ends in assert_never, and in any other way.

    An assertion decides nothing, and `JobRow.kind == ...` is a condition of a query.
    """
    classes = {model.__name__ for model in (*SPECS.values(), *REQUESTS.values())}
    asserted = {id(node.test) for node in ast.walk(tree) if isinstance(node, ast.Assert)}
    exhaustive, others = [], []
    for node in ast.walk(tree):
        if isinstance(node, ast.Match):
            patterns = [pattern for case in node.cases for pattern in ast.walk(case.pattern)]
            named = {ast.unparse(pattern.cls) for pattern in patterns if isinstance(pattern, ast.MatchClass)} & classes
            values = {ast.unparse(each.value).strip("'") for each in patterns if isinstance(each, ast.MatchValue)}
            if named or values & set(KINDS):
                closed = ast.unparse(node.cases[-1]).partition(":")[2].strip().startswith("assert_never(")
                (exhaustive if closed else others).append(node.lineno)
        elif isinstance(node, ast.Compare) and not ast.unparse(node.left).endswith("Row.kind"):
            compared = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
            if any(value in KINDS for value in compared) and "kind" in ast.unparse(node):
                others.append(node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance" and id(node) not in asserted:
            asked = {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
            others += [node.lineno] if asked & classes else []
    return exhaustive, others


def test_wherever_a_kind_decides_mypy_names_what_a_new_one_lacks() -> None:
    found = {name: decisions(tree) for name, tree in trees()}
    assert {name: lines for name, (_, lines) in found.items() if lines} == {}
    places = {name: len(lines) for name, (lines, _) in found.items() if lines}
    assert sum(places.values()) == 13, f"what a new kind must fill, besides its own files: {places}"


@pytest.mark.parametrize(
    "code",
    [
        'if job.kind == "evaluate": pass',
        'x = 0 if job.kind != "meta_train" else 1',
        "if isinstance(spec, EvaluateSpec): pass",
        "match spec:\n case MetaTrainSpec(): pass\n case _: pass",
        'match kind:\n case "evaluate": pass',
    ],
)
def test_a_decision_that_takes_the_other_kind_for_granted_is_found(code: str) -> None:
    assert decisions(ast.parse(code)) == ([], [1])


def test_other_comparisons_are_not_taken_for_decisions() -> None:
    fine = 'assert isinstance(s, EvaluateSpec)\nx = JobRow.kind == "evaluate"\ny = event.kind == "done"'
    assert decisions(ast.parse(fine)) == ([], [])
    closed = "match spec:\n case EvaluateSpec(): pass\n case never: assert_never(never)"
    assert decisions(ast.parse(closed)) == ([1], [])
