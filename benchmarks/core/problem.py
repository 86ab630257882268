"""A problem: what is optimized, as plain arrays in one file, so that every peer gets bit for bit the same one.

Needs numpy alone, because the peers' environment has no torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

HORIZON = 100
"""Inner steps of a trajectory; then every peer begins again at theta_0, with an empty memory."""

HIDDEN = 20
OUTPUT_SCALE = 0.1
LOG_SIGN_P = 10.0
META_LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Problem:
    """kind: "mlp", "digits", "quadratics" or "convnet"; unroll_steps: inner steps of one meta-step; rule: "lstm", whose
    gradients count as constants, or "hyper" or "mlp", differentiated with second derivatives."""

    kind: str
    tasks: int = 1
    unroll_steps: int = 20
    rule: str = "lstm"

    @property
    def exact(self) -> bool:
        return self.rule != "lstm"

    @property
    def tensors(self) -> tuple[int, ...]:
        """Coordinates of each tensor of a task, but for the convnet, whose rule does not look."""
        if self.kind == "quadratics":
            return (10,)
        return tuple(size for into, out in pairwise(SIZES[self.kind]) for size in (into * out, out))

    @property
    def coordinates_per_task(self) -> int:
        return 29_938 if self.kind == "convnet" else sum(self.tensors)

    @property
    def coordinates(self) -> int:
        return self.tasks * self.coordinates_per_task

    @property
    def coordinate_steps(self) -> int:
        """Coordinates times inner steps of one meta-step: the unit that the machine's limit is counted in."""
        return self.coordinates * self.unroll_steps

    @property
    def name(self) -> str:
        return {
            "mlp": "MNIST MLP",
            "digits": "digits MLP",
            "quadratics": f"{self.tasks} quadratics",
            "convnet": "convnet",
        }[self.kind]

    @property
    def title(self) -> str:
        return {
            "mlp": "MNIST MLP, 784-20-10 sigmoid, batch 128",
            "digits": f"digits MLP, 64-20-10 sigmoid, batch 128, {self.tasks} tasks",
            "quadratics": f"{self.tasks} quadratics of 10",
            "convnet": "convnet, 3x3 16-16-16, dense 24, batch 128",
        }[self.kind] + f" ({self.coordinates:,} coordinates)"

    @property
    def slug(self) -> str:
        return f"{self.kind}-{self.tasks}-{self.unroll_steps}{f'-{self.rule}' if self.exact else ''}"


MLP = Problem("mlp")
QUADRATICS = Problem("quadratics", tasks=128)
CONVNET = Problem("convnet")
COMPARED = (MLP, QUADRATICS, CONVNET)

DIGITS_EXACT, MNIST_EXACT = Problem("digits", tasks=2, rule="hyper"), Problem("mlp", rule="hyper")
EXACT = (
    DIGITS_EXACT,
    MNIST_EXACT,
    Problem("quadratics", tasks=16, rule="hyper"),
    Problem("digits", tasks=2, rule="mlp"),
    Problem("mlp", rule="mlp"),
)
"""What is differentiated with second derivatives: the tasks of a meta-step as the families' recipes have them."""

# The convnet takes CIFAR-10's shape. Layers: (channels in, channels out, stride), 3x3 with padding 1, then ReLU.
IMAGE = (3, 32, 32)
CONVOLUTIONS = ((3, 16, 2), (16, 16, 2), (16, 16, 1))
DENSE = (1024, 24, 10)
SIZES = {"mlp": (784, 20, 10), "digits": (64, 20, 10)}
MLP_SIZES = SIZES["mlp"]


@dataclass(frozen=True)
class Loaded:
    """start (coordinates,) float64; of quadratics W (tasks, 10, 10) and y (tasks, 10); of networks pixels
    (images, inputs) uint8, labels (images,) int32 and rows (HORIZON + 1, tasks * batch) int32, each step's."""

    problem: Problem
    arrays: dict[str, np.ndarray[Any, Any]]

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        return self.arrays[name]


def save(problem: Problem, arrays: dict[str, np.ndarray[Any, Any]], path: Path) -> None:
    np.savez(path, **arrays, **{f"problem_{name}": np.asarray(value) for name, value in asdict(problem).items()})


def load(path: Path) -> Loaded:
    with np.load(path) as file:
        everything = {name: file[name] for name in file.files}
    description = {field.name: everything.pop(f"problem_{field.name}").item() for field in fields(Problem)}
    return Loaded(Problem(**description), everything)
