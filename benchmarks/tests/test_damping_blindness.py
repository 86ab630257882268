"""The table of damping blindness: central differences of the loss know nothing of adjoints, and agree."""

from __future__ import annotations

import pytest
import torch

from benchmarks import damping_blindness
from models.families.mlp import MLPSpec
from models.meta_loss import MetaLoss
from models.spec import Split
from models.tasks.catalogue import open_for_training


def test_the_exact_meta_gradient_of_a_whole_run_is_the_truth(tmp_path):
    torch.set_num_threads(1)
    family = open_for_training(MLPSpec(batch_size=32, hidden=(5,)))
    [tasks] = family.sample(Split.TRAIN, seed=0, trajectory=0, tasks=2, dtype=torch.float64)
    estimates = [(mode, MetaLoss(mode), 20) for mode in ("detached", "exact")]
    found = damping_blindness.measure(tasks, 20, estimates)
    assert found["exact"] == pytest.approx(found["truth"], rel=1e-3)
    assert found["detached"] != pytest.approx(found["truth"], rel=0.1)
    assert "| fresh over stale | **" in damping_blindness.table(found)
    assert damping_blindness.draw(found, tmp_path / "picture.png").stat().st_size > 10_000
