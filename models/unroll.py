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
from typing import Protocol

import torch
from torch import Tensor

from gradsmith.rules import LSTMRule, Rule, State
from models.lstm_replay import LSTMReplay, floats_per_coordinate_step
from models.spec import BLOCK_FLOATS
from models.tasks.base import TaskBatch

_AUTOGRAD_FLOATS = 1000  # numbers that autograd keeps for each coordinate and step of the 2x20 LSTM, measured


class Backend(Protocol):
    """How a rule is run and differentiated. Every backend computes the same two functions; tests hold them equal."""

    name: str

    def step(self, rule: Rule, theta: Tensor, gradient: Tensor, state: State, segments: Tensor | None) -> State:
        """One inner step: `theta` (coordinates,) moves in place, the next state is returned."""

    def window_gradient(self, rule: Rule, snapshot: State, G: Tensor, D: Tensor, segments: Tensor | None) -> Tensor:
        """d/d(weights) of sum_t <D[t], update_t>, flat, in the order of `rule.parameters()`.

        snapshot: the rule's state before the window
        G, D: (steps, coordinates), the gradients that entered the rule and the weights of its updates
        """


class TorchBackend:
    """Plain torch, any device and dtype, any rule. An LSTM rule is differentiated by its fast twin, `lstm_replay`;
    every other rule, or all of them with `fused=False`, by autograd through its forward.

    Not to be shared between threads: the replay's buffers are kept.
    """

    name = "torch"

    def __init__(self, *, block_floats: int = BLOCK_FLOATS, fused: bool = True) -> None:
        self._block_floats = block_floats
        self._fused = fused
        self._replays: dict[int, LSTMReplay] = {}
        self._replays_for: tuple[object, ...] = ()

    def step(self, rule: Rule, theta: Tensor, gradient: Tensor, state: State, segments: Tensor | None) -> State:
        with torch.no_grad():
            update, state = rule(gradient, state, segments)
            theta += update
        return state

    def window_gradient(self, rule: Rule, snapshot: State, G: Tensor, D: Tensor, segments: Tensor | None) -> Tensor:
        if self._fused and isinstance(rule, LSTMRule):
            return self._lstm_gradient(rule, snapshot, G, D)
        parameters = list(rule.parameters())
        total = torch.zeros(sum(p.numel() for p in parameters), dtype=G.dtype, device=G.device)
        # A rule that looks across coordinates is replayed whole: a block would not see its neighbours.
        floats = _AUTOGRAD_FLOATS if rule.coordinatewise else 0
        for part in _blocks(G.shape[0], G.shape[1], floats, self._block_floats):
            state = tuple(memory[part] for memory in snapshot)
            own = None if segments is None else segments[part]
            updates = []
            for gradient in G:
                update, state = rule(gradient[part], state, own)
                updates.append(update)
            pieces = torch.autograd.grad(updates, parameters, list(D[:, part]))
            total += torch.cat([piece.reshape(-1) for piece in pieces])
        return total

    def _lstm_gradient(self, rule: LSTMRule, snapshot: State, G: Tensor, D: Tensor) -> Tensor:
        total = {name: torch.zeros_like(parameter) for name, parameter in rule.named_parameters()}
        made_for = (rule, *G.shape, G.dtype, G.device)
        if self._replays_for != made_for:
            self._replays, self._replays_for = {}, made_for
        loaded = set()
        for part in _blocks(G.shape[0], G.shape[1], floats_per_coordinate_step(rule), self._block_floats):
            size = part.stop - part.start
            if size not in self._replays:  # at most two: the blocks are equal, but for the last
                self._replays[size] = LSTMReplay(rule, G.shape[0], size, like=G)
            replay = self._replays[size]
            if size not in loaded:
                replay.load()
                loaded.add(size)
            replay.accumulate(tuple(memory[part] for memory in snapshot), G[:, part], D[:, part], total)
        return torch.cat([piece.reshape(-1) for piece in total.values()])


def _blocks(steps: int, coordinates: int, floats_per_coordinate_step: int, block_floats: int) -> list[slice]:
    """Slices of nearly equal size that hold at most `block_floats` numbers each; one slice for 0 a step."""
    most = max(1, block_floats // max(1, steps * floats_per_coordinate_step))
    count = 1 if floats_per_coordinate_step == 0 else -(-coordinates // most)
    size = max(1, -(-coordinates // max(1, count)))
    return [slice(first, min(first + size, coordinates)) for first in range(0, coordinates, size)]


@dataclass(frozen=True)
class Position:
    """Where a trajectory stands: between two steps, with the gradient at theta already computed."""

    step: int
    theta: Tensor
    state: State
    gradient: Tensor
    losses: Tensor  # (tasks,) at theta


@dataclass(frozen=True)
class Window:
    """What `unroll_window` did. `losses` (unroll_steps, tasks) are f at theta_1 .. theta_T; `gradient` is the flat
    meta-gradient of their sum over steps and mean over tasks."""

    losses: Tensor
    gradient: Tensor


def begin(rule: Rule, tasks: TaskBatch) -> Position:
    """Every task at its starting point, with an empty memory."""
    theta = tasks.initial()
    losses, gradient = tasks.losses_and_gradient(theta, 0)
    state = rule.initial_state(tasks.coordinates, dtype=tasks.dtype, device=tasks.device)
    return Position(0, theta, state, gradient, losses)


def advance(
    rule: Rule,
    tasks: TaskBatch,
    position: Position,
    steps: int,
    backend: Backend,
    visit: Callable[[Tensor, Tensor], None],
) -> Position:
    """`steps` inner steps without a graph. `visit(losses, gradient)` sees f and grad f at each new theta."""
    segments = None if rule.coordinatewise else tasks.segments
    theta = position.theta.clone()
    state, gradient, losses = position.state, position.gradient, position.losses
    for step in range(position.step + 1, position.step + steps + 1):
        state = backend.step(rule, theta, gradient, state, segments)
        losses, gradient = tasks.losses_and_gradient(theta, step)
        visit(losses, gradient)
    return Position(position.step + steps, theta, state, gradient, losses)


def unroll_window(
    rule: Rule, tasks: TaskBatch, position: Position, unroll_steps: int, backend: Backend
) -> tuple[Window, Position]:
    """One window: forward, then the meta-gradient. The gradient at theta_T is the next window's first.

    Costs `unroll_steps` evaluations of the tasks' gradients. Non-finite losses are returned as they are.
    """
    G = position.gradient.new_empty(unroll_steps + 1, tasks.coordinates)
    G[0] = position.gradient
    losses: list[Tensor] = []

    def visit(loss: Tensor, gradient: Tensor) -> None:
        losses.append(loss)
        G[len(losses)] = gradient

    after = advance(rule, tasks, position, unroll_steps, backend, visit)
    D = suffix_sums(G).div_(tasks.tasks)
    segments = None if rule.coordinatewise else tasks.segments
    gradient = backend.window_gradient(rule, position.state, G[:-1], D, segments)
    return Window(torch.stack(losses), gradient), after


def suffix_sums(G: Tensor) -> Tensor:
    """D[t] = sum of G[s] over s > t: (steps + 1, coordinates) -> (steps, coordinates)."""
    return G[1:].flip(0).cumsum_(0).flip(0)
