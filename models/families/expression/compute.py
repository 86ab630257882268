"""Runs programs with torch, for many tasks at once. Every value has the tasks as its first axis, of length 1 where it
is the same for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from models.families.expression.program import Instruction, Integration, Program, Shape

Operands = Sequence[Tensor]


def run(program: Program, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """The value of every slot. inputs: (tasks or 1, *shape) by name; one dtype and one device."""
    like = next(iter(inputs.values()))
    values: list[Tensor] = []
    for each in program.instructions:
        if each.operation == "input":
            values.append(inputs[each.name])
        elif each.integration is not None:
            values.append(_integrated(each, each.integration, values))
        else:
            operands = [values[slot] for slot in each.inputs]
            values.append(_OPERATIONS[each.operation](each, operands, like))
    return values


def _integrated(instruction: Instruction, integration: Integration, values: Sequence[Tensor]) -> Tensor:
    """The states at all times, (tasks, times, *state): the classical Runge-Kutta method (Kutta 1901)."""
    state, times = (values[slot] for slot in instruction.inputs)
    body = integration.body
    fixed = {name: values[slot] for name, slot in integration.captured.items()}

    timed = any(each.name == "time" for each in body.instructions)

    def slope(state: Tensor, start: Tensor, after: Tensor | None = None) -> Tensor:
        time = {} if not timed else {"time": start if after is None else start + after}
        return run(body, {"state": state, **time, **fixed})[body.result]

    ones = (1,) * (state.dim() - 1)
    states = [state]
    for interval in range(integration.intervals):
        length = (times[:, interval + 1] - times[:, interval]) / integration.substeps
        h = length.view(-1, *ones)
        half, sixth = h / 2, h / 6
        for substep in range(integration.substeps):
            time = times[:, interval] + substep * length
            first = slope(state, time)
            second = slope(state + half * first, time, length / 2)
            third = slope(state + half * second, time, length / 2)
            last = slope(state + h * third, time, length)
            state = state + sixth * (first + 2 * (second + third) + last)
        states.append(state)
    most = max(each.shape[0] for each in states)
    return torch.stack([each.expand(most, *each.shape[1:]) for each in states], dim=1)


Operation = Callable[[Instruction, Operands, Tensor], Tensor]
"""(instruction, operands, a tensor of the run's dtype and device) -> the value."""


def _aligned(function: Callable[..., Tensor]) -> Operation:
    """Operands broadcast behind the axis of tasks: shorter shapes get sides of 1 there."""

    def compute(instruction: Instruction, operands: Operands, _: Tensor) -> Tensor:
        rank = len(instruction.shape)
        return function(*(_raised(each, rank) for each in operands))

    return compute


def _raised(value: Tensor, rank: int) -> Tensor:
    shape = value.shape
    return value.view(shape[0], *(1,) * (rank + 1 - len(shape)), *shape[1:])


def _plain(function: Callable[[Tensor], Tensor]) -> Operation:
    return lambda _, operands, __: function(operands[0])


def _compared(function: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    return _aligned(lambda left, right: function(left, right).to(left.dtype))


def _reduced(function: Callable[[Tensor, int], Tensor]) -> Operation:
    def compute(instruction: Instruction, operands: Operands, _: Tensor) -> Tensor:
        axis, value = instruction.settings[0], operands[0]
        return (
            function(value.flatten(1) if value.dim() > 1 else value.unsqueeze(1), 1)
            if axis is None
            else function(value, _behind_tasks(axis, value))
        )

    return compute


def _along(function: Callable[[Tensor, int], Tensor]) -> Operation:
    def compute(instruction: Instruction, operands: Operands, _: Tensor) -> Tensor:
        [axis] = instruction.settings
        assert axis is not None
        return function(operands[0], _behind_tasks(axis, operands[0]))

    return compute


def _behind_tasks(axis: float, value: Tensor) -> int:
    return int(axis) % (value.dim() - 1) + 1


def _matmul(_: Instruction, operands: Operands, __: Tensor) -> Tensor:
    left, right = operands
    rows, columns = left.dim() == 2, right.dim() == 2
    product = torch.matmul(left.unsqueeze(1) if rows else left, right.unsqueeze(2) if columns else right)
    if rows:
        product = product.squeeze(1)
    return product.squeeze(-1) if columns else product


def _indexed(instruction: Instruction, operands: Operands, _: Tensor) -> Tensor:
    value, settings = operands[0], instruction.settings
    index: list[int | slice] = []
    for start, stop in zip(settings[::2], settings[1::2], strict=True):
        assert start is not None
        index.append(int(start) if stop is None else slice(int(start), int(stop)))
    return value[(slice(None), *index)]


def _expanded(operands: Operands) -> list[Tensor]:
    """With all tasks in each of them."""
    tasks = max(each.shape[0] for each in operands)
    return [each.expand(tasks, *each.shape[1:]) for each in operands]


def _made(make: Callable[[Shape, Tensor], Tensor]) -> Operation:
    return lambda instruction, _, like: make(instruction.shape, like).unsqueeze(0)


def _linspace(instruction: Instruction, _: Operands, like: Tensor) -> Tensor:
    first, last, count = instruction.settings
    assert first is not None
    assert last is not None
    assert count is not None
    return torch.linspace(first, last, int(count), dtype=like.dtype, device=like.device).unsqueeze(0)


def _huber(instruction: Instruction, operands: Operands, _: Tensor) -> Tensor:
    """Half the square within delta, and from there on a line (Huber 1964)."""
    delta, size = instruction.settings[0], operands[0].abs()
    assert delta is not None
    inside = size.clamp(max=delta)
    return inside * (size - inside / 2)


_OPERATIONS: dict[str, Operation] = {
    "number": lambda instruction, _, like: like.new_full((1,), instruction.settings[0] or 0.0),
    "negative": _plain(torch.neg),
    "abs": _plain(torch.abs),
    "exp": _plain(torch.exp),
    "expm1": _plain(torch.expm1),
    "log": _plain(torch.log),
    "log1p": _plain(torch.log1p),
    "sqrt": _plain(torch.sqrt),
    "square": _plain(torch.square),
    "sign": _plain(torch.sign),
    "sin": _plain(torch.sin),
    "cos": _plain(torch.cos),
    "tan": _plain(torch.tan),
    "atan": _plain(torch.atan),
    "sinh": _plain(torch.sinh),
    "cosh": _plain(torch.cosh),
    "tanh": _plain(torch.tanh),
    "sigmoid": _plain(torch.sigmoid),
    "softplus": _plain(torch.nn.functional.softplus),
    "relu": _plain(torch.relu),
    "erf": _plain(torch.erf),
    "add": _aligned(torch.add),
    "subtract": _aligned(torch.sub),
    "multiply": _aligned(torch.mul),
    "divide": _aligned(torch.div),
    "power": _aligned(torch.pow),
    "less": _compared(torch.lt),
    "less_equal": _compared(torch.le),
    "greater": _compared(torch.gt),
    "greater_equal": _compared(torch.ge),
    "maximum": _aligned(torch.maximum),
    "minimum": _aligned(torch.minimum),
    "clip": _aligned(lambda value, low, high: torch.minimum(torch.maximum(value, low), high)),
    "where": _aligned(lambda condition, yes, no: torch.where(condition != 0, yes, no)),
    "huber": _huber,
    "sum": _reduced(lambda value, axis: value.sum(axis)),
    "mean": _reduced(lambda value, axis: value.mean(axis)),
    "max": _reduced(lambda value, axis: value.amax(axis)),
    "min": _reduced(lambda value, axis: value.amin(axis)),
    "logsumexp": _reduced(lambda value, axis: value.logsumexp(axis)),
    "norm": _reduced(lambda value, axis: torch.linalg.vector_norm(value, dim=axis)),
    "softmax": _along(torch.softmax),
    "log_softmax": _along(torch.log_softmax),
    "cumsum": _along(torch.cumsum),
    "matmul": _matmul,
    "dot": lambda _, operands, __: (operands[0] * operands[1]).sum(1),
    "outer": lambda _, operands, __: operands[0].unsqueeze(2) * operands[1].unsqueeze(1),
    "transpose": _plain(lambda value: value.transpose(1, 2)),
    "index": _indexed,
    "diff": _plain(lambda value: value.diff(dim=-1)),
    "stack": lambda _, operands, __: torch.stack(_expanded(operands), dim=1),
    "concat": lambda instruction, operands, _: torch.cat(
        _expanded(operands), dim=_behind_tasks(instruction.settings[0] or 0.0, operands[0])
    ),
    "reshape": lambda instruction, operands, _: operands[0].reshape(operands[0].shape[0], *instruction.shape),
    "zeros": _made(lambda shape, like: like.new_zeros(shape)),
    "ones": _made(lambda shape, like: like.new_ones(shape)),
    "eye": _made(lambda shape, like: torch.eye(shape[0], dtype=like.dtype, device=like.device)),
    "arange": _made(lambda shape, like: torch.arange(shape[0], dtype=like.dtype, device=like.device)),
    "linspace": _linspace,
}
