"""The names and shapes of a rule's weights by its configuration. Needs no torch: a server checks files by them.

The classes of rules make these tensors; a test holds both tellings equal for every kind.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from gradsmith.errors import UnknownRule
from gradsmith.rules.configs import (
    HyperConfig,
    LSTMConfig,
    MLPConfig,
    NTMBFGSConfig,
    RuleConfig,
    ScheduleConfig,
    TunedConfig,
    configured,
)
from gradsmith.rules.kernels.sizes import INPUTS
from gradsmith.rules.pieces import PIECES, Combination

SEVERAL = "several"
"""The kind of a file that holds several rules."""

Shapes = dict[str, tuple[int, ...]]

_HYPER_FEATURES, _HYPER_OUTPUTS, _MUON_OUTPUTS = 7, 8, 5


def weight_shapes(config: Mapping[str, Any]) -> Shapes:
    """What `gradsmith.rules.assembled(config).state_dict()` holds, by name. Raises UnknownRule."""
    if config.get("kind") != SEVERAL:
        return _of_rule(configured(config))
    found: Shapes = {}
    for number, (_, rule) in enumerate(sorted(members(config).items())):
        found |= {f"rules.{number}.{name}": shape for name, shape in _of_rule(rule).items()}
    return found


def members(config: Mapping[str, Any]) -> dict[str, RuleConfig]:
    """The rules that a file holds by their patterns; one rule for everything has the pattern `*`. Raises UnknownRule"""
    if config.get("kind") != SEVERAL:
        return {"*": configured(config)}
    rules = config.get("rules")
    if not isinstance(rules, Mapping) or not rules or not all(isinstance(each, Mapping) for each in rules.values()):
        raise UnknownRule(f"a set of rules needs an object of configurations by pattern, not {rules!r}")
    return {pattern: configured(each) for pattern, each in rules.items()}


def _of_rule(config: RuleConfig) -> Shapes:
    match config:
        case HyperConfig():
            width = _HYPER_FEATURES + PIECES["time"].width + (PIECES["fraction"].width if config.knows_steps else 0)
            outputs = _HYPER_OUTPUTS + (_MUON_OUTPUTS if config.direction == "muon" else 0)
            return _dense(width, config.hidden_size, config.layers, outputs)
        case MLPConfig():
            own = Combination.of(config.input)
            return _dense(own.width, config.hidden_size, config.layers, own.directions + 1)
        case LSTMConfig():
            own = Combination.of(config.input)
            several = (own.directions + 1,) if config.head == "direction_magnitude" else ()
            read: Shapes = {"readout_weight": (*several, config.hidden_size), "readout_bias": several or (1,)}
            return _lstm(own.width, config.hidden_size, config.layers) | read
        case NTMBFGSConfig():
            return _ntm_bfgs(config)
        case ScheduleConfig():
            curves = ["log_rate", "momentum"]
            curves += ["lookahead", "log_rate_of_others", "momentum_of_others"] if config.direction == "muon" else []
            return dict.fromkeys(curves, (config.knots,))
        case TunedConfig():
            return {}
    raise AssertionError(f"no shapes are told for rules of kind {config.kind!r}")


def _ntm_bfgs(config: NTMBFGSConfig) -> Shapes:
    width, hidden, reads, writes = INPUTS[config.input], config.hidden_size, config.read_heads, config.write_heads
    return _lstm(width + reads, hidden, config.layers) | {
        "key_weight": (reads, width + hidden),
        "left_weight": (writes, hidden),
        "left_bias": (writes,),
        "right_weight": (writes, hidden),
        "right_bias": (writes,),
        "readout_weight": (hidden,),
        "readout_bias": (1,),
        "result_weight": (reads,),
    }


def _dense(width: int, hidden: int, layers: int, outputs: int) -> Shapes:
    widths = [width] + [hidden] * layers
    each = [(f"layers.{number}", *sizes) for number, sizes in enumerate(itertools.pairwise(widths))]
    return _pairs([*each, ("readout", hidden, outputs)])


def _lstm(width: int, hidden: int, layers: int) -> Shapes:
    """The gates' weights see a layer's input and its hidden state."""
    widths = [width] + [hidden] * (layers - 1)
    return _pairs((f"layers.{number}", each + hidden, 4 * hidden) for number, each in enumerate(widths))


def _pairs(layers: Iterable[tuple[str, int, int]]) -> Shapes:
    """Weights (outputs, inputs) and biases of layers, each told as its name, its inputs and its outputs."""
    found: Shapes = {}
    for name, inputs, outputs in layers:
        found |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    return found
