"""Plain torch: any rule, any device, any precision."""

from __future__ import annotations

import torch
from torch import Tensor

from gradsmith.rules import LSTMRule, Rule, State
from models.backends.base import Memory
from models.lstm_replay import LSTMReplay
from models.memory import BLOCK_FLOATS

_AUTOGRAD_FLOATS = 1000  # numbers that autograd keeps for each coordinate and step of the 2x20 LSTM, measured


class TorchBackend:
    """Plain torch, any device and dtype, any rule. An LSTM rule is differentiated by its fast twin, `lstm_replay`;
    every other rule, or all of them with `fused=False`, by autograd through its forward: the reference.

    Not to be shared between threads: the replay's buffers are kept.
    """

    def __init__(self, *, block_floats: int = BLOCK_FLOATS, fused: bool = True) -> None:
        self._block_floats = block_floats
        self._fused = fused
        self.name = "torch" if fused else "reference"
        self._replays: dict[int, LSTMReplay] = {}
        self._replays_for: tuple[object, ...] = ()

    def initial_memory(self, rule: Rule, coordinates: int, dtype: torch.dtype, device: torch.device) -> Memory:
        return rule.initial_state(coordinates, dtype=dtype, device=device)

    def for_window(self, coordinates: int, steps: int) -> TorchBackend:  # noqa: ARG002
        return self

    def step(self, rule: Rule, theta: Tensor, gradient: Tensor, memory: Memory, segments: Tensor | None) -> Memory:
        with torch.no_grad():
            update, memory = rule(gradient, memory, segments)
            theta += update
        return memory

    def kept(self, memory: Memory) -> Memory:
        return memory  # a rule changes nothing in place

    def window_gradient(self, rule: Rule, snapshot: Memory, G: Tensor, D: Tensor, segments: Tensor | None) -> Tensor:
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
        for part in _blocks(G.shape[0], G.shape[1], rule.settings.costs().replay, self._block_floats):
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
