"""From the description of a family to the family itself, opened for what its user may see."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Collection
from pathlib import Path

from models.errors import FamilyBroken, UnknownKind
from models.families import KINDS, no_such_kind
from models.families.base import Kind
from models.memory import tasks_abreast
from models.spec import Split
from models.task_spec import TaskSpec
from models.tasks.base import Family

logger = logging.getLogger(__name__)

TRAINING_SPLITS = frozenset({Split.TRAIN, Split.VALIDATION})


def open_for_training(tasks: TaskSpec, data_dir: Path | None = None) -> Family:
    """Training and validation tasks; a test task cannot be drawn from what this returns."""
    return opened(tasks, TRAINING_SPLITS, data_dir)


def open_for_tuning(tasks: TaskSpec, data_dir: Path | None = None) -> Family:
    """Validation tasks alone: what the learning rates of baselines are tuned on."""
    return opened(tasks, frozenset({Split.VALIDATION}), data_dir)


def open_for_testing(tasks: TaskSpec, data_dir: Path | None = None) -> Family:
    """Test tasks alone: what an optimizer is measured on, once everything has been chosen."""
    return opened(tasks, frozenset({Split.TEST}), data_dir)


def opened(tasks: TaskSpec, splits: Collection[Split], data_dir: Path | None) -> Family:
    """The family, opened for these splits.

    Raises DatasetMissing or DatasetCorrupt when the family's data cannot be had, UnknownKind for a kind that
    is not registered, and FamilyBroken as `tasks_class` does.
    """
    kind = KINDS.get(tasks.kind)
    if kind is None or not isinstance(tasks, kind.spec):
        raise UnknownKind(no_such_kind(tasks.kind))
    family = tasks_class(kind)(tasks, splits, data_dir)
    family.parts = tasks.parts()
    family.tasks_abreast = tasks_abreast(tasks.coordinates_per_task, tasks.costs())
    return family


def tasks_class(kind: Kind) -> Callable[[TaskSpec, Collection[Split], Path | None], Family]:
    """The half of a kind that makes tasks. Raises FamilyBroken when it cannot be imported."""
    module, _, name = kind.tasks.partition(":")
    try:
        opener: Callable[[TaskSpec, Collection[Split], Path | None], Family]
        opener = getattr(importlib.import_module(module), name)
    except Exception as error:  # a plug-in's module may raise anything
        logger.exception("The tasks of kind %s (%s) cannot be imported.", kind.name, kind.tasks)
        raise FamilyBroken(
            f"The tasks of kind {kind.name!r} cannot be imported from {kind.tasks}: {type(error).__name__}: {error}. "
            f"The log has the traceback; mend the plug-in, or install what it needs."
        ) from error
    return opener
