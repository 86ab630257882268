"""Running a rule or a baseline forward on tasks and writing down every loss: what validation and evaluation share."""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from models.backends import Backend
from models.backends.base import require_task_size
from models.curves import Curves
from models.film import Film
from models.memory import CHUNK_COORDINATES
from models.spec import Split
from models.task_spec import Part
from models.tasks.base import Family, HeldOut, TaskBatch


class Stepper(Protocol):
    """An optimizer in the middle of a run: `step` moves `theta` (coordinates,) in place. `copy.deepcopy` of it goes on
    from there on its own."""

    def step(self, theta: Tensor, gradient: Tensor) -> None: ...


@runtime_checkable
class Averaging(Protocol):
    """A Stepper that is judged at another point than the one at which it takes its gradients."""

    def average(self, theta: Tensor) -> Tensor:
        """The point to judge, (coordinates,), where `theta` is the one that it moves."""


class Contender(Protocol):
    """A learned rule or a baseline: something that starts a fresh run on a batch of tasks."""

    def start(self, tasks: TaskBatch) -> Stepper: ...


@dataclass(frozen=True)
class Learned:
    """A rule, with what computes it.

    rests: whether a coordinate that has never had a gradient other than zero stays where it is and remembers nothing,
        as in `gradsmith.LearnedOptimizer`. The trainer's windows move it, and so does its validation
    horizon: how many steps a run has, where a rule asks
    """

    backend: Backend
    rests: bool = False
    horizon: int | None = None

    def start(self, tasks: TaskBatch) -> Stepper:
        """Raises TaskSizeUnknown."""
        require_task_size(self.backend, tasks.coordinates_per_task)
        run = _LearnedRun(self.backend, tasks.coordinates, self.horizon)
        return _RestingRun(run) if self.rests and not self.backend.rests else run


@dataclass(frozen=True)
class ByParts:
    """A rule that is bound to each shape of task of a mixture: runs the one that knows the tensors of the tasks."""

    learned: Mapping[tuple[Part, ...], Learned]

    def start(self, tasks: TaskBatch) -> Stepper:
        return self.learned[tasks.parts].start(tasks)


class _LearnedRun:
    def __init__(self, backend: Backend, coordinates: int, horizon: int | None) -> None:
        self._backend = backend
        self._memory = backend.initial_memory(coordinates, horizon)

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        self._memory = self._backend.step(theta, gradient, self._memory)

    def __deepcopy__(self, memo: dict[int, object]) -> _LearnedRun:
        """A run of its own from here on, on the same backend."""
        twin = copy.copy(self)
        twin._memory = self._backend.kept(self._memory)
        return twin

    def forget(self, where: Tensor) -> None:
        """Make the memory of these coordinates, bool (coordinates,), what it was before the first step."""
        self._memory = self._backend.forget(self._memory, where)


class _RestingRun:
    """The run moves all coordinates; those at rest are put back, and forget what they saw when they wake."""

    def __init__(self, run: _LearnedRun) -> None:
        self._run = run
        self._resting: Tensor | None = None  # the numbers of coordinates at rest; None before the first step

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        if self._resting is None:
            self._resting = (gradient == 0).nonzero().squeeze(1)
        elif len(self._resting):
            asleep = gradient[self._resting] == 0
            if not asleep.all():
                woken = torch.zeros_like(gradient, dtype=torch.bool)
                woken[self._resting] = ~asleep
                self._run.forget(woken)
                self._resting = self._resting[asleep]
        if not len(self._resting):
            self._run.step(theta, gradient)
            return
        before = theta[self._resting]
        self._run.step(theta, gradient)
        theta[self._resting] = before


@dataclass(frozen=True)
class Sample:
    """Which tasks to run on: `tasks` of them, from the one with index `first` on."""

    split: Split
    seed: int
    trajectory: int
    tasks: int
    first: int = 0


def run(
    contender: Contender,
    family: Family,
    sample: Sample,
    horizon: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    held_out: bool = False,
    looks: tuple[int, ...] = (),
    pictures: bool = False,
    begin: Tensor | None = None,
    repeats: int = 1,
) -> Generator[None, None, Curves]:
    """Yields after each inner step, so that a caller can look at the clock, and returns the Curves: of the sample's
    tasks in an order that depends on the sample alone.

    held_out, pictures: whether to look at held-out data at the end, and to keep some pictures, where tasks have them
    looks: steps, from 0 to the horizon, after which held-out losses are measured; the curves are then of these, and a
        task whose training loss is not finite has an infinite one from there on. Empty: training losses
    begin: where every task begins, (coordinates_per_task,); None: each at its own starting point
    repeats: how often the contender has each task, as in `Family.sample`; the curves are of all tasks, then of all of
        them again. Without held_out and pictures

    Costs `horizon + 1` gradient evaluations a task; one that is judged at its average costs a loss more at each step.
    Raises ValueError where held-out losses are asked for and the tasks have none.
    """
    assert repeats == 1 or not (held_out or pictures)
    chunk = max(1, tasks_at_once(family, contender) // repeats)
    losses: list[Tensor] = []  # (rows, repeats, tasks) each
    ends: list[HeldOut] = []
    film = Film(horizon) if pictures else None
    beyond = sample.first + sample.tasks
    for first in range(sample.first, beyond, chunk):
        batches = family.sample(
            sample.split,
            seed=sample.seed,
            trajectory=sample.trajectory,
            tasks=min(chunk, beyond - first),
            first=first,
            repeats=repeats,
            dtype=dtype,
            device=device,
        )
        for tasks in batches:
            theta = tasks.initial() if begin is None else begin.to(device, dtype).repeat(tasks.tasks)
            stepper = contender.start(tasks)
            judged = stepper.average if isinstance(stepper, Averaging) else None
            rows, seen = [], []
            for step in range(horizon + 1):
                at = judged(theta) if judged else theta
                if film is not None and step:
                    film.look(tasks, at, step)
                if step == horizon:
                    rows.append(_losses(tasks, at, step))
                else:
                    loss, gradient = tasks.losses_and_gradient(theta, step)
                    rows.append(_losses(tasks, at, step) if judged else loss)
                if step in looks:
                    finite = torch.isfinite(torch.stack(rows)).all(dim=0)
                    seen.append(torch.where(finite, _held_out(tasks, at).losses, torch.inf))
                if step < horizon:
                    stepper.step(theta, gradient)
                    yield
            stacked = torch.stack(seen if looks else rows)
            losses.append(stacked.view(len(stacked), repeats, -1))
            end = tasks.held_out(at) if held_out else None
            if end is not None:
                ends.append(end)
    whole = None
    if ends:
        whole = HeldOut(torch.cat([end.losses for end in ends]), torch.cat([end.accuracies for end in ends]))
    pictured = None if film is None else film.developed()
    return Curves(torch.cat(losses, dim=2).flatten(1), whole, looks or None, pictured)


def _held_out(tasks: TaskBatch, theta: Tensor) -> HeldOut:
    found = tasks.held_out(theta)
    if found is None:
        raise ValueError(f"held-out losses are asked for, and tasks of {type(tasks).__name__} have no held-out data")
    return found


@torch.no_grad()
def _losses(tasks: TaskBatch, theta: Tensor, step: int) -> Tensor:
    return tasks.losses(theta, step)


def tasks_at_once(family: Family, contender: Contender) -> int:
    """How many tasks `run` has side by side. Where a sample is cut at multiples of it, each part's curves are those of
    the whole, bit for bit."""
    if isinstance(contender, Learned | ByParts):
        return max(1, CHUNK_COORDINATES // family.coordinates_per_task)
    return family.tasks_abreast


def curves(steps: Generator[object, None, Curves]) -> Curves:
    """Run to the end at one go."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(Curves, end.value)
