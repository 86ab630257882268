"""From the description of a family to the family itself, opened for what its user may see."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from models.spec import QuadraticSpec, Split, TaskSpec
from models.tasks.base import Family
from models.tasks.mlp import MLPFamily
from models.tasks.quadratic import QuadraticFamily

TRAINING_SPLITS = frozenset({Split.TRAIN, Split.VALIDATION})


def open_for_training(tasks: TaskSpec, data_dir: Path | None = None) -> Family:
    """Training and validation tasks; a test task cannot be drawn from what this returns."""
    return _opened(tasks, TRAINING_SPLITS, data_dir)


def open_for_tuning(tasks: TaskSpec, data_dir: Path | None = None) -> Family:
    """Validation tasks alone: what the learning rates of baselines are tuned on."""
    return _opened(tasks, frozenset({Split.VALIDATION}), data_dir)


def open_for_testing(tasks: TaskSpec, data_dir: Path | None = None) -> Family:
    """Test tasks alone: what an optimizer is measured on, once everything has been chosen."""
    return _opened(tasks, frozenset({Split.TEST}), data_dir)


def _opened(tasks: TaskSpec, splits: Collection[Split], data_dir: Path | None) -> Family:
    """Raises DatasetMissing or DatasetCorrupt when the family's data cannot be had."""
    if isinstance(tasks, QuadraticSpec):
        return QuadraticFamily(tasks, splits)
    return MLPFamily(tasks, splits, data_dir)
