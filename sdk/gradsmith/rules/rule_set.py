"""Several rules that train one model together, each its own tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast, final

from gradsmith.errors import UnknownRule
from gradsmith.rules.assignment import best_match
from gradsmith.rules.base import Rule  # before torch itself: it says how to install torch when that is missing
from gradsmith.rules.construction import build
from gradsmith.rules.origin import Origin
from gradsmith.rules.weight_shapes import SEVERAL

# isort: split
import torch
from torch import nn

_ADVICE = "Names are known where LearnedOptimizer gets model.named_parameters(). "


@final
class RuleSet(nn.Module):
    """Rules by the pattern of the tensors that each runs; `gradsmith.rules.assignment` says which pattern wins.

    In a weights file each rule's tensors have a prefix, `rules.<number>.`, by the patterns' alphabet. No two rules
    share a tensor: the file would hold it twice, and what loads it would have two.

    Raises UnknownRule where there is no rule, or where two patterns share weights.
    """

    kind: ClassVar[str] = SEVERAL
    origin: Origin | None = None

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        super().__init__()
        if not rules:
            raise UnknownRule("a set of rules needs one rule at least")
        self.patterns = tuple(sorted(rules))
        _require_weights_of_their_own([(pattern, rules[pattern]) for pattern in self.patterns])
        self.rules = nn.ModuleList(rules[pattern] for pattern in self.patterns)

    def members(self) -> list[tuple[str, Rule]]:
        """Each pattern and its rule."""
        return list(zip(self.patterns, (cast(Rule, rule) for rule in self.rules), strict=True))

    def number_of(self, name: str | None, roles: Sequence[str]) -> int:
        """The place of a tensor's rule in `patterns`. Raises UnknownRule where no pattern matches."""
        pattern = best_match(self.patterns, name, roles)
        if pattern is None:
            raise UnknownRule(
                f"no rule of this optimizer is for {name or 'a tensor without a name'} ({' or '.join(roles)}); its "
                f"patterns are {', '.join(self.patterns)}. {_ADVICE if name is None else ''}Give that tensor to "
                f"another optimizer, or train one with a rule for '*'"
            )
        return self.patterns.index(pattern)

    def config(self) -> dict[str, object]:
        """`kind`, and the configuration of each rule by its pattern."""
        return {"kind": self.kind, "rules": {pattern: rule.config() for pattern, rule in self.members()}}

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the starting weights of one rule after the other."""
        for _, rule in self.members():
            rule.initialise(generator)


def _require_weights_of_their_own(members: Sequence[tuple[str, Rule]]) -> None:
    owners: dict[int, str] = {}
    for pattern, rule in members:
        for name, parameter in rule.named_parameters():
            owner = owners.setdefault(id(parameter), pattern)
            if owner != pattern:
                raise UnknownRule(
                    f"the rules for {owner!r} and {pattern!r} share weights ({name}), and each rule of a set has its "
                    f"own; give {pattern!r} a copy (copy.deepcopy), or use one pattern that matches both"
                )


Rules = Rule | RuleSet
"""One rule for everything, or several."""


def assembled(config: Mapping[str, Any]) -> Rules:
    """What `build` makes, or a RuleSet of `{"kind": "several", "rules": {pattern: configuration}}`.

    Raises UnknownRule.
    """
    if config.get("kind") != RuleSet.kind:
        return build(config)
    rules = config.get("rules")
    if not isinstance(rules, dict) or not all(isinstance(each, dict) for each in rules.values()):
        raise UnknownRule(f"a set of rules needs an object of configurations by pattern, not {rules!r}")
    return RuleSet({pattern: build(each) for pattern, each in rules.items()})
