"""The problems on which trained rules are measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.panels.trainings import DEEP_RELU, HELD_OUT, MANY_WIDTHS, MNIST_RELU, RELU, TRAININGS, WIDE, told_of
from models.baselines import DEFAULT_TUNED, usual_tuned
from models.families import FAMILIES
from models.spec import overridden
from models.task_spec import LossesOn, TaskSpec


@dataclass(frozen=True)
class Panel:
    """One problem on which a training's rules are measured.

    family: whose tasks they are; default: those that the rule is trained on
    tasks: what differs from them
    gate: what the project asks for, last five / area
    left_out: the ingredient that the training lacks; such panels have a table of their own
    on: the losses that count. held_out: those on images that no step sees; such panels have a table of their own
    tuning_tasks: validation tasks on which baselines are tuned
    halving: whether they are tuned by successive halving, for it is dear
    baselines: the tuned tier; default: what is usual for the tasks, with Muon and SOAP on networks
    """

    name: str
    training: str
    horizon: int = 100
    family: str = ""
    tasks: dict[str, Any] = field(default_factory=dict)
    gate: str = ""
    left_out: str = ""
    on: LossesOn = "training"
    tuning_tasks: int = 32
    halving: bool = False
    baselines: tuple[str, ...] = ()

    @property
    def problem(self) -> TaskSpec:
        tasks: TaskSpec = overridden(FAMILIES[self.family or TRAININGS[self.training].family].tasks, self.tasks)
        return tasks

    @property
    def rivals(self) -> tuple[str, ...]:
        """Names of the baselines of the tuned tier."""
        return self.baselines or usual_tuned(self.problem)

    @property
    def told(self) -> list[object]:
        """What its runs are kept under."""
        return [told_of(self.problem), self.horizon]


PANELS = (
    Panel("quadratics", "quadratic", gate="medians 0.05; won 93 %; 0.60 / 0.64", baselines=DEFAULT_TUNED),
    Panel("quadratics, L-BFGS too", "quadratic"),
    Panel("digits, 100 steps", "digits", gate="0.25 / 0.58, worst seed 0.40"),
    Panel("digits, 100 steps", "digits, the paper's method"),
    Panel("digits, 40 units", "digits", tasks={"hidden": [40]}, gate="0.15"),
    Panel("digits, 2 x 20 units", "digits", tasks={"hidden": [20, 20]}, gate="0.60", halving=True),
    Panel("digits, ReLU", "digits", tasks=RELU, gate="0.45", halving=True),
    Panel("digits, 200 steps", "digits", horizon=200, gate="0.10 / 0.70", halving=True),
    Panel("digits, 1,000 steps", "digits", horizon=1000, gate="none diverges, area 0.70", tuning_tasks=8, halving=True),
    Panel("digits, 100 steps", WIDE),
    Panel("digits, 40 units", WIDE, tasks={"hidden": [40]}, gate="0.15"),
    Panel("digits, 2 x 20 units", WIDE, tasks={"hidden": [20, 20]}, gate="0.60", halving=True),
    Panel("digits, ReLU", WIDE, tasks=RELU, gate="0.45", halving=True),
    Panel("digits, 200 steps", WIDE, horizon=200, gate="0.10 / 0.70", halving=True),
    Panel("digits, 1,000 steps", WIDE, horizon=1000, gate="none diverges, area 0.70", tuning_tasks=8, halving=True),
    Panel("digits, ReLU, 64-32-32-10", WIDE, tasks=RELU | {"hidden": [32, 32]}, gate="0.7", halving=True),
    Panel("breast cancer", WIDE, family="breast-cancer-mlp", halving=True),
    Panel("breast cancer, ReLU, 2 x 20 units", WIDE, family="breast-cancer-mlp", tasks=DEEP_RELU, halving=True),
    Panel("wine", WIDE, family="wine-mlp", halving=True),
    Panel("wine, ReLU, 2 x 20 units", WIDE, family="wine-mlp", tasks=DEEP_RELU, halving=True),
    Panel("digits, ReLU, 64-32-32-10", MANY_WIDTHS, tasks=RELU | {"hidden": [32, 32]}, gate="0.7", halving=True),
    Panel("breast cancer", MANY_WIDTHS, family="breast-cancer-mlp", halving=True),
    Panel("breast cancer, ReLU, 2 x 20 units", MANY_WIDTHS, family="breast-cancer-mlp", tasks=DEEP_RELU, halving=True),
    Panel("wine", MANY_WIDTHS, family="wine-mlp", halving=True),
    Panel("wine, ReLU, 2 x 20 units", MANY_WIDTHS, family="wine-mlp", tasks=DEEP_RELU, halving=True),
    Panel("MNIST, 100 steps", "mnist", gate="0.93 / 0.87", tuning_tasks=8, halving=True),
    Panel("MNIST, 200 steps", "mnist", horizon=200, gate="1.00 / 0.95", tuning_tasks=8, halving=True),
    Panel("MNIST, 500 steps", "mnist", horizon=500, gate="stated; area 1.0", tuning_tasks=4, halving=True),
    Panel("MNIST, 1,000 steps", "mnist", horizon=1000, gate="stated; area 1.0", tuning_tasks=4, halving=True),
    Panel("MNIST, 40 units", "mnist", tasks={"hidden": [40]}, gate="0.96", tuning_tasks=8, halving=True),
    Panel("MNIST, 2 x 20 units", "mnist", tasks={"hidden": [20, 20]}, gate="0.92", tuning_tasks=8, halving=True),
    Panel("MNIST, ReLU", MNIST_RELU, tasks=RELU, gate="1.00 / 0.97", tuning_tasks=8, halving=True),
    Panel("MNIST, 100 steps", MNIST_RELU, gate="0.93 / 0.87", tuning_tasks=8, halving=True),
    Panel("digits, 100 steps", HELD_OUT, gate="1.0; no more than 0.2 below; 0.60", on="held_out", tuning_tasks=16),
    Panel("digits held out, 200 steps", HELD_OUT, horizon=200, on="held_out", tuning_tasks=16),
    Panel("digits held out, 1,000 steps", HELD_OUT, horizon=1000, on="held_out", tuning_tasks=4),
    Panel("digits, 100 steps", MANY_WIDTHS, on="held_out", tuning_tasks=16),
    Panel("digits held out, 200 steps", MANY_WIDTHS, horizon=200, on="held_out", tuning_tasks=16),
    Panel("digits held out, 1,000 steps", MANY_WIDTHS, horizon=1000, on="held_out", tuning_tasks=4),
    Panel("digits, 100 steps", "digits", left_out="nothing, kind hyper"),
    Panel("digits, 100 steps", "digits, detached", left_out="second derivatives"),
    Panel("digits, 100 steps", "digits, lockstep", left_out="the pool"),
    Panel("digits, 100 steps", "digits, mlp", left_out="nothing, kind mlp"),
    Panel("digits, 100 steps", "digits, mlp without time", left_out="time"),
    Panel("digits, 100 steps", "digits, mlp on momenta", left_out="all inputs but momenta, time too"),
    Panel("digits, 100 steps", "digits, lstm", left_out="nothing, kind lstm"),
    Panel("digits, 100 steps", "digits, lstm with a linear head", left_out="the head"),
)
