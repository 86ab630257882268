"""The register of baselines: hand-made optimizers that a learned one is measured against, in two tiers.

A new baseline is one file here and one entry below. All else derives from the register: what a job may name, JSON
schemas, error messages, tuning, the order and the labels of reports. Nothing here imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.baselines.adagrad import ADAGRAD
from models.baselines.adam import ADAM, ADAM_DEFAULT
from models.baselines.adamw import ADAMW
from models.baselines.base import Baseline, Tunable, Untuned, anywhere
from models.baselines.dog import DOG
from models.baselines.fista import FISTA
from models.baselines.lbfgs import LBFGS
from models.baselines.muon import MUON
from models.baselines.nag import NAG
from models.baselines.prodigy import PRODIGY
from models.baselines.rmsprop import RMSPROP
from models.baselines.schedule_free import SCHEDULE_FREE
from models.baselines.schedules import SCHEDULES as SCHEDULES
from models.baselines.sgd import SGD
from models.baselines.soap import SOAP

if TYPE_CHECKING:
    from models.task_spec import TaskSpec

TUNED: dict[str, Tunable] = {each.name: each for each in (SGD, NAG, RMSPROP, ADAM, ADAMW, ADAGRAD, MUON, SOAP, LBFGS)}
"""Baselines whose learning rate and schedule are tuned for the family, from plain to refined."""

UNTUNED: dict[str, Untuned] = {each.name: each for each in (ADAM_DEFAULT, SCHEDULE_FREE, PRODIGY, DOG, FISTA)}
"""Baselines that run once, at their published defaults."""

BASELINES: dict[str, Baseline] = {**TUNED, **UNTUNED}
"""Every baseline by its name: the order of reports."""

DEFAULT_TUNED = tuple(name for name, each in TUNED.items() if each.usual is anywhere)
DEFAULT_UNTUNED = tuple(name for name, each in UNTUNED.items() if each.usual is anywhere)
"""What a learned optimizer is measured against where a job names nothing, whatever the tasks."""


def usual_tuned(tasks: TaskSpec) -> tuple[str, ...]:
    """The tuned tier where a job names nothing: DEFAULT_TUNED, and what suits these tasks."""
    return tuple(name for name, each in TUNED.items() if each.usual(tasks))


def usual_untuned(tasks: TaskSpec) -> tuple[str, ...]:
    """The untuned tier where a job names nothing."""
    return tuple(name for name, each in UNTUNED.items() if each.usual(tasks))
