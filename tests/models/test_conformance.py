"""`families check`: our own families keep every promise, and a family that breaks one is told which."""

from __future__ import annotations

import pytest

from models.families import FAMILIES, KINDS
from models.families.base import Kind
from models.families.mlp import MLPSpec
from models.families.quadratic import QuadraticSpec
from models.tasks import check, footprint
from models.tasks.conformance import CHECKS, Subject, conformance
from tests.models import broken_families, heavy_family

WITHOUT_MEMORY = {name: found for name, found in CHECKS.items() if name != "memory"}


@pytest.fixture(autouse=True)
def without_memory(monkeypatch):
    """Memory is measured in a process of its own, which takes seconds: once, below."""
    monkeypatch.setattr("models.tasks.conformance.CHECKS", WITHOUT_MEMORY)


@pytest.mark.parametrize(
    "spec",
    [QuadraticSpec(dimension=3, distribution="uniform"), MLPSpec(hidden=(4,), activation="relu", batch_size=8)],
    ids=lambda spec: spec.kind,
)
def test_our_families_keep_every_promise(spec):
    assert dict(conformance(Subject(spec))) == dict.fromkeys(WITHOUT_MEMORY)


@pytest.mark.parametrize("promise", [*WITHOUT_MEMORY, "same"])
def test_a_broken_promise_is_found(promise, monkeypatch):
    kind = Kind(broken_families.BrokenSpec, tasks=f"{broken_families.__name__}:{promise}")
    monkeypatch.setitem(KINDS, "broken", kind)
    broken = [name for name, wrong in conformance(Subject(broken_families.BrokenSpec())) if wrong is not None]
    if promise in ("size", "dtype"):  # what computes nothing keeps no other promise
        assert promise in broken
    else:
        assert broken == {"same": ["splits", "seeds"], "seeds": ["company", "seeds"]}.get(promise, [promise])


def test_a_lie_about_memory_is_found(monkeypatch):
    monkeypatch.setenv("GRADSMITH_FAMILIES", heavy_family.__file__)
    wrong = footprint.compared(heavy_family.Heavy())
    assert wrong is not None
    assert "correct costs()" in wrong


def test_the_command_prints_a_line_a_promise_and_fails_when_one_is_broken(monkeypatch, capsys):
    assert check.main(["quadratic"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "quadratic keeps every promise."
    monkeypatch.setitem(KINDS, "broken", Kind(broken_families.BrokenSpec, tasks=f"{broken_families.__name__}:gradient"))
    assert check.main(["broken"]) == 1
    assert "fail  gradient  the gradient of step 0 and autograd's of losses() differ by 9.9e-03" in (
        capsys.readouterr().out
    )
    assert check.main(["no-such"]) == 2
    assert f"there are {', '.join(FAMILIES)}" in capsys.readouterr().err
