"""The meta-gradient of an LSTM rule, written out by hand: the fast twin of autograd through `LSTMRule.forward`.

Autograd keeps a graph of some forty small tensors a step and layer; here every activation goes into a buffer that is
made once for a block of coordinates, and the backward pass is some fifteen in-place operations. A test holds the two
equal to 1e-12 in float64; `gradsmith.rules.lstm` stays the only place where the math is told.

Letters: T steps of the window, B coordinates of the block, H hidden units, K = inputs of a layer + H + 1. Tensors are
feature-major, (features, B), as in the rule. The last row of a layer's input is ones, so that its bias is a column of
its weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradsmith.rules import LSTMRule, Rule, State
from gradsmith.rules.inputs import Input


class Replays:
    """The gradient of windows of one LSTM rule, block by block, in buffers that are kept.

    Not to be shared between threads.
    """

    def __init__(self, rule: LSTMRule, block_floats: int) -> None:
        self._rule = rule
        self._block_floats = block_floats
        self._made: dict[int, LSTMReplay] = {}
        self._made_for: tuple[object, ...] = ()

    @classmethod
    def of(cls, rule: Rule, block_floats: int) -> Replays | None:
        """None for a rule that is not the paper's LSTM: autograd differentiates it."""
        return cls(rule, block_floats) if isinstance(rule, LSTMRule) and rule.settings.as_published else None

    def gradient(self, snapshot: State, G: Tensor, D: Tensor) -> Tensor:
        """See `Backend.window_gradient`."""
        total = {name: torch.zeros_like(parameter) for name, parameter in self._rule.named_parameters()}
        made_for = (*G.shape, G.dtype, G.device)
        if self._made_for != made_for:
            self._made, self._made_for = {}, made_for
        loaded = set()
        steps, coordinates = G.shape
        for part in blocks(steps, coordinates, self._rule.settings.costs().replay, self._block_floats):
            size = part.stop - part.start
            if size not in self._made:  # at most two: the blocks are equal, but for the last
                self._made[size] = LSTMReplay(self._rule, G.shape[0], size, like=G)
            replay = self._made[size]
            if size not in loaded:
                replay.load()
                loaded.add(size)
            replay.accumulate(tuple(memory[part] for memory in snapshot), G[:, part], D[:, part], total)
        return torch.cat([piece.reshape(-1) for piece in total.values()])


def blocks(steps: int, coordinates: int, floats_per_coordinate_step: int, block_floats: int) -> list[slice]:
    """Slices of nearly equal size that hold at most `block_floats` numbers each."""
    most = max(1, block_floats // max(1, steps * floats_per_coordinate_step))
    size = max(1, -(-coordinates // max(1, -(-coordinates // most))))
    return [slice(first, min(first + size, coordinates)) for first in range(0, coordinates, size)]


class LSTMReplay:
    """Replays windows of one LSTM rule. Its buffers are worth keeping from window to window: touching fresh memory
    costs a fifth of a replay. `load` takes the rule's present weights."""

    def __init__(self, rule: LSTMRule, steps: int, block: int, like: Tensor) -> None:
        self._rule = rule
        width = rule.features.width
        self._layers: list[_Buffers] = []
        for _ in rule.layers:
            self._layers.append(_Buffers.made(width, rule.hidden_size, steps, block, like))
            width = rule.hidden_size

    def load(self) -> None:
        """Copy the rule's weights; to be called after each change of them."""
        with torch.no_grad():
            for layer, buffers in zip(self._rule.layers, self._layers, strict=True):
                buffers.load(layer.get_parameter("weight"), layer.get_parameter("bias"))

    def accumulate(self, snapshot: State, G: Tensor, D: Tensor, total: dict[str, Tensor]) -> None:
        """Add the gradient over one block of B coordinates to `total`, a tensor for each of the rule's parameters.

        snapshot: each (B, H); G, D: (T, B)
        """
        with torch.no_grad():
            self._forward(snapshot, G)
            self._backward(D * self._rule.output_scale, total)

    def _forward(self, snapshot: State, G: Tensor) -> None:
        for buffers, hidden, cell in zip(self._layers, snapshot[0::2], snapshot[1::2], strict=True):
            buffers.hidden(0).copy_(hidden.t())
            buffers.cell[0].copy_(cell.t())
        top, features = len(self._layers) - 1, self._rule.features
        assert isinstance(features, Input), "Replays.of takes no other"
        for t, gradient in enumerate(G):
            self._layers[0].signal(t).copy_(features.read(gradient, ())[0].t())
            for level, buffers in enumerate(self._layers):
                buffers.forward(t)
                if level < top:
                    self._layers[level + 1].signal(t).copy_(buffers.hidden(t + 1))

    def _backward(self, D: Tensor, total: dict[str, Tensor]) -> None:
        top = self._layers[-1]
        total["readout_bias"] += D.sum()
        for buffers in self._layers:
            buffers.carried_hidden.zero_()
            buffers.carried_cell.zero_()
            buffers.gradient.zero_()
        readout = self._rule.readout_weight.detach()[:, None]
        for t in reversed(range(D.shape[0])):
            row = D[t]
            total["readout_weight"] += torch.mv(top.hidden(t + 1), row)
            top.carried_hidden.addmm_(readout, row[None])
            for level in reversed(range(len(self._layers))):
                below = self._layers[level - 1].carried_hidden if level else None
                self._layers[level].backward(t, below)
        for level, buffers in enumerate(self._layers):
            total[f"layers.{level}.weight"] += buffers.gradient[:, :-1]
            total[f"layers.{level}.bias"] += buffers.gradient[:, -1]


@dataclass(frozen=True)
class _Buffers:
    """One layer's weights and what a block needs of it. Gates are in torch's order: input, forget, candidate, output.

    weight (4H, K), doubled in the candidate's rows so that one sigmoid serves all gates: tanh(x) = 2 sigmoid(2x) - 1
    back (K - 1, 4H): the weight as it is, transposed, without the bias
    inputs (T + 1, K, B); gates (T, 4H, B); cell (T + 1, H, B); squashed (T, H, B) = tanh of the next cell
    """

    width: int
    units: int
    weight: Tensor
    back: Tensor
    inputs: Tensor
    gates: Tensor
    cell: Tensor
    squashed: Tensor
    delta: Tensor
    scratch: Tensor
    returned: Tensor
    carried_hidden: Tensor
    carried_cell: Tensor
    gradient: Tensor

    @classmethod
    def made(cls, width: int, units: int, steps: int, block: int, like: Tensor) -> _Buffers:
        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=like.dtype, device=like.device)

        inputs = empty(steps + 1, width + units + 1, block)
        inputs[:, -1] = 1.0
        return cls(
            width=width,
            units=units,
            weight=empty(4 * units, width + units + 1),
            back=empty(width + units, 4 * units),
            inputs=inputs,
            gates=empty(steps, 4 * units, block),
            cell=empty(steps + 1, units, block),
            squashed=empty(steps, units, block),
            delta=empty(4 * units, block),
            scratch=empty(units, block),
            returned=empty(width + units, block),
            carried_hidden=empty(units, block),
            carried_cell=empty(units, block),
            gradient=empty(4 * units, width + units + 1),
        )

    def load(self, weight: Tensor, bias: Tensor) -> None:
        self.weight[:, :-1] = weight
        self.weight[:, -1] = bias
        self.weight[2 * self.units : 3 * self.units] *= 2
        self.back.copy_(weight.t())

    def signal(self, t: int) -> Tensor:
        return self.inputs[t, : self.width]

    def hidden(self, t: int) -> Tensor:
        return self.inputs[t, self.width : -1]

    def forward(self, t: int) -> None:
        gates = torch.mm(self.weight, self.inputs[t], out=self.gates[t]).sigmoid_()
        write, forget, candidate, show = _quarters(gates)
        candidate.mul_(2).sub_(1)
        cell = torch.mul(forget, self.cell[t], out=self.cell[t + 1]).addcmul_(write, candidate)
        squashed = torch.mul(cell, 2, out=self.squashed[t]).sigmoid_().mul_(2).sub_(1)
        torch.mul(show, squashed, out=self.hidden(t + 1))

    def backward(self, t: int, below: Tensor | None) -> None:
        """Turns d/d(hidden t+1) and d/d(cell t+1) in the carried buffers into those of t. Adds to the weights'
        gradient, and to `below`, which is d/d(hidden t+1) of the layer underneath."""
        H = self.units
        write, forget, candidate, show = _quarters(self.gates[t])
        d_write, d_forget, d_candidate, d_show = _quarters(self.delta)
        squashed, d_hidden, d_cell = self.squashed[t], self.carried_hidden, self.carried_cell
        torch.mul(d_hidden, squashed, out=d_show)
        torch.mul(d_hidden, show, out=self.scratch)
        d_cell += torch.ops.aten.tanh_backward.grad_input(self.scratch, squashed, grad_input=self.scratch)
        torch.mul(d_cell, candidate, out=d_write)
        torch.mul(d_cell, self.cell[t], out=d_forget)
        torch.mul(d_cell, write, out=d_candidate)
        d_cell *= forget
        gates, delta = self.gates[t], self.delta
        torch.ops.aten.sigmoid_backward.grad_input(delta[: 2 * H], gates[: 2 * H], grad_input=delta[: 2 * H])
        torch.ops.aten.tanh_backward.grad_input(d_candidate, candidate, grad_input=d_candidate)
        torch.ops.aten.sigmoid_backward.grad_input(d_show, show, grad_input=d_show)
        self.gradient.addmm_(delta, self.inputs[t].t())
        if below is None:
            torch.mm(self.back[self.width :], delta, out=d_hidden)
        else:
            torch.mm(self.back, delta, out=self.returned)
            below += self.returned[: self.width]
            d_hidden.copy_(self.returned[self.width :])


def _quarters(gates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Views of the input, forget, candidate and output gates: (4H, B) -> four times (H, B)."""
    write, forget, candidate, show = gates.chunk(4)
    return write, forget, candidate, show
