"""Specs of all kinds, made from their JSON schemas: each trains a step, or is refused with a pointer to the field.

`./run bench fuzz --only specs` makes 1,000, and `--only expressions` as many losses that are text.
"""

from __future__ import annotations

from pathlib import Path

from models.datasets.inspection import Column
from models.families import KINDS
from models.families.transformer import TransformerSpec
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


def test_a_table_of_other_values_is_refused_before_a_job_fails_by_it(tmp_path: Path) -> None:
    """Its inputs are no tokens."""
    with workspace(tmp_path) as there:
        assert outcome({"kind": "transformer", "dataset": "rows"}, there, tmp_path) == "refused"
        assert outcome({"kind": "autoencoder", "dataset": "rows", "hidden": [2]}, there, tmp_path) == "trained"


def test_tokens_are_whole_numbers_below_the_vocabulary() -> None:
    spec = TransformerSpec(vocabulary=3)
    good = Column(name="t", type="whole number", missing=0, low=0, high=2)
    assert spec.misfit([good, good]) is None
    for change in ({"type": "number"}, {"missing": 1}, {"low": -1.0}, {"high": 3.0}):
        wrong = spec.misfit([good, good.model_copy(update=change)])
        assert wrong is not None
        assert "tokens from 0 to 2" in wrong
