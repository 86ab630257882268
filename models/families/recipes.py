"""How built-in families are trained unless a job says otherwise, and how the paper trains them."""

from __future__ import annotations

from typing import Any

from models.rule_spec import RULE_SPECS
from models.spec import Recipe


def winning(**settings: Any) -> Recipe:
    """The recipe that beats tuned baselines at the last step: a network per tensor, exact meta-gradients, and a pool of
    staggered trajectories. It stops when validation has stopped improving. settings: what differs for a family."""
    return Recipe(
        **{
            "rule": RULE_SPECS["hyper"].model_validate({}),
            "meta_gradient": "exact",
            "meta_learning_rate": 0.002,
            "averaging": 0.98,
            "pool": 8,
            "objective": "both",
            "rollback": 0.1,
            "patience": 4,
            **settings,
        }
    )


def around_muon(output_scale: float, **settings: Any) -> Recipe:
    """`winning` for networks: matrices move along Muon's direction. output_scale: the learning rate of the Muon that a
    fresh rule is; settings: what differs for a family"""
    rule = RULE_SPECS["hyper"].model_validate({"direction": "muon", "output_scale": output_scale})
    return winning(**{"rule": rule, "meta_learning_rate": 0.003, **settings})


_CONVOLUTIONS = Recipe(
    rules={"conv*": RULE_SPECS["lstm"].model_validate({})},  # and the recipe's own LSTM for the dense layers
    meta_steps=500,
    tasks=1,
    validation_tasks=8,
    validation_interval=50,
    meta_learning_rate=0.01,
)
PAPER: dict[str, Recipe] = {
    "quadratic": Recipe(meta_steps=800, meta_learning_rate=0.01),
    "quadratic-uniform": Recipe(meta_steps=800, meta_learning_rate=0.01),
    "digits-mlp": Recipe(
        meta_steps=500, tasks=2, validation_tasks=64, validation_interval=100, meta_learning_rate=0.01
    ),
    "mnist-mlp": Recipe(tasks=1, validation_tasks=64, meta_learning_rate=0.01),
    "digits-conv": _CONVOLUTIONS,
    "cifar10-conv": _CONVOLUTIONS,
    "cifar5-conv": _CONVOLUTIONS,
    "cifar2-conv": _CONVOLUTIONS,
    "neural-art": Recipe(
        meta_steps=300,
        horizon=128,
        unroll_steps=32,
        tasks=1,
        validation_tasks=4,
        validation_interval=50,
        pool=1,
        meta_learning_rate=0.01,
    ),
}
"""Recipes by family, from Andrychowicz et al. 2016: a coordinatewise LSTM whose gradients count as constants."""
