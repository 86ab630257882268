"""What is trained: families' recipes, and others for them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from models.families import FAMILIES
from models.families.recipes import PAPER
from models.spec import FamilySpec, Recipe, overridden
from models.task_spec import Spec


@dataclass(frozen=True)
class Training:
    """What is trained: a family's recipe, or another one for it. seeds: how many meta-seeds are shown"""

    family: str
    recipe: dict[str, Any] = field(default_factory=dict)
    paper: bool = False
    seeds: int = 5

    @property
    def spec(self) -> FamilySpec:
        family = FAMILIES[self.family]
        recipe: Recipe = overridden(PAPER[self.family] if self.paper else family.recipe, self.recipe)
        return family.model_copy(update={"recipe": recipe})

    @property
    def fingerprint(self) -> str:
        """What its rules are kept under: another recipe trains other rules. A setting at its default says nothing, so
        that a new one does not make old rules useless."""
        spec = self.spec
        recipe = spec.recipe
        kinds = [recipe.rule.kind, *(part.tasks.model_dump()["kind"] for part in recipe.mixture)]
        told = [told_of(spec.tasks), told_of(recipe), kinds]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


def told_of(spec: Spec) -> list[object]:
    """Its kind, where it has one, and the settings that are not at their defaults."""
    return [getattr(spec, "kind", ""), spec.model_dump_json(exclude_defaults=True)]


RELU = {"activation": "relu"}
DEEP_RELU = RELU | {"hidden": [20, 20]}


def relu(family: str) -> dict[str, Any]:
    """A part of a mixture: the family's tasks with ReLU, half as often as its own."""
    return {"family": family, "tasks": FAMILIES[family].tasks.model_dump() | RELU, "weight": 0.5}


def on_digits(weight: float, *hidden: int, activation: str = "sigmoid") -> dict[str, Any]:
    """A part of a mixture: networks on digits with these layers."""
    changes = {"hidden": list(hidden), "activation": activation}
    return {"family": "digits-mlp", "tasks": FAMILIES["digits-mlp"].tasks.model_dump() | changes, "weight": weight}


def for_many(**settings: Any) -> Training:
    """One rule for networks that differ, told which share of the planned steps is done. settings: what else changes in
    the recipe for digits"""
    rule = FAMILIES["digits-mlp"].recipe.rule.model_dump() | {"clock": "time+fraction"}
    recipe = {
        "rule": rule, "meta_steps": 1600, "starts": 4, "patience": 6, "pool": 12, "horizon": 200,
        "shortest_horizon": 60, "validation_horizons": [100, 200], **settings,
    }  # fmt: skip
    return Training("digits-mlp", recipe, seeds=3)


WIDE = "one rule for networks on digits"
MANY_WIDTHS = "one rule for many widths, held out"
LSTM = {"kind": "lstm", "input": "momenta+scales+tensor_scale+alignment+time"}
HELD_OUT = "digits, held out"
MNIST_RELU = "mnist, with ReLU"
TRAININGS = {
    "quadratic": Training("quadratic"),
    "digits": Training("digits-mlp"),
    "digits, the paper's method": Training("digits-mlp", paper=True),
    WIDE: for_many(
        validation_tasks=32,
        mixture=[relu("digits-mlp"), on_digits(0.5, 20, 20), on_digits(0.5, 20, 20, activation="relu")],
    ),
    MANY_WIDTHS: for_many(
        on="held_out",
        validation_tasks=12,
        mixture=[
            relu("digits-mlp"),
            *(on_digits(0.35, *hidden) for hidden in ((48,), (16, 16), (28, 28))),
            *(on_digits(0.35, *hidden, activation="relu") for hidden in ((12,), (48,), (16, 16), (28, 28), (48, 48))),
        ],
    ),
    HELD_OUT: Training("digits-mlp", {"on": "held_out"}, seeds=3),
    "mnist": Training("mnist-mlp", seeds=2),
    MNIST_RELU: Training("mnist-mlp", {"mixture": [relu("mnist-mlp")]}, seeds=1),
    "digits, detached": Training("digits-mlp", {"meta_gradient": "detached"}, seeds=2),
    "digits, lockstep": Training("digits-mlp", {"pool": 1}, seeds=2),
    "digits, mlp": Training("digits-mlp", {"rule": {"kind": "mlp"}}, seeds=1),
    "digits, mlp without time": Training(
        "digits-mlp", {"rule": {"kind": "mlp", "input": "momenta+scales+tensor_scale+alignment"}}, seeds=1
    ),
    "digits, mlp on momenta": Training("digits-mlp", {"rule": {"kind": "mlp", "input": "momenta"}}, seeds=1),
    "digits, lstm": Training("digits-mlp", {"rule": LSTM | {"head": "direction_magnitude"}}, seeds=1),
    "digits, lstm with a linear head": Training("digits-mlp", {"rule": LSTM | {"head": "linear"}}, seeds=1),
}
