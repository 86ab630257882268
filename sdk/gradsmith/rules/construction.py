"""Rules from their configurations, and their starting weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gradsmith.errors import UnknownRule
from gradsmith.rules.base import Rule
from gradsmith.rules.lstm import LSTMRule

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
