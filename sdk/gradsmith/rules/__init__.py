"""The forward math of every learned rule: pure functions `(gradient, state) -> (update, state)` in plain torch.

This is the one place where a rule's math is told. Meta-training differentiates these objects; users run the same
objects under `no_grad` through `gradsmith.LearnedOptimizer`.

Importing this package brings no torch, so that what is known of a rule without running it (`configs`, `kernels.sizes`)
can be asked by processes that have none; each name below brings it when it is touched.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradsmith.rules.base import Rule as Rule
    from gradsmith.rules.base import State as State
    from gradsmith.rules.construction import KINDS as KINDS
    from gradsmith.rules.construction import build as build
    from gradsmith.rules.construction import initialise as initialise
    from gradsmith.rules.hyper import HyperRule as HyperRule
    from gradsmith.rules.lstm import LSTMRule as LSTMRule
    from gradsmith.rules.mlp import MLPRule as MLPRule
    from gradsmith.rules.ntm_bfgs import NTMBFGSRule as NTMBFGSRule
    from gradsmith.rules.rule_set import Rules as Rules
    from gradsmith.rules.rule_set import RuleSet as RuleSet
    from gradsmith.rules.rule_set import assembled as assembled
    from gradsmith.rules.schedule import ScheduleRule as ScheduleRule
    from gradsmith.rules.segments import Segments as Segments
    from gradsmith.rules.tuned import TunedRule as TunedRule

__all__ = [
    "KINDS",
    "HyperRule",
    "LSTMRule",
    "MLPRule",
    "NTMBFGSRule",
    "Rule",
    "RuleSet",
    "Rules",
    "ScheduleRule",
    "Segments",
    "State",
    "TunedRule",
    "assembled",
    "build",
    "initialise",
]

_HOMES = {
    "KINDS": "construction",
    "HyperRule": "hyper",
    "LSTMRule": "lstm",
    "MLPRule": "mlp",
    "NTMBFGSRule": "ntm_bfgs",
    "Rule": "base",
    "RuleSet": "rule_set",
    "Rules": "rule_set",
    "ScheduleRule": "schedule",
    "Segments": "segments",
    "State": "base",
    "TunedRule": "tuned",
    "assembled": "rule_set",
    "build": "construction",
    "initialise": "construction",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradsmith.rules' has no attribute {name!r}")
    value = getattr(import_module(f"gradsmith.rules.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
