"""Every Python snippet of sdk/README.md runs, in order, against the real service; what it lists is what there is."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

import gradsmith
from gradsmith import errors
from gradsmith.rules import build
from gradsmith.rules.weights import dumps, metadata
from tests.sdk.conftest import SHORTEST

README = (Path(__file__).resolve().parents[2] / "sdk" / "README.md").read_text()


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.long
@pytest.mark.service
@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore:job .* succeeded, but worse_than_standing_still:UserWarning")  # three meta-steps
@pytest.mark.filterwarnings("ignore::gradsmith.OutsideTrainingWarning")  # the fixture's rule learned on 20 steps
@pytest.mark.usefixtures("trained")
def test_the_snippets_run_in_order(
    service_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRADSMITH_URL", service_url)
    monkeypatch.chdir(tmp_path)
    whole = "\n".join(snippets("python"))
    quick = whole.replace('"meta_steps": 300', '"meta_steps": 3, "tasks": 4, "validation_tasks": 4')
    few = json.dumps(SHORTEST)[1:-1]
    quick = quick.replace('"test_tasks": 256', few)
    assert quick.count('"meta_steps": 3,') == quick.count(few) == 1
    exec(compile(quick, "sdk/README.md", "exec"), {"__name__": "readme"})
    said = capsys.readouterr().out
    assert "'final':" in said
    assert "/recipe/horizon" in said
    assert "quadratic@999" in said
    assert "1160" in said


def test_the_documented_metadata_is_what_a_file_holds() -> None:
    (documented,) = snippets("json")
    held = metadata(dumps(build({"kind": "lstm"})))
    assert len(held["tensors_sha256"]) == 64
    assert json.loads(documented) == held | {"tensors_sha256": "..."}  # it depends on the numbers


def test_every_call_is_listed() -> None:
    with gradsmith.Client() as client:
        nouns = {noun: resource for noun, resource in vars(client).items() if not noun.startswith("_")}
    calls = [f"{noun}.{name}" for noun, resource in nouns.items() for name in dir(resource) if not name.startswith("_")]
    assert len(calls) > 25
    assert [call for call in calls if f"`{call}(" not in README] == []


def test_every_error_is_in_the_tree_and_under_one_root() -> None:
    kinds = [value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__]
    kinds.remove(errors.OutsideTrainingWarning)  # raised only where warnings are errors
    assert all(issubclass(kind, gradsmith.GradsmithError) for kind in kinds)
    assert errors.__doc__ is not None
    assert [kind.__name__ for kind in kinds if kind.__name__ not in errors.__doc__] == []
