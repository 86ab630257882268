"""A distribution whose tasks differ in size is trained, validated and evaluated like any other."""

from __future__ import annotations

import pytest
import torch

from gradsmith.rules import build
from models.backends import TorchBackend
from models.baselines import TUNED
from models.evaluation.evaluate import evaluate
from models.families import KINDS
from models.families.base import Kind
from models.groups import Groups
from models.measured import MeasuringResult
from models.meta_train import TrainingResult, meta_train
from models.rollout import Sample, curves, run
from models.spec import Split
from models.tasks.catalogue import open_for_testing, open_for_training
from models.tasks.conformance import CHECKS, Subject, conformance
from models.tuning import Tuned
from models.unroll import begin, unroll_window
from tests.models.mixed_family import MIXED, MixedSpec


@pytest.fixture(autouse=True)
def mixed(monkeypatch):
    monkeypatch.setitem(KINDS, "mixed", Kind(MixedSpec, tasks="tests.models.mixed_tasks:MixedFamily"))


def test_a_sample_has_a_batch_for_each_size_and_every_task_once():
    batches = open_for_training(MixedSpec()).sample(Split.TRAIN, seed=0, trajectory=0, tasks=40)
    assert [batch.coordinates_per_task for batch in batches] == [2, 3, 7]
    assert sum(batch.tasks for batch in batches) == 40


def test_it_keeps_every_promise(monkeypatch):
    without = {name: check for name, check in CHECKS.items() if name != "memory"}
    monkeypatch.setattr("models.tasks.conformance.CHECKS", without)
    assert dict(conformance(Subject(MixedSpec()))) == dict.fromkeys(without)


def test_the_meta_gradient_is_that_of_the_mean_over_all_tasks():
    family = open_for_training(MixedSpec())
    backend = TorchBackend(build({"kind": "lstm", "hidden_size": 4, "layers": 1}).double())
    batches = family.sample(Split.TRAIN, seed=0, trajectory=0, tasks=6, dtype=torch.float64)

    def plain(batch, steps):
        return unroll_window(batch, begin(batch, backend), steps, backend)[0]

    together = Groups(batches, backend).unroll(
        lambda batch, position, steps: unroll_window(batch, position, steps, backend), 4
    )
    each = []
    for index in range(6):
        [alone] = family.sample(Split.TRAIN, seed=0, trajectory=0, tasks=1, first=index, dtype=torch.float64)
        each.append(plain(alone, 4))
    torch.testing.assert_close(together.gradient, torch.stack([window.gradient for window in each]).mean(dim=0))
    assert float(together.losses.mean()) == pytest.approx(float(torch.cat([w.losses for w in each]).mean()))


def test_validation_and_evaluation_run_every_size():
    family, still = open_for_testing(MixedSpec()), Tuned(TUNED["sgd"], 0.01, "constant", 5)
    found = curves(run(still, family, Sample(Split.TEST, 0, 0, 9), 5))
    alone = torch.cat([curves(run(still, family, Sample(Split.TEST, 0, 0, 1, i), 5)).losses for i in range(9)], dim=1)
    assert found.losses.shape == (6, 9)
    torch.testing.assert_close(found.losses[-1].sort().values, alone[-1].sort().values)


def test_a_whole_job(training_spec, evaluation_spec):
    spec = training_spec(meta_steps=8).model_copy(update={"family": MIXED})
    result = list(meta_train(spec))[-1]
    assert isinstance(result, TrainingResult)
    again = list(meta_train(spec))[-1]
    assert result.weights == again.weights
    measured = list(evaluate(result.weights, evaluation_spec().model_copy(update={"family": MIXED})))[-1]
    assert isinstance(measured, MeasuringResult)
    assert measured.result["test_tasks"] == 16
