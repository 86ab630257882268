"""A window of inner steps, and the meta-gradient through it without a graph of the optimizee.

The gradient that enters a rule counts as a constant and the update is additive, so with losses f_s counted at
theta_1 .. theta_T (each once, weight 1)

    dL / d(update_t) = sum over s > t of grad f_s(theta_s) = D[t],

a suffix sum of gradients that the inner loop has already computed, because loss and gradient are taken on the same
minibatch. Only the rule is differentiated: it is replayed over the stored gradients, a block of coordinates at a
time where coordinates are independent, so that memory is T numbers a coordinate and not T graphs.

Truncation at T steps cuts what an update does to losses beyond the window: a bias towards updates that pay off
soon, in exchange for memory and for gradients that do not explode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.backends import Backend, Memory
from models.backends.base import require_task_size
from models.tasks.base import TaskBatch


@dataclass(frozen=True)
class Position:
    """Where a trajectory stands: between two steps, with the gradient at theta already computed."""

    step: int
    theta: Tensor
    memory: Memory
    gradient: Tensor
    losses: Tensor  # (tasks,) at theta


@dataclass(frozen=True)
class Window:
    """What `unroll_window` did. `losses` (unroll_steps, tasks) are f at theta_1 .. theta_T; `gradient` is the flat
    meta-gradient of their sum over steps and mean over tasks."""

    losses: Tensor
    gradient: Tensor


def begin(tasks: TaskBatch, backend: Backend) -> Position:
    """Every task at its starting point, with an empty memory. Raises TaskSizeUnknown."""
    require_task_size(backend, tasks.coordinates_per_task)
    theta = tasks.initial()
    losses, gradient = tasks.losses_and_gradient(theta, 0)
    return Position(0, theta, backend.initial_memory(tasks.coordinates), gradient, losses)


def advance(
    tasks: TaskBatch,
    position: Position,
    steps: int,
    backend: Backend,
    visit: Callable[[Tensor, Tensor], None],
) -> Position:
    """`steps` inner steps without a graph. `visit(losses, gradient)` sees f and grad f at each new theta."""
    theta = position.theta.clone()
    memory, gradient, losses = backend.kept(position.memory), position.gradient, position.losses
    for step in range(position.step + 1, position.step + steps + 1):
        memory = backend.step(theta, gradient, memory)
        losses, gradient = tasks.losses_and_gradient(theta, step)
        visit(losses, gradient)
    return Position(position.step + steps, theta, memory, gradient, losses)


def unroll_window(tasks: TaskBatch, position: Position, unroll_steps: int, backend: Backend) -> tuple[Window, Position]:
    """One window: forward, then the meta-gradient. The gradient at theta_T is the next window's first.

    Costs `unroll_steps` evaluations of the tasks' gradients. Non-finite losses are returned as they are.
    """
    G = position.gradient.new_empty(unroll_steps + 1, tasks.coordinates)
    G[0] = position.gradient
    losses: list[Tensor] = []

    def visit(loss: Tensor, gradient: Tensor) -> None:
        losses.append(loss)
        G[len(losses)] = gradient

    backend = backend.for_window(tasks.coordinates, unroll_steps)
    after = advance(tasks, position, unroll_steps, backend, visit)
    D = suffix_sums(G).div_(tasks.tasks)
    gradient = backend.window_gradient(position.memory, G[:-1], D)
    return Window(torch.stack(losses), gradient), after


def suffix_sums(G: Tensor) -> Tensor:
    """D[t] = sum of G[s] over s > t: (steps + 1, coordinates) -> (steps, coordinates)."""
    return G[1:].flip(0).cumsum_(0).flip(0)
