"""Plain torch: any rule, any device, any precision."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradsmith.rules import HyperRule, MLPRule, Rule, ScheduleRule, Segments
from gradsmith.rules.chosen import Chosen
from gradsmith.rules.configs import MLPConfig
from gradsmith.rules.pieces import Combination
from models import schedule_replay
from models.backends.base import ExactWindow, Memory
from models.backends.recorded import AutogradWindow
from models.hyper_replay import KEPT, KEPT_OF_MATRICES, HyperWindow
from models.lstm_replay import Replays, blocks
from models.memory import BLOCK_FLOATS, KEPT_BYTES
from models.segment_tables import Tables
from models.task_spec import Part


class TorchBackend:
    """A rule in plain torch, on any device and in any dtype. Where the rule has a fast twin (`lstm_replay`; for exact
    windows `hyper_replay` and `schedule_replay`), that one differentiates it; every other rule, or all of them with
    `fused=False`, is differentiated by autograd through its forward: the reference.

    Not to be shared between threads: the replay's buffers are kept.

    dtype, device: default, those of the rule's weights
    parts: the tensors of one task, which a rule that looks across coordinates has to know; default: one
    graphs_bytes: what an exact window's steps may leave for its way back; beyond it, they are computed again
    """

    replayable = False

    def __init__(
        self,
        rule: Rule,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        *,
        parts: Sequence[Part] = (),
        block_floats: int = BLOCK_FLOATS,
        graphs_bytes: int = KEPT_BYTES,
        fused: bool = True,
    ) -> None:
        self.rule = rule
        self.name = "torch" if fused else "reference"
        self.rests = rule.rests
        like = next(rule.parameters(), None)
        self._dtype = dtype or (torch.float32 if like is None else like.dtype)
        self._device = device or (torch.device("cpu") if like is None else like.device)
        self._block_floats = block_floats
        self._graphs_bytes = graphs_bytes
        self._fused = fused
        self._chosen: Chosen | None = None
        self._tables: Tables | None = None
        self._parameters = tuple(rule.parameters())
        self._replays = Replays.of(rule, block_floats) if fused else None
        self._parts = tuple(parts)
        self._segments: tuple[int, Segments] | None = None
        known = parts and not rule.coordinatewise
        self.task_size: int | None = sum(part.size for part in parts) if known else None

    def parameters(self) -> Sequence[nn.Parameter]:
        return self._parameters

    def initial_memory(self, coordinates: int, steps: int | None = None) -> Memory:
        segments = self._segments_of(coordinates)
        if segments is None or segments.shapes is None:
            tensors = 1 if segments is None else segments.rows
            empty = self.rule.initial_state(coordinates, tensors=tensors, dtype=self._dtype, device=self._device)
        else:
            empty = self.rule.memory_for(segments.shapes, segments.count, dtype=self._dtype, device=self._device)
        return self.rule.plan(empty, steps)

    @property
    def learns_apart(self) -> bool:
        """Whether the rule's network may learn from some coordinates while all move."""
        return isinstance(self.rule, MLPRule)

    def learning_from(self, chosen: Chosen) -> TorchBackend:
        """This backend, with weight gradients of these coordinates alone."""
        assert self.learns_apart
        twin = copy.copy(self)
        twin._chosen = chosen
        return twin

    def rows(self, memory: Memory, places: Tensor) -> Memory:
        """The memory of these coordinates, (n,) int64, of a rule whose coordinates do not see each other."""
        return tuple(tensor[places] for tensor in memory)

    def for_window(self, coordinates: int, steps: int) -> TorchBackend:  # noqa: ARG002
        return self

    def step(self, theta: Tensor, gradient: Tensor, memory: Memory) -> Memory:
        with torch.no_grad():
            segments, shrinkage = self._segments_of(theta.shape[0]), self.rule.shrinkage(memory)
            if shrinkage is not None:
                assert segments is not None, "only rules that know tensors shrink them"
                theta *= 1 - segments.spread(shrinkage)
            update, memory = self.rule(gradient, memory, segments)
            theta += update
        return memory

    def forget(self, memory: Memory, where: Tensor) -> Memory:
        anew = self.initial_memory(where.shape[0], 1)
        own = len(memory) - self.rule.of_tensors - self.rule.of_sides  # what is remembered of a tensor stays
        found = [torch.where(where[:, None], fresh, kept) for fresh, kept in zip(anew[:own], memory[:own], strict=True)]
        return (*found, *memory[own:])

    def kept(self, memory: Memory) -> Memory:
        return memory  # a rule changes nothing in place

    def window_gradient(self, snapshot: Memory, G: Tensor, D: Tensor) -> Tensor:
        if not self._parameters:
            return G.new_zeros(0)
        if self._replays is not None:
            return self._replays.gradient(snapshot, G, D)
        total = torch.zeros(sum(p.numel() for p in self._parameters), dtype=G.dtype, device=G.device)
        for part in self._blocks(G.shape[0], G.shape[1]):
            state = tuple(memory[part] for memory in snapshot)
            updates = []
            for gradient in G:
                update, state = self._applied(gradient[part], state, part, G.shape[1])
                updates.append(update)
            # Curves of matrices are in no graph where there is no matrix.
            pieces = torch.autograd.grad(
                updates, self._parameters, list(D[:, part]), allow_unused=True, materialize_grads=True
            )
            total += torch.cat([piece.reshape(-1) for piece in pieces])
        return total

    def exact_window(self, coordinates: int, steps: int) -> ExactWindow:
        """The rule's fast twin where it has one and the budget holds what that keeps; else autograd, whatever the
        rule."""
        segments = self._segments_of(coordinates)
        if self._fused and isinstance(self.rule, HyperRule) and segments is not None:
            kept = KEPT_OF_MATRICES if self.rule.settings.direction == "muon" else KEPT
            kept_bytes = self._dtype.itemsize * kept * coordinates * steps
            if kept_bytes <= self._graphs_bytes:
                if self._tables is None or self._tables.count != segments.count:
                    self._tables = Tables(segments.sizes, segments.count, segments.device, segments.shapes)
                return HyperWindow(self.rule, self._tables, steps, like=self._parameters[0].detach())
        left = self._dtype.itemsize * schedule_replay.KEPT * coordinates * steps
        without_matrices = isinstance(self.rule, ScheduleRule) and self.rule.settings.direction != "muon"
        if self._fused and without_matrices and left <= self._graphs_bytes:
            assert isinstance(self.rule, ScheduleRule)
            return schedule_replay.ScheduleWindow(self.rule, steps)
        keeps_graphs = self._dtype.itemsize * self._graph_numbers(coordinates) * steps <= self._graphs_bytes
        blocks = [slice(0, coordinates)] if keeps_graphs else self._blocks(1, coordinates)

        def step(gradient: Tensor, memory: Memory, block: slice) -> tuple[Tensor, Memory]:
            return self._applied(gradient, memory, block, coordinates)

        return AutogradWindow(step, self._parameters, blocks, keeps_graphs=keeps_graphs)

    def _graph_numbers(self, coordinates: int) -> int:
        """What autograd keeps of a step; of the network only where it learns."""
        settings = self.rule.settings
        numbers = settings.costs().autograd * coordinates
        if self._chosen is None or not isinstance(settings, MLPConfig):
            return numbers
        network = 2 * settings.hidden_size * settings.layers + Combination.of(settings.input).width
        return numbers - network * (coordinates - len(self._chosen.places))

    def _applied(self, gradient: Tensor, memory: Memory, block: slice, coordinates: int) -> tuple[Tensor, Memory]:
        """The rule's forward on a block of so many coordinates."""
        segments = self._segments_of(coordinates)
        if self._chosen is None:
            update, after = self.rule(gradient, memory, segments)
        else:
            update, after = self.rule(gradient, memory, segments, self._chosen.within(block, coordinates))
        return update, after

    def _blocks(self, steps: int, coordinates: int) -> list[slice]:
        """A rule that looks across coordinates is replayed whole: a block would not see its neighbours."""
        if not self.rule.coordinatewise:
            return [slice(0, coordinates)]
        return blocks(steps, coordinates, self.rule.settings.costs().autograd, self._block_floats)

    def _segments_of(self, coordinates: int) -> Segments | None:
        if self.rule.coordinatewise:
            return None
        if self._segments is None or self._segments[0] != coordinates:
            sizes = [part.size for part in self._parts] or [coordinates]
            shapes = [part.shape for part in self._parts] or None
            self._segments = coordinates, Segments.repeated(sizes, coordinates, self._device, shapes)
        return self._segments[1]
