"""The rule that a job trains, and the flat vector of its weights."""

from __future__ import annotations

import torch
from torch import Tensor

from gradsmith.rules import Rules, RuleSet, build
from models.spec import MetaTrainSpec


def untrained(spec: MetaTrainSpec) -> Rules:
    """The rule that the job trains, or all of them, with weights of zero."""
    if not spec.recipe.rules:
        return build(spec.recipe.rule.config)
    return RuleSet({pattern: build(rule.config) for pattern, (rule, _) in spec.assigned().items()})


def load_weights(rule: Rules, weights: Tensor) -> None:
    """Copy a flat vector into the rule's parameters."""
    with torch.no_grad():
        offset = 0
        for parameter in rule.parameters():
            count = parameter.numel()
            parameter.copy_(weights[offset : offset + count].view_as(parameter))
            offset += count
