"""A window of inner steps, and the meta-gradient through it without a graph of the optimizee.

A window goes forward without a graph and keeps the gradients that it met; `models.adjoint` makes the meta-gradient of
them, and only the rule is differentiated. Each loss is counted once, at theta_1 .. theta_T; loss and gradient are taken
on the same minibatch, so the one pass gives both.

Truncation at T steps cuts what an update does to losses beyond the window: a bias towards updates that pay off
soon, in exchange for memory and for gradients that do not explode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradsmith.rules.kernels.base import Refusal
from models import adjoint
from models.backends import Backend, ExactWindow, Memory
from models.backends.base import require_task_size
from models.errors import BackendUnavailable
from models.meta_loss import PLAIN, MetaLoss
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


def begin(tasks: TaskBatch, backend: Backend, horizon: int | None = None) -> Position:
    """Every task at its starting point, with an empty memory. horizon: how many steps there will be, where a rule asks.
    Raises TaskSizeUnknown."""
    require_task_size(backend, tasks.coordinates_per_task)
    theta = tasks.initial()
    losses, gradient = tasks.losses_and_gradient(theta, 0)
    return Position(0, theta, backend.initial_memory(tasks.coordinates, horizon), gradient, losses)


def advance(
    tasks: TaskBatch,
    position: Position,
    steps: int,
    backend: Backend | ExactWindow,
    visit: Callable[[Tensor, Tensor, Tensor], None],
) -> Position:
    """`steps` inner steps without a graph. `visit(theta, losses, gradient)` sees each new theta, which moves on in
    place, and f and grad f there."""
    theta = position.theta.clone()
    memory, gradient, losses = backend.kept(position.memory), position.gradient, position.losses
    for step in range(position.step + 1, position.step + steps + 1):
        memory = backend.step(theta, gradient, memory)
        losses, gradient = tasks.losses_and_gradient(theta, step)
        visit(theta, losses, gradient)
    return Position(position.step + steps, theta, memory, gradient, losses)


def unroll_window(
    tasks: TaskBatch, position: Position, unroll_steps: int, backend: Backend, meta_loss: MetaLoss = PLAIN
) -> tuple[Window, Position]:
    """One window: forward, then the meta-gradient. The gradient at theta_T is the next window's first.

    Costs `unroll_steps` evaluations of the tasks' gradients, and in exact mode as many products with their Hessians,
    less one. Non-finite losses are returned as they are. Raises BackendUnavailable where the backend has no exact
    windows and one is asked for.
    """
    rows = position.gradient.new_empty
    G = rows(unroll_steps + 1, tasks.coordinates)
    G[0] = position.gradient
    outer = G[1:] if meta_loss.outer is None else rows(unroll_steps, tasks.coordinates)
    is_exact = meta_loss.mode == "exact"
    thetas = rows(unroll_steps if is_exact else 0, tasks.coordinates)  # theta_1 .. theta_T
    losses: list[Tensor] = []

    def visit(theta: Tensor, loss: Tensor, gradient: Tensor) -> None:
        row = len(losses)
        losses.append(loss)
        G[row + 1] = gradient
        if meta_loss.outer is not None:
            outer[row] = meta_loss.outer(tasks, theta, position.step + row + 1, loss, gradient)
        if is_exact:
            thetas[row] = theta

    def product(t: int, q: Tensor) -> Tensor:
        return tasks.hessian_vector(thetas[t - 1], position.step + t, q, gradient=G[t])

    if is_exact:
        window = backend.exact_window(tasks.coordinates, unroll_steps)
        if isinstance(window, Refusal):
            raise BackendUnavailable(
                f"The backend {backend.name} has no exact meta-gradients: {window.reason}. Send resources.backend "
                f"torch, or recipe.meta_gradient detached."
            )
        after = advance(tasks, position, unroll_steps, window, visit)
        gradient = adjoint.exact(window, outer, product).div_(tasks.tasks)
    else:
        backend = backend.for_window(tasks.coordinates, unroll_steps)
        after = advance(tasks, position, unroll_steps, backend, visit)
        D = adjoint.suffix_sums(outer).div_(tasks.tasks)
        gradient = backend.window_gradient(position.memory, G[:-1], D)
    return Window(torch.stack(losses), gradient), after
