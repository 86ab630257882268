"""Rules from their configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gradsmith.rules.base import Rule  # before torch itself: it says how to install torch when that is missing
from gradsmith.rules.configs import RuleConfig, configured
from gradsmith.rules.hyper import HyperRule
from gradsmith.rules.lstm import LSTMRule
from gradsmith.rules.mlp import MLPRule
from gradsmith.rules.ntm_bfgs import NTMBFGSRule
from gradsmith.rules.schedule import ScheduleRule
from gradsmith.rules.tuned import TunedRule

# isort: split
import torch

KINDS: dict[str, Callable[[Any], Rule]] = {
    each.kind: each for each in (HyperRule, LSTMRule, MLPRule, NTMBFGSRule, ScheduleRule, TunedRule)
}
"""What makes a rule of its configuration, for each kind in `gradsmith.rules.configs.CONFIGS`."""


def build(config: RuleConfig | Mapping[str, Any]) -> Rule:
    """A rule from its configuration, for example `{"kind": "lstm", "hidden_size": 20}`.

    Its weights are zero (such a rule never moves anything) until `initialise` or `load_state_dict` fills them.
    Raises UnknownRule for a kind or a setting that this version does not know, and for a value out of range.
    """
    known = config if isinstance(config, RuleConfig) else configured(config)
    return KINDS[known.kind](known)


def initialise(rule: Rule, generator: torch.Generator) -> None:
    """Draw the starting weights of a rule, the same as `rule.initialise(generator)`."""
    rule.initialise(generator)
