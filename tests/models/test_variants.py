"""The paper's variants as jobs: rules with averaging cells and with a shared matrix train, load and run."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from gradsmith import LearnedOptimizer
from gradsmith.rules import weights
from models.evaluation.evaluate import evaluate
from models.meta_train import TrainingResult, Validated, meta_train
from models.spec import NO_ROOM, overridden

RULES = {
    "averaging": {"kind": "lstm", "hidden_size": 8, "averaging": 2, "input": "raw", "output_scale": 0.1},
    "ntm_bfgs": {"kind": "ntm_bfgs", "hidden_size": 8, "averaging": 2, "memory_size": 10, "output_scale": 0.1},
}


@pytest.mark.parametrize("mode", ["detached", "exact"])
@pytest.mark.parametrize("name", RULES)
def test_a_job_trains_it_and_users_load_what_it_made(training_spec, name, mode):
    spec = training_spec(rule=RULES[name], meta_steps=40, tasks=4, meta_gradient=mode, validation_interval=10)
    *events, result = meta_train(spec)
    assert isinstance(result, TrainingResult)
    scores = [event.score for event in events if isinstance(event, Validated)]
    assert all(math.isfinite(score) for score in scores)
    assert min(scores[1:]) < scores[0], "it learns"
    parameter = torch.nn.Parameter(torch.ones(10))
    optimizer = LearnedOptimizer([parameter], weights.loads(result.weights))
    for _ in range(3):
        optimizer.zero_grad()
        (parameter**2).sum().backward()
        optimizer.step()
    assert torch.isfinite(parameter).all()
    assert not torch.equal(parameter.detach(), torch.ones(10))


def test_an_evaluation_measures_it_and_shows_its_updates(training_spec, evaluation_spec):
    *_, result = meta_train(training_spec(rule=RULES["ntm_bfgs"], meta_steps=4, tasks=2))
    spec = evaluation_spec(baselines=["sgd"], schedules=["constant"], untuned=[])
    *_, measured = evaluate(result.weights, spec)
    assert measured.result["runtime"]["backend"] == "torch"
    assert len(measured.result["anatomy"]["updates"]["learned"][0]) == 20


def test_a_task_without_room_in_the_matrix_is_refused(training_spec):
    with pytest.raises(ValidationError, match="moves 9 coordinates of a task at most, and is to move 10") as refused:
        training_spec(rule=RULES["ntm_bfgs"] | {"memory_size": 9})
    assert refused.value.errors()[0]["type"] == NO_ROOM
    mixture = [{"family": "digits-mlp", "tasks": {"kind": "mlp", "dataset": "digits"}, "weight": 1.0}]
    with pytest.raises(ValidationError, match="digits-mlp: a rule of kind 'ntm_bfgs'"):
        training_spec(rule=RULES["ntm_bfgs"], mixture=mixture)


def test_more_averaging_cells_than_cells_are_refused(training_spec):
    with pytest.raises(ValidationError, match="a layer has hidden_size 8 cells; send 8 at most"):
        overridden(training_spec().recipe, {"rule": RULES["averaging"] | {"averaging": 9}})
