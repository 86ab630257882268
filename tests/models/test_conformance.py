"""`families check`: our own families keep every promise, and a family that breaks one is told which."""

from __future__ import annotations

import re

import pytest

from models.families import FAMILIES, KINDS
from models.families.base import Kind
from models.families.mlp import MLPSpec
from models.families.quadratic import QuadraticSpec
from models.tasks import check, footprint
from models.tasks.conformance import CHECKS, Subject, conformance
from tests.models import broken_families, heavy_family, light_family

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
        with_others = {
            "gradient": ["gradient", "hessian"],  # whose Hessian is another than the product's
            "company": ["hessian", "company"],
            "same": ["splits", "seeds"],
            "seeds": ["company", "seeds"],
        }
        assert broken == with_others.get(promise, [promise])


def test_a_family_without_a_product_of_its_own_keeps_every_promise(monkeypatch):
    kind = Kind(broken_families.BrokenSpec, tasks=f"{broken_families.__name__}:differences")
    monkeypatch.setitem(KINDS, "broken", kind)
    assert dict(conformance(Subject(broken_families.BrokenSpec()))) == dict.fromkeys(WITHOUT_MEMORY)


@pytest.mark.long
def test_a_lie_about_memory_is_found(monkeypatch):
    monkeypatch.setenv("GRADSMITH_FAMILIES", heavy_family.__file__)
    wrong = footprint.compared(heavy_family.Heavy())
    assert wrong is not None
    assert "correct costs()" in wrong


def test_a_lie_upwards_about_tasks_of_several_sizes_is_found(monkeypatch):
    monkeypatch.setenv("GRADSMITH_FAMILIES", light_family.__file__)
    assert re.search(r"MiB for the [0-9,]+ largest of them alone", footprint.compared(light_family.Light()) or "")


@pytest.mark.parametrize(
    ("times", "measured", "wrong"),
    [
        (1, 200 * 2**20, None),  # 1,000 of the largest hold 154 MiB, 3,000 hold 462; drawing takes 48
        (1, 60 * 2**20, r"60 MiB, and costs\(\) add up to 202 MiB for the 1,000 largest"),
        (1, 800 * 2**20, r"800 MiB, and costs\(\) add up to 510 MiB; "),
        (3, 200 * 2**20, "for the 1,000 largest"),
    ],
)
def test_tasks_of_several_sizes_take_between_their_largest_alone_and_as_many_of_them(times, measured, wrong):
    found = footprint.judged(light_family.Light(times=times), footprint.Measured(3000, 1000, measured))
    assert found is None if wrong is None else re.search(wrong, found or "")


@pytest.mark.parametrize(
    ("tasks", "broken", "wrong"),
    [
        ("no_such_module:Family", ["open"], "ModuleNotFoundError: No module named 'no_such_module'"),
        (f"{broken_families.__name__}:draws", [*WITHOUT_MEMORY], "RuntimeError: no task can be drawn"),
    ],
)
def test_an_exception_that_ends_several_checks_is_logged_once(monkeypatch, caplog, tasks, broken, wrong):
    monkeypatch.setitem(KINDS, "broken", Kind(broken_families.BrokenSpec, tasks=tasks))
    found = dict(conformance(Subject(broken_families.BrokenSpec())))
    assert [*found] == broken
    assert all(wrong in said for said in found.values())
    assert caplog.text.count("Traceback") == 1


def test_an_exception_of_the_process_that_measures_is_told_with_its_traceback():
    with pytest.raises(footprint.DrawingFailed, match=r"Traceback(.|\n)*There is no kind of family 'broken'"):
        footprint.compared(broken_families.BrokenSpec())  # which no plug-in brings


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
