"""The register of baselines: hand-made optimizers that a learned one is measured against, each tuned first.

A new baseline is one file here and one entry below. All else derives from the register: what a job may name, JSON
schemas, error messages, tuning, the order and the labels of reports. Nothing here imports torch.
"""

from __future__ import annotations

from models.baselines.adagrad import ADAGRAD
from models.baselines.adam import ADAM
from models.baselines.base import Baseline as Baseline
from models.baselines.nag import NAG
from models.baselines.rmsprop import RMSPROP
from models.baselines.sgd import SGD

BASELINES: dict[str, Baseline] = {each.name: each for each in (SGD, NAG, RMSPROP, ADAM, ADAGRAD)}
"""Every baseline by its name, from plain to refined: the order of reports."""

DEFAULT_BASELINES = tuple(name for name, each in BASELINES.items() if each.by_default)
"""What a learned optimizer is measured against where a job names nothing."""
