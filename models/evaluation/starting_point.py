"""The family's learned starting point: where the best tuned baseline should begin.

The first one is the mean of the parameters at which the baseline ends on training tasks. It is refined as Reptile does
(Nichol, Achiam and Schulman 2018, "On First-Order Meta-Learning Algorithms", batched version): run the baseline from
the point on fresh training tasks, move towards the mean of its ends, in steps that shrink along a line. The points
after 1, 2, 4 ... rounds are validated as optimizers are, and the best one is kept.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from models.looks import looks
from models.rollout import Sample, run, tasks_at_once
from models.spec import Recipe, Split
from models.tasks.base import Family
from models.training.selection import scored
from models.training.validation import VALIDATION_SEED
from models.tuning import Tuned

TASKS = 16
"""Training tasks of a round."""


@dataclass(frozen=True)
class StartingPoint:
    """Where each task begins, (coordinates_per_task,), and the rounds after which that was found.

    score: of the baseline from there, on the validation tasks; alone: of the baseline from the tasks' own starts
    """

    theta: Tensor
    rounds: int
    all_rounds: int
    score: float
    alone: float
    gradients: int
    seconds: float


def rounds_of(recipe: Recipe, horizon: int) -> int:
    """How many rounds cost as many gradients as the training by this recipe, its validations not counted."""
    return max(1, recipe.meta_steps * recipe.tasks * recipe.window_evaluations // (TASKS * horizon))


def validated_rounds(rounds: int) -> list[int]:
    """The rounds after which the point is validated: 1, 2, 4 ... and the last."""
    return sorted({2**power for power in range(rounds.bit_length())} | {rounds})


def starting_point(
    recipe: Recipe, tuned: Tuned, families: tuple[Family, Family], seed: int, dtype: torch.dtype, device: torch.device
) -> Generator[bool | None, None, StartingPoint | None]:
    """None where tasks share no parameter space, for their sizes differ, or every run of the first round diverged.

    families: opened for training, and for tuning
    Yields None after each inner step, and True after each validation.
    """
    training, tuning = families
    rounds, started, gradients = rounds_of(recipe, tuned.steps), time.perf_counter(), 0
    alone = yield from _score(recipe, tuned, tuning, None, dtype, device)
    gradients += recipe.validation_tasks * (tuned.steps + 1)
    theta, best, since = None, None, None
    for number in range(1, rounds + 1):
        ends = yield from _ends(tuned, training, theta, seed, number, dtype, device)
        gradients += TASKS * tuned.steps
        if ends is not None:
            theta = ends if theta is None else theta + (1 - (number - 1) / rounds) * (ends - theta)
        if theta is None:
            return None
        if number in validated_rounds(rounds):
            score = yield from _score(recipe, tuned, tuning, theta, dtype, device)
            gradients += recipe.validation_tasks * (tuned.steps + 1)
            if best is None or score < best:
                best, since = score, (theta, number)
            yield True
    assert best is not None
    assert since is not None
    return StartingPoint(since[0], since[1], rounds, best, alone, gradients, time.perf_counter() - started)


def _ends(
    tuned: Tuned,
    family: Family,
    theta: Tensor | None,
    seed: int,
    number: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Generator[None, None, Tensor | None]:
    """The mean of the parameters at which runs end that did not diverge, (coordinates_per_task,); None where all did,
    or tasks are of different sizes."""
    total, count = torch.zeros(family.coordinates_per_task, dtype=torch.float64, device=device), 0
    chunk = tasks_at_once(family, tuned)
    for first in range(0, TASKS, chunk):
        size = min(chunk, TASKS - first)
        batches = family.sample(
            Split.TRAIN, seed=seed, trajectory=number - 1, tasks=size, first=first, dtype=dtype, device=device
        )
        for tasks in batches:
            if tasks.coordinates_per_task != family.coordinates_per_task:
                return None
            at = tasks.initial() if theta is None else theta.to(dtype).repeat(tasks.tasks)
            stepper = tuned.start(tasks)
            for step in range(tuned.steps):
                _, gradient = tasks.losses_and_gradient(at, step)
                stepper.step(at, gradient)
                yield
            ends = at.view(tasks.tasks, -1).double()
            ends = ends[torch.isfinite(ends).all(dim=1)]
            total, count = total + ends.sum(dim=0), count + len(ends)
    return total / count if count else None


def _score(
    recipe: Recipe, tuned: Tuned, family: Family, theta: Tensor | None, dtype: torch.dtype, device: torch.device
) -> Generator[None, None, float]:
    """What the baseline comes to from there, by the recipe's objective, on the validation tasks of optimizers."""
    sample = Sample(Split.VALIDATION, VALIDATION_SEED, 0, recipe.validation_tasks)
    seen = looks(tuned.steps) if recipe.on == "held_out" else ()
    found = yield from run(tuned, family, sample, tuned.steps, dtype=dtype, device=device, looks=seen, begin=theta)
    return scored(recipe, float(found.area.mean()), float(found.final.mean()))


def dumped(found: StartingPoint | None) -> bytes:
    """Write it as bytes; `loaded` reads them."""
    if found is None:
        return b""
    kinds = {int: torch.int64, float: torch.float64}
    told = {
        name: torch.tensor(value, dtype=kinds[type(value)]) for name, value in vars(found).items() if name != "theta"
    }
    return save({"theta": found.theta.cpu(), **told})


def loaded(content: bytes) -> StartingPoint | None:
    if not content:
        return None
    tensors = load(content)
    theta = tensors.pop("theta")
    told: dict[str, Any] = {name: value.item() for name, value in tensors.items()}
    return StartingPoint(theta=theta, **told)
