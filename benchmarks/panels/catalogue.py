"""What is trained, and the problems on which it is measured."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from models.families import FAMILIES
from models.families.recipes import PAPER
from models.spec import FamilySpec, Recipe, overridden
from models.task_spec import Spec, TaskSpec


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
        told = [_told(spec.tasks), _told(spec.recipe)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Panel:
    """One problem on which a training's rules are measured.

    family: whose tasks they are; default: those that the rule is trained on
    tasks: what differs from them
    gate: what the project asks for, last five / area
    left_out: the ingredient that the training lacks; such panels have a table of their own
    tuning_tasks: validation tasks on which baselines are tuned
    halving: whether they are tuned by successive halving, for it is dear
    """

    name: str
    training: str
    horizon: int = 100
    family: str = ""
    tasks: dict[str, Any] = field(default_factory=dict)
    gate: str = ""
    left_out: str = ""
    tuning_tasks: int = 32
    halving: bool = False

    @property
    def problem(self) -> TaskSpec:
        tasks: TaskSpec = overridden(FAMILIES[self.family or TRAININGS[self.training].family].tasks, self.tasks)
        return tasks

    @property
    def told(self) -> list[object]:
        """What its runs are kept under."""
        return [_told(self.problem), self.horizon]


def _told(spec: Spec) -> list[object]:
    """Its kind, where it has one, and the settings that are not at their defaults."""
    return [getattr(spec, "kind", ""), spec.model_dump_json(exclude_defaults=True)]


RELU = {"activation": "relu"}
DEEP_RELU = RELU | {"hidden": [20, 20]}


def relu(family: str, **tasks: Any) -> dict[str, Any]:
    """A part of a mixture: the family's tasks with ReLU, half as often as its own."""
    return {"family": family, "tasks": FAMILIES[family].tasks.model_dump() | RELU | tasks, "weight": 0.5}


WIDE = "digits, 60 to 1,000 steps, with ReLU"
LSTM = {"kind": "lstm", "input": "momenta+scales+tensor_scale+alignment+time"}
HELD_OUT = "digits, held out"
MIXED = "digits, sigmoid and ReLU, one and two layers"
TRAININGS = {
    "quadratic": Training("quadratic"),
    "digits": Training("digits-mlp"),
    "digits, the paper's method": Training("digits-mlp", paper=True),
    WIDE: Training(
        "digits-mlp",
        {
            "meta_steps": 800,
            "pool": 16,
            "horizon": 1000,
            "shortest_horizon": 60,
            "validation_horizons": [100, 1000],
            "validation_tasks": 16,
            "mixture": [relu("digits-mlp")],
        },
    ),
    HELD_OUT: Training("digits-mlp", {"on": "held_out"}),
    MIXED: Training(
        "digits-mlp",
        {
            "meta_steps": 600,
            "pool": 12,
            "validation_tasks": 32,
            "mixture": [
                relu("digits-mlp"),
                {"family": "digits-mlp", "tasks": FAMILIES["digits-mlp"].tasks.model_dump() | {"hidden": [20, 20]}},
                relu("digits-mlp", hidden=[20, 20]),
            ],
        },
        seeds=3,
    ),
    "mnist": Training("mnist-mlp", seeds=3),
    "digits, detached": Training("digits-mlp", {"meta_gradient": "detached"}, seeds=3),
    "digits, lockstep": Training("digits-mlp", {"pool": 1}, seeds=3),
    "digits, mlp": Training("digits-mlp", {"rule": {"kind": "mlp"}}, seeds=3),
    "digits, mlp without time": Training(
        "digits-mlp", {"rule": {"kind": "mlp", "input": "momenta+scales+tensor_scale+alignment"}}, seeds=3
    ),
    "digits, mlp on momenta": Training("digits-mlp", {"rule": {"kind": "mlp", "input": "momenta"}}, seeds=3),
    "digits, lstm": Training("digits-mlp", {"rule": LSTM | {"head": "direction_magnitude"}}, seeds=1),
    "digits, lstm with a linear head": Training("digits-mlp", {"rule": LSTM | {"head": "linear"}}, seeds=1),
}
PANELS = (
    Panel("quadratics", "quadratic", gate="medians 0.05; won 93 %; 0.60 / 0.64"),
    Panel("digits, 100 steps", "digits", gate="0.25 / 0.58, worst seed 0.40"),
    Panel("digits, 100 steps", "digits, the paper's method"),
    Panel("digits, 100 steps", WIDE),
    Panel("digits, 40 units", WIDE, tasks={"hidden": [40]}, gate="0.15"),
    Panel("digits, 2 x 20 units", WIDE, tasks={"hidden": [20, 20]}, gate="0.60", halving=True),
    Panel("digits, ReLU", WIDE, tasks=RELU, gate="0.45", halving=True),
    Panel("digits, 200 steps", WIDE, horizon=200, gate="0.10 / 0.70", halving=True),
    Panel("digits, 1,000 steps", WIDE, horizon=1000, gate="none diverges, area 0.70", tuning_tasks=8, halving=True),
    Panel("digits, ReLU, 64-32-32-10", MIXED, tasks=RELU | {"hidden": [32, 32]}, gate="0.7", halving=True),
    Panel("breast cancer", MIXED, family="breast-cancer-mlp", halving=True),
    Panel("breast cancer, ReLU, 2 x 20 units", MIXED, family="breast-cancer-mlp", tasks=DEEP_RELU, halving=True),
    Panel("wine", MIXED, family="wine-mlp", halving=True),
    Panel("wine, ReLU, 2 x 20 units", MIXED, family="wine-mlp", tasks=DEEP_RELU, halving=True),
    Panel("MNIST, 100 steps", "mnist", gate="0.93 / 0.87", tuning_tasks=16, halving=True),
    Panel("MNIST, 200 steps", "mnist", horizon=200, gate="1.00 / 0.95", halving=True),
    Panel("MNIST, 40 units", "mnist", tasks={"hidden": [40]}, gate="0.96", halving=True),
    Panel("MNIST, 2 x 20 units", "mnist", tasks={"hidden": [20, 20]}, gate="0.92", halving=True),
    Panel("digits, 100 steps", "digits", left_out="nothing, kind hyper"),
    Panel("digits, 100 steps", "digits, detached", left_out="second derivatives"),
    Panel("digits, 100 steps", "digits, lockstep", left_out="the pool"),
    Panel("digits, 100 steps", "digits, mlp", left_out="nothing, kind mlp"),
    Panel("digits, 100 steps", "digits, mlp without time", left_out="time"),
    Panel("digits, 100 steps", "digits, mlp on momenta", left_out="features but momenta"),
    Panel("digits, 100 steps", "digits, lstm", left_out="nothing, kind lstm"),
    Panel("digits, 100 steps", "digits, lstm with a linear head", left_out="the head"),
)
