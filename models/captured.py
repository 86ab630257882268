"""Windows replayed from a CUDA graph.

A window of a small task is hundreds of short kernels, which Python launches more slowly than a GPU runs them. A graph
holds all of them and is launched at once, but it holds their arguments too: the same addresses, the same numbers. So
the window is recorded on buffers that stay, into which each window's position, tasks and first step are copied, and
what it computed is copied out.

The next batch of tasks is copied in by its `buffers()`. Whatever a batch does not name there would go wrong in
silence, and so would a number that was recorded; so the first replays, and the first of a second batch, are compared
with the window run plainly.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.backends import Backend
from models.meta_loss import PLAIN, MetaLoss
from models.tasks.base import TaskBatch
from models.unroll import Position, Window, unroll_window

logger = logging.getLogger(__name__)

Outcome = tuple[Window, Position]
Windows = Callable[[TaskBatch, Position, int], Outcome]
Recorder = Callable[[Callable[[], Outcome]], tuple[Outcome, Callable[[], None]]]
"""Records `work`, running it as often as needed. Returns the outcome, in fixed buffers, and a function that
recomputes it into them."""

_LARGEST_ERROR = 1e-3  # of a replay against the same window run plainly; they are equal but for the choice of GEMMs


def windows(backend: Backend, device: torch.device, meta_loss: MetaLoss = PLAIN) -> Windows:
    """`unroll_window` with `backend`: from a CUDA graph where the backend and the meta-loss allow it, else plainly."""
    if backend.replayable and device.type == "cuda" and meta_loss.recordable:
        return CapturedWindows(backend, record_on_cuda, meta_loss)

    def plain(tasks: TaskBatch, position: Position, unroll_steps: int) -> Outcome:
        return unroll_window(tasks, position, unroll_steps, backend, meta_loss)

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


@dataclass
class _Recording:
    key: tuple[object, ...]
    tasks: TaskBatch
    loaded: TaskBatch  # whose tensors `tasks` holds
    first_step: Tensor
    position: Position
    outcome: Outcome
    replay: Callable[[], None]
    to_compare: int = 2  # replays: in the second, step and weights are others than when it was recorded
    had_other_tasks: bool = False


class CapturedWindows:
    """`unroll_window` by a recording. One is kept: another window length or shape of tasks is recorded anew.
    Whatever cannot be recorded, or is not replayed as it should be, runs plainly from then on, after one log line."""

    def __init__(self, backend: Backend, record: Recorder, meta_loss: MetaLoss = PLAIN) -> None:
        self._backend = backend
        self._meta_loss = meta_loss
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
        return unroll_window(tasks, position, unroll_steps, self._backend, self._meta_loss)

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
        if recording.to_compare > 0:
            recording.to_compare -= 1
            plainly = unroll_window(tasks, position, unroll_steps, self._backend, self._meta_loss)
            error = _difference(outcome, plainly)
            if error > _LARGEST_ERROR:
                self._give_up(f"a replay was off by {error:.1e}")
                return plainly
        return outcome

    def _recorded(self, key: tuple[object, ...], tasks: TaskBatch, position: Position, unroll_steps: int) -> _Recording:
        twin = copy.deepcopy(tasks)  # with tensors of its own
        first_step = torch.zeros((), dtype=torch.int64, device=tasks.device)
        memory = tuple(tensor.clone() for tensor in position.memory)
        still = Position(0, position.theta.clone(), memory, position.gradient.clone(), position.losses.clone())
        later = _Later(twin, first_step)

        def work() -> Outcome:
            return unroll_window(later, still, unroll_steps, self._backend, self._meta_loss)

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

    def buffers(self) -> Mapping[str, Tensor]:
        return self._batch.buffers()

    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        return self._batch.losses_and_gradient(theta, self._first_step + step)

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:
        return self._batch.losses(theta, self._first_step + step)


def _described(tasks: TaskBatch) -> tuple[object, ...]:
    """Equal for two batches of which one can be copied into the other."""
    size = (tasks.tasks, tasks.coordinates_per_task, tasks.dtype, tasks.device)
    buffers = tasks.buffers().items()
    return type(tasks), tasks.namespace, size, *((name, it.shape, it.dtype, it.device) for name, it in buffers)


def _load(recording: _Recording, tasks: TaskBatch, position: Position) -> None:
    recording.first_step.fill_(position.step)
    still = recording.position
    still.theta.copy_(position.theta)
    still.gradient.copy_(position.gradient)
    for kept, current in zip(still.memory, position.memory, strict=True):
        kept.copy_(current)
    if recording.loaded is not tasks:
        given = tasks.buffers()
        for name, mine in recording.tasks.buffers().items():
            mine.copy_(given[name])
        recording.loaded = tasks
        if not recording.had_other_tasks:
            recording.had_other_tasks, recording.to_compare = True, max(1, recording.to_compare)


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
