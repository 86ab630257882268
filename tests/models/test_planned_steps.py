"""What rules know of a run's length reaches them: schedules by linear decay are the baselines' own, step by step."""

from __future__ import annotations

import pytest
import torch

from gradsmith.rules import build
from models.backends import TorchBackend, backend_for
from models.baselines import TUNED
from models.baselines.base import AtRate
from models.baselines.schedules import rate
from models.families.mlp import MLPSpec
from models.meta_loss import MetaLoss
from models.rollout import Learned, Sample, curves, run
from models.spec import Split
from models.tasks.catalogue import open_for_tuning
from models.unroll import begin, unroll_window
from tests.models.unrolled import FAMILIES, make_tasks, through_the_whole_graph

SPEC = MLPSpec(hidden=(4,), batch_size=12)
HORIZON = 12


class Baseline:
    def __init__(self, name: str, schedule: str) -> None:
        self._name, self._schedule = name, schedule

    def start(self, tasks):
        return AtRate(TUNED[self._name].start(tasks), rate(0.05, self._schedule, HORIZON))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("name", ["nag", "adamw"])
def test_a_tuned_rule_runs_as_the_baseline_does(name, schedule):
    rule = build({"kind": "tuned", "optimizer": name, "learning_rate": 0.05, "schedule": schedule})
    backend = backend_for(rule, torch.float64, torch.device("cpu"), parts=SPEC.parts())
    family, sample = open_for_tuning(SPEC), Sample(Split.VALIDATION, 0, 0, 2)
    contenders = (Learned(backend, horizon=HORIZON), Baseline(name, schedule))
    ours, theirs = (curves(run(each, family, sample, HORIZON, dtype=torch.float64)).losses for each in contenders)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", ["detached", "exact"])
def test_the_meta_gradient_of_a_schedule_is_that_of_the_whole_graph(mode):
    rule, tasks = build({"kind": "schedule", "knots": 5, "output_scale": 0.2}).double(), make_tasks("quadratic")
    expected, _ = through_the_whole_graph(rule, tasks, 5, 2, exact=mode == "exact")
    backend = TorchBackend(rule, parts=FAMILIES["quadratic"].parts())
    position = begin(tasks, backend)
    for reference in expected:
        window, position = unroll_window(tasks, position, 5, backend, MetaLoss(mode))
        torch.testing.assert_close(window.gradient, reference, rtol=1e-9, atol=1e-12)
