"""The tasks that torch alone writes are those that the service declares, and what a section says."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import gradsmith
from benchmarks.own_problems import loops, tables
from benchmarks.own_problems.problems import ATOMS, L1, MEASUREMENTS, PROBLEMS
from gradsmith.types import Optimizer, Report
from models.families.expression import ExpressionSpec
from models.families.lasso import LassoSpec
from models.spec import Split
from models.tasks.catalogue import open_for_training


def test_the_pendulum_of_the_loop_is_the_declared_one() -> None:
    spec = ExpressionSpec.model_validate(dict(PROBLEMS["pendulum"].tasks))
    [batch] = open_for_training(spec).sample(Split.TRAIN, seed=1, trajectory=0, tasks=3, dtype=torch.float64)
    drawn, guesses = batch.buffers(), batch.initial().view(3, 2)
    for task, loss in enumerate(batch.losses(batch.initial(), 0)):
        angle = drawn["angle"][task].view(1)
        seen = loops.swung(angle, drawn["truth"][task]) + drawn["noise"][task]
        own = (loops.swung(angle, guesses[task]) - seen).square().mean()
        assert float(own) == pytest.approx(float(loss), rel=1e-9)


def test_the_lasso_of_the_loop_is_as_hard_as_the_declared_one() -> None:
    """At their start, 0, both have half the squared measurements, whose mean is about 30 * 60 * 0.1 / 30 / 2."""
    spec = LassoSpec.model_validate(dict(PROBLEMS["lasso"].tasks))
    [batch] = open_for_training(spec).sample(Split.TRAIN, seed=1, trajectory=0, tasks=400)
    own = torch.stack([fit.loss().detach() for fit in loops.lassos(None, 0, 400)])
    assert (spec.dimension, spec.measurements, spec.l1) == (ATOMS, MEASUREMENTS, L1)
    assert float(own.mean()) == pytest.approx(float(batch.losses(batch.initial(), 0).mean()), rel=0.15)


def test_a_loop_ends_as_by_hand_and_leaves_the_start_as_it_was() -> None:
    x = nn.Parameter(torch.tensor([3.0]))
    fit = loops.Fit([x], lambda: x.square().sum())
    found = loops.trained(fit, partial(torch.optim.SGD, lr=0.1), 6)
    assert found == pytest.approx(sum(9 * 0.8 ** (2 * step) for step in range(2, 7)) / loops.LAST)
    assert x.tolist() == [3.0]


def test_a_section_says_who_lost() -> None:
    lost = {"baseline": "adam", "schedule": "linear", "ratio_of_means": 2.0, "ratio_interval": [1.5, 2.5]}
    both = {"final": lost, "area": lost}
    losses = {"learned": 0.4, "adam": 0.2}
    report = Report.from_json(
        {
            "family": "own-wine", "horizon": 100, "test_tasks": 128, "verdict": {"final": "loses", "area": "loses"},
            "comparisons": {"best_baseline": both},
            "optimizers": {name: {"final": {"mean": loss}, "area": {"mean": loss}} for name, loss in losses.items()},
            "seconds": {"run": {"learned": 0.2, "adam": 0.1}, "comparisons": {"best_baseline": both}},
            "held_out": {"learned": {"loss": 0.5, "accuracy": 0.9}},
        }
    )  # fmt: skip
    found = tables.Measured(
        report=report,
        optimizer=_optimizer(1, {"training": {"meta_steps": 600}}),
        tuned=_optimizer(2, {"tuned": {"baseline": "adam", "learning_rate": 0.1, "schedule": "linear"}}),
        best="tuned adam",
        seconds=(10.0, 20.0),
        loops={"own-wine@1": 0.6, "own-wine@2": 0.2},
        tasks=16,
        standing=1.0,
    )
    text = "\n".join(tables.lines("wines", found))
    assert "| last five steps | Adam, linear | 2 [1.5, 2.5] | loses | 2 [1.5, 2.5] of Adam |" in text
    assert "| Learned | 0.4 | 0.4 | 0.5 | 90.0 % | 2 |" in text
    assert "ends at 0.6, tuned Adam (learning rate 0.1, linear) at 0.2, 3 times that" in text


def _optimizer(version: int, card: dict[str, Any]) -> Optimizer:
    raw = {"id": f"opt_{version}", "family": "own-wine", "version": version, "sha256": "", "card": card}
    return gradsmith.types.Optimizer.from_json(raw)
