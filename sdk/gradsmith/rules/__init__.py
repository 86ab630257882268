"""The forward math of every learned rule: pure functions `(gradient, state) -> (update, state)` in plain torch.

This is the one place where a rule's math is told. Meta-training differentiates these objects; users run the same
objects under `no_grad` through `gradsmith.LearnedOptimizer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradsmith.errors import MissingDependency, UnknownRule

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingDependency(
        "gradsmith's rules need PyTorch, which is not installed. Run this in a checkout of Gradsmith: "
        "pip install './sdk[torch]'"
    ) from error

from gradsmith.rules.base import Rule, State
from gradsmith.rules.lstm import LSTMRule

__all__ = ["LSTMRule", "Rule", "State", "build", "initialise"]

KINDS: dict[str, type[Rule]] = {LSTMRule.kind: LSTMRule}


def build(config: Mapping[str, Any]) -> Rule:
    """A rule from its configuration, for example `{"kind": "lstm", "hidden_size": 20}`.

    Its weights are zero (such a rule never moves anything) until `initialise` or `load_state_dict` fills them.
    Raises UnknownRule for a kind or a setting that this version does not know, and for a value out of range.
    """
    settings = dict(config)
    kind = settings.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise UnknownRule(
            f"unknown kind of rule {kind!r}; this version of gradsmith knows {', '.join(sorted(KINDS))}. "
            "A newer one may know it: update your checkout of Gradsmith and run pip install './sdk[torch]' in it"
        )
    try:
        return KINDS[kind](**settings)
    except TypeError as error:
        raise UnknownRule(f"a rule of kind {kind!r} cannot be built from {settings!r}: {error}") from error


def initialise(rule: Rule, generator: torch.Generator) -> None:
    """Draw the rule's starting weights, in place: U(-1/sqrt(n), 1/sqrt(n)) with n the hidden size, PyTorch's own
    default for LSTMs.

    Numbers are drawn in float32 on the generator's device and in the order of the parameters' names, so one seed
    gives one rule, whatever dtype and device the rule is on.
    """
    bound = rule.initial_bound()
    with torch.no_grad():
        for _, parameter in sorted(rule.named_parameters()):
            draw = torch.rand(parameter.shape, generator=generator, device=generator.device, dtype=torch.float32)
            parameter.copy_((2 * draw - 1) * bound)
