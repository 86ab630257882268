"""Runs on a panel's test tasks, kept in files: what the tables are made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from benchmarks.panels.catalogue import Panel
from gradsmith.rules import weights as rule_weights
from models.backends import backend_for
from models.rollout import Contender, Learned, Sample, curves, run
from models.spec import Split
from models.tasks.catalogue import open_for_testing

TEST_TASKS = 128
SEED = 0
FORMAT = 1
"""Counts changes after which what was kept is no longer what would be found."""

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """One optimizer on a panel's test tasks.

    losses: (horizon + 1, tasks); final and area: (tasks,), of the training minibatches
    test_losses, accuracies: (tasks,) on test images after the last step, or empty
    """

    losses: Tensor
    final: Tensor
    area: Tensor
    test_losses: Tensor
    accuracies: Tensor


def found(contender: Contender, panel: Panel, data_dir: Path | None) -> Found:
    """Run it on the test tasks."""
    family = open_for_testing(panel.problem, data_dir)
    sample = Sample(Split.TEST, SEED, 0, TEST_TASKS)
    made = curves(run(contender, family, sample, panel.horizon, held_out=True))
    none = torch.empty(0)
    test = (made.held_out.losses, made.held_out.accuracies) if made.held_out else (none, none)
    return Found(made.losses, made.final.double(), made.area.double(), *test)


def learned(panel: Panel, weights: bytes) -> Learned:
    """The rule in a weights file, as users run it."""
    rule = rule_weights.loads(weights)
    backend = backend_for(rule, torch.float32, torch.device("cpu"), parts=panel.problem.parts())
    return Learned(backend, rests=True, horizon=panel.horizon)


def kept(kind: Callable[..., T], keep: Path, told: list[object], work: Callable[[], T]) -> T:
    """What was found under this description before, or what `work` finds now. kind: a dataclass of tensors"""
    name = hashlib.sha256(json.dumps([FORMAT, TEST_TASKS, *told]).encode()).hexdigest()[:16]
    path = keep / "runs" / f"{name}.pt"
    if path.exists():
        return kind(**torch.load(path, weights_only=True))
    result = work()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(vars(result), path)
    return result


def of_rule(panel: Panel, weights: bytes, data_dir: Path | None, keep: Path) -> Found:
    """A rule on the panel's test tasks."""
    told = [*panel.told, hashlib.sha256(weights).hexdigest()]
    return kept(Found, keep, told, lambda: found(learned(panel, weights), panel, data_dir))
