"""What a baseline is made of. All that its file needs can be imported from here, and none of it is torch."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from gradsmith.rules.shapes import matrix

if TYPE_CHECKING:
    from torch import Tensor

    from models.rollout import Stepper
    from models.task_spec import TaskSpec
    from models.tasks.base import TaskBatch

Tier = Literal["tuned", "untuned"]


class Run(Protocol):
    """A baseline in the middle of a run. It takes the shape of its memory from the first gradient, and calls only
    methods of tensors, so that its file imports no torch."""

    def step(self, theta: Tensor, gradient: Tensor, learning_rate: float) -> None:
        """Move `theta` (coordinates,) in place."""


class RunOfEach(Protocol):
    """A Run whose tasks may have learning rates of their own."""

    def step(self, theta: Tensor, gradient: Tensor, learning_rate: float | Tensor) -> None:
        """learning_rate: of all tasks, or of each, (tasks,) float64"""


class AtRate:
    """A run whose learning rate is a function of the step's number, from 0: what `models.rollout` calls a Stepper."""

    def __init__(self, run: Run, rate: Callable[[int], float]) -> None:
        self._run = run
        self._rate = rate
        self._step = 0

    def step(self, theta: Tensor, gradient: Tensor) -> None:
        self._run.step(theta, gradient, self._rate(self._step))
        self._step += 1


def anywhere(_: TaskSpec) -> bool:
    """For a baseline that every evaluation includes."""
    return True


def nowhere(_: TaskSpec) -> bool:
    """For a baseline that is included where a job names it."""
    return False


def on_networks(tasks: TaskSpec) -> bool:
    """For a baseline that works on matrices: tasks have some among their weights."""
    return any(part.role == "weight" and matrix(part.shape) for part in tasks.parts())


MATRICES_LIMIT = (
    "For a model without matrices. It works on tensors of two dimensions or more, each a matrix of its first dimension "
    "and all others; the rest has Adam."
)
"""The limit of a baseline that is `on_networks`."""


def on_exact_gradients(tasks: TaskSpec) -> bool:
    """For a baseline that learns of curvature from differences of gradients: these are of one function."""
    return not tasks.noisy


@dataclass(frozen=True)
class Baseline(ABC):
    """A hand-made optimizer, as the register keeps it.

    name: what jobs and results call it
    label: what reports call it
    tier: "tuned" where its learning rate and schedule are tuned for the family, "untuned" where it runs once at its
        published defaults
    usual: whether an evaluation on these tasks includes it where it names no baselines
    fits: whether it can run on these tasks at all
    version: counts the changes that give other numbers, so that stored runs of before are not taken for its own
    """

    name: str
    label: str
    tier: ClassVar[Tier]
    usual: Callable[[TaskSpec], bool] = field(default=anywhere, kw_only=True)
    fits: Callable[[TaskSpec], bool] = field(default=anywhere, kw_only=True)
    version: int = field(default=1, kw_only=True)


@dataclass(frozen=True)
class Tunable(Baseline):
    """A baseline of the tuned tier: its numbers to tune are a learning rate and a schedule.

    centre: k of the learning rate 10^(k/4) in the middle of its first grid, near its usual optimum
    start: makes a fresh run on tasks
    of_each: whether it is a RunOfEach. Any other one looks at coordinates alone, and never at its tasks
    torch: the name of the optimizer in torch.optim that it equals step by step, None where there is none
    settings: how that optimizer is called, beside its learning rate
    matrices: whether it is for tasks with matrices among their tensors, whose parts it asks for
    limit: where it should not be used, for its card; "" where that depends on its numbers alone
    usual_rate: torch's own learning rate, for an anatomy of an optimizer that shows this one beside it without having
        it tuned; None: anatomies do not show it
    """

    tier: ClassVar[Tier] = "tuned"
    centre: float = field(kw_only=True)
    start: Callable[[TaskBatch], Run] = field(kw_only=True)
    of_each: bool = field(default=False, kw_only=True)
    torch: str | None = field(kw_only=True)
    settings: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    matrices: bool = field(default=False, kw_only=True)
    limit: str = field(default="", kw_only=True)
    usual_rate: float | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Untuned(Baseline):
    """A baseline of the untuned tier. It is a Contender of `models.rollout`: `start` makes a fresh run on tasks.

    defaults: its published settings, for reports
    """

    tier: ClassVar[Tier] = "untuned"
    defaults: str = field(kw_only=True)
    start: Callable[[TaskBatch], Stepper] = field(kw_only=True)
