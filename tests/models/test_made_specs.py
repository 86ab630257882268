"""Specs of all kinds, made from their JSON schemas: each trains a step, or is refused with a pointer to the field.

`./run bench fuzz --only specs` makes 1,000, and `--only expressions` as many losses that are text.
"""

from __future__ import annotations

from pathlib import Path

from models.families import KINDS
from workshop.made_expressions import expression_specs
from workshop.taking import outcome, outcomes, workspace


def test_each_is_trained_on_or_refused_with_a_pointer(tmp_path: Path) -> None:
    seen = outcomes(25, 1, tmp_path)
    assert min(seen["trained"], seen["refused"]) >= 3, seen


def test_each_loss_that_is_text_is_trained_on_or_refused_with_its_column(tmp_path: Path) -> None:
    seen = outcomes(25, 1, tmp_path, expression_specs())
    assert min(seen["trained"], seen["refused"]) >= 3, seen


def test_an_unknown_field_of_any_kind_is_pointed_at(tmp_path: Path) -> None:
    with workspace(tmp_path) as there:
        for kind in KINDS:
            assert outcome({"kind": kind, "unknown": 1}, there, tmp_path) == "refused"
