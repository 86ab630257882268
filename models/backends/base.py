"""What every backend is: a rule's step, and the gradient of a window of steps with respect to the rule's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from gradsmith.rules.kernels.base import Refusal
from models.errors import TaskSizeUnknown

Memory = tuple[Tensor, ...]
"""What a backend keeps of the rule's state, in a layout of its own; it is opaque to everybody else."""


DETACHED = Refusal("its meta-gradients are detached: the kernel has no second derivatives")
"""What a kernel says that has no exact window."""


class Backend(Protocol):
    """A rule, bound to what computes it on one device and in one precision. Every backend computes the same functions;
    tests hold them equal. Weights that change in place are those of the next step.

    name: what a job's record says
    replayable: whether its windows may be recorded in a CUDA graph
    rests: whether the rule itself leaves a coordinate alone that has never had a gradient other than zero
    task_size: coordinates of one task, where the backend has to know which tensor is where; None: tasks of any size
    """

    name: str
    replayable: bool
    task_size: int | None
    rests: bool

    def parameters(self) -> Sequence[nn.Parameter]:
        """The rule's weights, in the order of `window_gradient`."""

    def initial_memory(self, coordinates: int, steps: int | None = None) -> Memory:
        """The rule's state before the first step of a run of so many steps; None: nobody knows. Raises ValueError for
        a rule that needs them."""

    def for_window(self, coordinates: int, steps: int) -> Backend:
        """The backend for one window: what its `steps` steps leave may make its `window_gradient` cheaper. Only one
        window's at a time is to be used."""

    def step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        """One inner step: `theta` (coordinates,) moves in place, the next memory is returned. The one that was given
        may be overwritten: it is not to be used again."""

    def forget(self, memory: Memory, where: Tensor) -> Memory:
        """`memory`, but as before the first step where `where`, bool (coordinates,), is true. The one that was given
        may be overwritten, as in `step`."""

    def kept(self, memory: Memory) -> Memory:
        """`memory` as it is now, whatever later steps do."""

    def window_gradient(self, snapshot: Memory, G: Tensor, D: Tensor) -> Tensor:
        """d/d(weights) of sum_t <D[t], update_t>, flat, in the order of `parameters()`.

        snapshot: the rule's memory before the window
        G, D: (steps, coordinates), the gradients that entered the rule and the weights of its updates
        """

    def exact_window(self, coordinates: int, steps: int) -> ExactWindow | Refusal:
        """One window that is differentiated with second derivatives, or why there is none."""


class ExactWindow(Protocol):
    """One window: `step` as often as there are steps, then `back` as often, then `gradient`. Not to be used twice."""

    def step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        """See `Backend.step`."""

    def kept(self, memory: Memory) -> Memory:
        """See `Backend.kept`."""

    def back(self, worth: Tensor) -> Tensor:
        """The step before the last one that was gone back through, or the window's last.

        worth: dL / d(update), (coordinates,), of that step
        Returns dL / d(gradient), (coordinates,), through the update and through what the state brings to later steps.
        """

    def gradient(self) -> Tensor:
        """dL / d(weights), flat, in the order of `Backend.parameters()`, of all steps gone back through."""


def require_task_size(backend: Backend, size: int) -> None:
    """Raises TaskSizeUnknown where the backend knows the tensors of tasks of another size."""
    if backend.task_size not in (None, size):
        raise TaskSizeUnknown(
            f"A task has {size} coordinates, and the parts of its family have {backend.task_size}. Several rules, and "
            f"rules that look across coordinates, need tasks of one size. Send one rule of kind lstm or mlp for this "
            f"family."
        )
