"""What an optimizer does on one test problem, beside hand-made ones (Andrychowicz et al. 2016, appendix B).

- **Updates**: every optimizer runs on its own on the same problem, and the updates of the same sampled coordinates are
  written down.
- **Responses**: the update of one coordinate as a function of its gradient. The history is that of the learned run:
  its gradients are shown to all optimizers, and at chosen steps this coordinate's next gradient takes other values,
  while the other coordinates keep theirs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.baselines import TUNED
from models.rollout import Contender, Stepper
from models.task_spec import Part
from models.tasks.base import TaskBatch
from models.tasks.randomness import key
from models.tuning import Tuned, Tuning

STEPS = 100
"""How many steps are looked at, at most: the first ones of the run."""

COORDINATES, WATCHED = 6, 2
"""How many coordinates are sampled, and how many of them have responses."""

GRADIENTS, REACH = 33, 3.0
"""How many gradients a response has, and how far they reach, in root mean squares of the coordinate's gradients."""

_DIGITS = 5  # of what is stored: a picture shows three


@dataclass(frozen=True)
class Coordinate:
    """One number of theta: its place on the task's axis, and where that is in the tensor it belongs to."""

    place: int
    part: str
    index: tuple[int, ...]


def beside(tunings: Mapping[str, Tuning], steps: int) -> dict[str, Tuned]:
    """The baselines that an anatomy shows: as they were tuned for the final loss, else at torch's own learning rate.

    steps: of the whole run, which schedules know
    """
    found = {}
    for name, baseline in TUNED.items():
        if baseline.usual_rate is not None:
            usual = Tuned(baseline, baseline.usual_rate, "constant", steps)
            found[name] = tunings[name].best("final") if name in tunings else usual
    return found


def anatomy(
    learned: Contender, others: Mapping[str, Contender], tasks: TaskBatch, parts: Sequence[Part], steps: int, seed: int
) -> Generator[None, None, dict[str, Any]]:
    """Yields after each step; returns the numbers as plain values, which may be infinite or NaN.

    tasks: one task
    parts: its tensors; a task of another size than theirs counts as one tensor
    steps: of a run; only the first STEPS are looked at
    seed: decides which coordinates are sampled

    Costs `steps + 1` gradients for each optimizer, and a step of each for every gradient of every response.
    """
    looked_at = min(steps, STEPS)
    coordinates, watched = _sampled(tasks, parts, seed)
    updates, responses = yield from _followed(learned, others, tasks, coordinates, watched, looked_at)
    moved = {"learned": updates}
    for name, contender in others.items():
        moved[name] = yield from _updates(contender, tasks, coordinates, looked_at)
    return {
        "steps": looked_at,
        "coordinates": [{"part": each.part, "index": list(each.index)} for each in coordinates],
        "updates": {name: _rows(rows) for name, rows in moved.items()},
        "responses": responses,
    }


def chosen_steps(steps: int) -> list[int]:
    """How many gradients the histories of the responses have: none, ten, half of them and all but one."""
    return sorted({0, min(10, steps - 1), steps // 2, steps - 1})


def _sampled(tasks: TaskBatch, parts: Sequence[Part], seed: int) -> tuple[list[Coordinate], list[int]]:
    """Coordinates, and which of them have responses: from every tensor in turn, the largest first, and among those of
    a tensor one at random. Coordinates that have a gradient at the start come first."""
    size = tasks.coordinates_per_task
    if sum(part.size for part in parts) != size:
        parts = [Part("theta", (size,), "vector")]
    _, gradient = tasks.losses_and_gradient(tasks.initial(), 0)
    moves = (gradient != 0).cpu()
    generator = torch.Generator().manual_seed(key("anatomy", seed) & (2**63 - 1))
    queues: list[tuple[int, Part, list[int]]] = []
    start = 0
    for part in parts:
        order = torch.randperm(part.size, generator=generator) + start
        queues.append((start, part, [*order[moves[order]].tolist(), *order[~moves[order]].tolist()]))
        start += part.size
    queues.sort(key=lambda queue: -queue[1].size)
    rounds = range(max(part.size for part in parts))
    turns = (
        Coordinate(order[turn], part.name, _index(order[turn] - first, part.shape))
        for turn in rounds
        for first, part, order in queues
        if turn < part.size
    )
    drawn = [each for each, _ in zip(turns, range(COORDINATES), strict=False)]
    found = sorted(drawn, key=lambda each: each.place)
    return found, sorted(found.index(each) for each in drawn[:WATCHED])


def _index(place: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    found: list[int] = []
    for length in reversed(shape):
        place, within = divmod(place, length)
        found.insert(0, within)
    return tuple(found)


def _updates(
    contender: Contender, tasks: TaskBatch, coordinates: Sequence[Coordinate], steps: int
) -> Generator[None, None, list[Tensor]]:
    """The update of these coordinates at every step, (coordinates,) each."""
    theta, stepper = tasks.initial(), contender.start(tasks)
    places = torch.tensor([each.place for each in coordinates], device=theta.device)
    rows = []
    for step in range(steps):
        _, gradient = tasks.losses_and_gradient(theta, step)
        before = theta[places]
        stepper.step(theta, gradient)
        rows.append(theta[places] - before)
        yield
    return rows


def _followed(
    learned: Contender,
    others: Mapping[str, Contender],
    tasks: TaskBatch,
    coordinates: Sequence[Coordinate],
    watched: Sequence[int],
    steps: int,
) -> Generator[None, None, tuple[list[Tensor], list[dict[str, Any]]]]:
    """The learned run's updates, and the responses of all optimizers to its history."""
    theta = tasks.initial()
    places = torch.tensor([each.place for each in coordinates], device=theta.device)
    steppers = {name: contender.start(tasks) for name, contender in {"learned": learned, **others}.items()}
    squares = torch.zeros(len(coordinates), dtype=torch.float64, device=theta.device)
    rows, responses = [], []
    for step in range(steps):
        _, gradient = tasks.losses_and_gradient(theta, step)
        squares += gradient[places].double().square()
        if step in chosen_steps(steps):
            for number in watched:
                place, scale = coordinates[number].place, math.sqrt(float(squares[number]) / (step + 1))
                usable = 0 < scale < torch.finfo(gradient.dtype).max / REACH  # a run that diverges has larger ones
                scale = scale if usable else 1.0
                grid = [REACH * scale * (2 * k / (GRADIENTS - 1) - 1) for k in range(GRADIENTS)]
                found = {}
                for name, stepper in steppers.items():
                    found[name] = yield from _response(stepper, gradient, place, grid)
                responses.append(
                    {
                        "coordinate": number,
                        "after": step,
                        "had": _rounded(float(gradient[place])),
                        "gradient": [_rounded(value) for value in grid],
                        "update": found,
                    }
                )
        before = theta[places]
        steppers["learned"].step(theta, gradient)
        rows.append(theta[places] - before)
        for name in others:
            steppers[name].step(theta.clone(), gradient)
        yield
    return rows, responses


def _response(
    stepper: Stepper, gradient: Tensor, place: int, grid: Sequence[float]
) -> Generator[None, None, list[float]]:
    """The update of this coordinate for each gradient that it might have had, from theta = 0: no decay of theta."""
    found = []
    for value in grid:
        given, theta = gradient.clone(), torch.zeros_like(gradient)
        given[place] = value
        copy.deepcopy(stepper).step(theta, given)
        found.append(_rounded(float(theta[place])))
        yield
    return found


def _rows(rows: Sequence[Tensor]) -> list[list[float]]:
    """(coordinates,) of each step -> the steps of each coordinate."""
    return [[_rounded(value) for value in each] for each in torch.stack(list(rows)).t().tolist()]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
