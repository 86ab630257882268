"""From the description of a family to the family itself, opened for what its user may see."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from pathlib import Path

from models.errors import UnknownKind
from models.families import KINDS
from models.spec import Split
from models.task_spec import TaskSpec
from models.tasks.base import Family

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
    """Raises DatasetMissing or DatasetCorrupt when the family's data cannot be had, UnknownKind where no kind has this
    spec."""
    kind = KINDS.get(tasks.kind)
    if kind is None or not isinstance(tasks, kind.spec):
        raise UnknownKind(
            f"No kind of family {tasks.kind!r} is registered here ({', '.join(KINDS)} are); "
            f"install the plug-in that adds it on this machine."
        )
    module, _, name = kind.tasks.partition(":")
    family: Family = getattr(importlib.import_module(module), name)(tasks, splits, data_dir)
    return family
