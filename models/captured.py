"""Windows replayed from a CUDA graph.

A window of a small task is hundreds of short kernels, which Python launches more slowly than a GPU runs them. A graph
holds all of them and is launched at once, but it holds their arguments too: the same addresses, the same numbers. So
the window is recorded on buffers that stay, into which each window's position, tasks and first step are copied, and
what it computed is copied out.

Two things are checked, since both would go wrong in silence: what a batch of tasks keeps must be tensors and plain
values, or its next batch could not be copied in; and the first replays are compared with the window run plainly.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from typing import TypeVar, cast

import torch
from pydantic import BaseModel
from torch import Tensor

from models.backends import Backend
from models.tasks.base import TaskBatch
from models.unroll import Position, Window, unroll_window

logger = logging.getLogger(__name__)

Kept = TypeVar("Kept")
Outcome = tuple[Window, Position]
Windows = Callable[[TaskBatch, Position, int], Outcome]
Recorder = Callable[[Callable[[], Outcome]], tuple[Outcome, Callable[[], None]]]
"""Records `work`, running it as often as needed. Returns the outcome, in fixed buffers, and a function that
recomputes it into them."""

_COMPARED = 2  # replays that are checked; from the second on, step and weights are others than when it was recorded
_LARGEST_ERROR = 1e-3  # of a replay against the same window run plainly; they are equal but for the choice of GEMMs
_PLAIN = (int, float, str, bool, type(None), torch.dtype, torch.device, BaseModel)


def windows(backend: Backend, device: torch.device) -> Windows:
    """`unroll_window` with `backend`: from a CUDA graph where the backend allows it, else plainly."""
    if backend.replayable and device.type == "cuda":
        return CapturedWindows(backend, record_on_cuda)

    def plain(tasks: TaskBatch, position: Position, unroll_steps: int) -> Outcome:
        return unroll_window(tasks, position, unroll_steps, backend)

    return plain


def record_on_cuda(work: Callable[[], Outcome]) -> tuple[Outcome, Callable[[], None]]:
    """Capture `work` in a CUDA graph, after two runs that load modules and compile programs."""
    stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outcome = work()
    return outcome, graph.replay


class CannotCapture(Exception):
    """A batch of tasks keeps something that is neither a tensor nor a plain value."""


@dataclass
class _Recording:
    key: tuple[object, ...]
    tasks: TaskBatch
    loaded: TaskBatch  # whose tensors `tasks` holds
    first_step: Tensor
    position: Position
    outcome: Outcome
    replay: Callable[[], None]
    compared: int = 0


class CapturedWindows:
    """`unroll_window` by a recording. One is kept: another window length or shape of tasks is recorded anew.
    Whatever cannot be recorded, or is not replayed as it should be, runs plainly from then on, after one log line."""

    def __init__(self, backend: Backend, record: Recorder) -> None:
        self._backend = backend
        self._record = record
        self._recording: _Recording | None = None
        self._given_up = False

    def __call__(self, tasks: TaskBatch, position: Position, unroll_steps: int) -> Outcome:
        """Runs a window like `models.unroll.unroll_window`; the caller owns what it returns."""
        if not self._given_up:
            try:
                return self._replayed(tasks, position, unroll_steps)
            except Exception as error:  # noqa: BLE001  a driver refuses in many ways, and the plain window is right
                self._give_up(f"{type(error).__name__}: {error}")
        return unroll_window(tasks, position, unroll_steps, self._backend)

    def _replayed(self, tasks: TaskBatch, position: Position, unroll_steps: int) -> Outcome:
        weights = tuple(parameter.data_ptr() for parameter in self._backend.parameters())
        shapes = tuple(memory.shape for memory in position.memory)
        key = (weights, unroll_steps, shapes, *_described(tasks))
        recording = self._recording
        if recording is None or recording.key != key:
            self._recording = None  # its memory is free for the next one
            recording = self._recording = self._recorded(key, tasks, position, unroll_steps)
        _load(recording, tasks, position)
        recording.replay()
        outcome = _copied(recording.outcome, position.step + unroll_steps)
        if recording.compared < _COMPARED:
            recording.compared += 1
            plainly = unroll_window(tasks, position, unroll_steps, self._backend)
            error = _difference(outcome, plainly)
            if error > _LARGEST_ERROR:
                self._give_up(f"a replay was off by {error:.1e}")
                return plainly
        return outcome

    def _recorded(self, key: tuple[object, ...], tasks: TaskBatch, position: Position, unroll_steps: int) -> _Recording:
        twin = _twin(tasks)
        first_step = torch.zeros((), dtype=torch.int64, device=tasks.device)
        memory = tuple(tensor.clone() for tensor in position.memory)
        still = Position(0, position.theta.clone(), memory, position.gradient.clone(), position.losses.clone())
        later = _Later(twin, first_step)

        def work() -> Outcome:
            return unroll_window(later, still, unroll_steps, self._backend)

        outcome, replay = self._record(work)
        return _Recording(key, twin, tasks, first_step, still, outcome, replay)

    def _give_up(self, reason: str) -> None:
        self._given_up, self._recording = True, None
        logger.warning("Windows run without a CUDA graph (%s); small tasks train more slowly.", reason[:300])


class _Later(TaskBatch):
    """A batch whose steps are counted from a number on the device. All that a family does with a step is to multiply
    and add, which a tensor does as well."""

    def __init__(self, tasks: TaskBatch, first_step: Tensor) -> None:
        super().__init__(tasks.tasks, tasks.coordinates_per_task, tasks.dtype, tasks.device)
        self._batch = tasks
        self._first_step = first_step

    def initial(self) -> Tensor:
        return self._batch.initial()

    def losses_and_gradient(self, theta: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return self._batch.losses_and_gradient(theta, cast(int, self._first_step + step))

    def losses(self, theta: Tensor, step: int) -> Tensor:
        return self._batch.losses(theta, cast(int, self._first_step + step))


def _parts(value: object, inside: str = "") -> Iterator[tuple[str, object]]:
    """What an object keeps, name by name; of a dataclass within it, what that keeps."""
    remembered = value.remembered if isinstance(value, TaskBatch) else ()
    for name, item in sorted(vars(value).items()):
        if name in remembered:
            continue
        if is_dataclass(item) and not isinstance(item, type):
            yield from _parts(item, f"{inside}{name}.")
        else:
            yield f"{inside}{name}", item


def _described(tasks: TaskBatch) -> tuple[object, ...]:
    """Equal for two batches of which one can be copied into the other. Raises CannotCapture."""
    described: list[object] = [type(tasks)]
    for name, item in _parts(tasks):
        if isinstance(item, Tensor):
            described.append((name, item.shape, item.dtype, item.device))
        elif isinstance(item, _PLAIN):
            described.append((name, item))
        else:
            raise CannotCapture(f"{type(tasks).__name__} keeps {name}, of type {type(item).__name__}")
    return tuple(described)


def _twin(value: Kept) -> Kept:
    """A copy with tensors of its own."""
    twin = copy.copy(value)
    for name, item in vars(value).items():
        if isinstance(item, Tensor):
            object.__setattr__(twin, name, item.clone())  # a dataclass may be frozen
        elif is_dataclass(item) and not isinstance(item, type):
            object.__setattr__(twin, name, _twin(item))
    return twin


def _load(recording: _Recording, tasks: TaskBatch, position: Position) -> None:
    recording.first_step.fill_(position.step)
    still = recording.position
    still.theta.copy_(position.theta)
    still.gradient.copy_(position.gradient)
    for kept, current in zip(still.memory, position.memory, strict=True):
        kept.copy_(current)
    if recording.loaded is not tasks:
        for (_, mine), (_, given) in zip(_parts(recording.tasks), _parts(tasks), strict=True):
            if isinstance(mine, Tensor) and isinstance(given, Tensor):
                mine.copy_(given)
        recording.loaded = tasks


def _copied(outcome: Outcome, step: int) -> Outcome:
    window, after = outcome
    memory = tuple(tensor.clone() for tensor in after.memory)
    position = Position(step, after.theta.clone(), memory, after.gradient.clone(), after.losses.clone())
    return Window(window.losses.clone(), window.gradient.clone()), position


def _difference(outcome: Outcome, plainly: Outcome) -> float:
    """The larger of losses' and meta-gradient's largest difference over largest value; 0 where those diverged."""
    errors = [0.0]
    for found, truth in ((outcome[0].losses, plainly[0].losses), (outcome[0].gradient, plainly[0].gradient)):
        largest = truth.abs().max()
        if bool(largest.isfinite()) and bool(largest > 0):
            error = ((found - truth).abs().max() / largest).item()
            errors.append(error if error == error else float("inf"))
    return max(errors)
