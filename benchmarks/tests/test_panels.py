"""The panels can be run: every training is a job that POST would take, and every panel has one."""

from __future__ import annotations

import pytest

from benchmarks.panels import PANELS, TRAININGS, problem
from models.spec import MetaTrainSpec, Resources


@pytest.mark.parametrize("name", TRAININGS)
def test_every_training_is_a_job(name: str) -> None:
    family = TRAININGS[name].spec
    job = MetaTrainSpec(
        family=family, seed=0, recipe=family.recipe, evaluate=False, evaluation=family.evaluation, resources=Resources()
    )
    assert job.recipe.rule.kind == ("lstm" if TRAININGS[name].paper else "hyper")


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel.name} by {panel.training}")
def test_every_panel_is_a_problem_with_what_it_changes(panel) -> None:  # type: ignore[no-untyped-def]
    told = problem(panel).model_dump()
    assert {
        name: list(told[name]) if isinstance(told[name], tuple) else told[name] for name in panel.tasks
    } == panel.tasks
