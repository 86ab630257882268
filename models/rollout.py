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
from models.memory import CHUNK_COORDINATES
from models.spec import Split
from models.tasks.base import Family, HeldOut, TaskBatch

PICTURED_PIXELS = 2 * 64 * 64
"""Pixels of the tasks whose pictures a run keeps, at each of some steps; one task at least."""
FINAL_STEPS = 5  # a single step's minibatch is worth several percent of noise on a network


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
class Pictures:
    """What the first tasks of a sample looked like in the middle of a run.

    images: uint8 (tasks, steps, height, width, 3)
    steps: after which inner steps
    given: what the images are to be held against, by name, uint8 (tasks, height, width, 3)
    """

    images: Tensor
    steps: tuple[int, ...]
    given: Mapping[str, Tensor]


@dataclass(frozen=True)
class Curves:
    """`losses` (horizon + 1, tasks): f at theta_0 .. theta_horizon on the minibatch of that step."""

    losses: Tensor
    held_out: HeldOut | None
    pictures: Pictures | None = None

    @property
    def final(self) -> Tensor:
        """The mean loss of the last FINAL_STEPS steps: (tasks,); a run that met a non-finite loss counts as
        infinite."""
        return torch.where(self.finite, trailing_means(self.losses)[-1], torch.inf)

    @property
    def area(self) -> Tensor:
        """The mean loss over steps 1 .. horizon: (tasks,). Step 0 is the same whatever optimizes."""
        moved = self.losses[1:] if self.horizon else self.losses
        return torch.where(self.finite, moved.mean(dim=0), torch.inf)

    @property
    def horizon(self) -> int:
        return self.losses.shape[0] - 1

    def cut(self, steps: int) -> Curves:
        """The first `steps` steps of the run, without what was held out, which is measured at the end."""
        return Curves(self.losses[: steps + 1], None)

    @property
    def finite(self) -> Tensor:
        return torch.isfinite(self.losses).all(dim=0)


def trailing_means(losses: Tensor) -> Tensor:
    """The mean loss of the last FINAL_STEPS steps up to each: (horizon + 1, tasks) -> the same. The loss at the start
    counts for itself alone, so that step 3 has the mean of three."""
    means = losses.clone()
    steps = losses.shape[0] - 1
    for back in range(1, min(FINAL_STEPS, steps)):
        means[1 + back :] += losses[1 : steps + 1 - back]
    counts = torch.arange(steps + 1, device=losses.device).clamp(1, FINAL_STEPS)
    return means / counts[:, None]


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
    pictures: bool = False,
) -> Generator[None, None, Curves]:
    """Yields after each inner step, so that a caller can look at the clock, and returns the Curves: of the sample's
    tasks in an order that depends on the sample alone.

    held_out, pictures: whether to look at held-out data at the end, and to keep some pictures, where tasks have them
    Costs `horizon + 1` gradient evaluations a task; one that is judged at its average costs a loss more at each step.
    """
    chunk = tasks_at_once(family)
    losses: list[Tensor] = []
    ends: list[HeldOut] = []
    film = _Film(horizon) if pictures else None
    beyond = sample.first + sample.tasks
    for first in range(sample.first, beyond, chunk):
        batches = family.sample(
            sample.split,
            seed=sample.seed,
            trajectory=sample.trajectory,
            tasks=min(chunk, beyond - first),
            first=first,
            dtype=dtype,
            device=device,
        )
        for tasks in batches:
            theta = tasks.initial()
            stepper = contender.start(tasks)
            judged = stepper.average if isinstance(stepper, Averaging) else None
            rows = []
            for step in range(horizon):
                loss, gradient = tasks.losses_and_gradient(theta, step)
                rows.append(_losses(tasks, judged(theta), step) if judged else loss)
                stepper.step(theta, gradient)
                if film is not None:
                    film.look(tasks, judged(theta) if judged else theta, step + 1)
                yield
            theta = judged(theta) if judged else theta
            rows.append(_losses(tasks, theta, horizon))
            losses.append(torch.stack(rows))
            end = tasks.held_out(theta) if held_out else None
            if end is not None:
                ends.append(end)
    whole = None
    if ends:
        whole = HeldOut(torch.cat([end.losses for end in ends]), torch.cat([end.accuracies for end in ends]))
    return Curves(torch.cat(losses, dim=1), whole, None if film is None else film.developed())


def pictured_steps(horizon: int) -> tuple[int, ...]:
    """After which inner steps pictures are taken."""
    return tuple(sorted({max(1, horizon // part) for part in (8, 4, 2, 1)}))


class _Film:
    """Takes the pictures of a run, of its first tasks alone."""

    def __init__(self, horizon: int) -> None:
        self._steps = pictured_steps(horizon)
        self._frames: list[list[Tensor]] = []  # of each batch that is looked at, a frame a step
        self._given: list[Mapping[str, Tensor]] = []
        self._left: int | None = None  # tasks still to be looked at; unknown before the first picture

    def look(self, tasks: TaskBatch, theta: Tensor, step: int) -> None:
        if step not in self._steps or self._left == 0:
            return
        images = tasks.pictures(theta)
        if images is None:
            return
        if self._left is None:
            self._left = max(1, PICTURED_PIXELS // (images.shape[1] * images.shape[2]))
        if step == self._steps[0]:
            self._frames.append([])
            self._given.append({name: each[: self._left].cpu() for name, each in tasks.given_pictures().items()})
        self._frames[-1].append(images[: self._left].cpu())
        if step == self._steps[-1]:
            self._left -= self._frames[-1][-1].shape[0]

    def developed(self) -> Pictures | None:
        if not self._frames:
            return None
        images = torch.cat([torch.stack(frames, dim=1) for frames in self._frames])
        given = {name: torch.cat([each[name] for each in self._given]) for name in self._given[0]}
        return Pictures(images, self._steps, given)


@torch.no_grad()
def _losses(tasks: TaskBatch, theta: Tensor, step: int) -> Tensor:
    return tasks.losses(theta, step)


def tasks_at_once(family: Family) -> int:
    """How many tasks `run` has side by side. Where a sample is cut at multiples of it, each part's curves are those of
    the whole, bit for bit."""
    return max(1, CHUNK_COORDINATES // family.coordinates_per_task)


def curves(steps: Generator[object, None, Curves]) -> Curves:
    """Run to the end at one go."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(Curves, end.value)
