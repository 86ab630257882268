"""The operations of expressions: how each is called, and the shape that it gives. Needs no torch.

`models.families.expression.compute` has the same names, and computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.families.expression.program import Shape

LARGEST_SIDE = 100_000


class Unfit(ValueError):
    """Operands that do not go together; `str(error)` says why."""


@dataclass(frozen=True)
class Call:
    """Operands and settings of a call. settings: the named arguments that the operation has, defaults filled in."""

    shapes: tuple[Shape, ...]
    settings: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One function of expressions.

    usage: how it is written, which errors show
    least, most: how many operands it takes; most None: any number
    shape: the shape of its value. Raises Unfit.
    settings: named arguments with their defaults, all literal numbers
    literals: whether its operands are literal whole numbers as well, such as those of `zeros(3, 4)`
    """

    usage: str
    least: int
    most: int | None
    shape: Callable[[Call], Shape]
    settings: tuple[tuple[str, float | None], ...] = ()
    literals: bool = False


def shown(shape: Shape) -> str:
    """A shape in words: "a number", "(3,)"."""
    return "a number" if shape == () else f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """numpy's rule: sides are aligned at the end, and one of length 1 stretches. Raises Unfit."""
    sides: list[int] = []
    for place in range(1, max(map(len, shapes), default=0) + 1):
        lengths = {shape[-place] for shape in shapes if len(shape) >= place} - {1}
        if len(lengths) > 1:
            raise Unfit(f"the shapes {' and '.join(map(shown, shapes))} do not go together")
        sides.append(lengths.pop() if lengths else 1)
    return tuple(reversed(sides))


def product(left: Shape, right: Shape) -> Shape:
    """The shape of `left @ right`, each a vector or a matrix. Raises Unfit."""
    if not (1 <= len(left) <= 2 and 1 <= len(right) <= 2):
        raise Unfit(f"@ multiplies vectors and matrices, not {shown(left)} and {shown(right)}; * multiplies numbers")
    if left[-1] != right[0]:
        raise Unfit(f"{shown(left)} @ {shown(right)}: {left[-1]} columns meet {right[0]} rows")
    return left[:-1] + right[1:]


def axis_of(shape: Shape, axis: float) -> int:
    """The axis, counted from the front. Raises Unfit."""
    if axis != int(axis) or not -len(shape) <= axis < len(shape):
        raise Unfit(f"there is no axis {axis:g} in {shown(shape)}")
    return int(axis) % len(shape)


def _same(call: Call) -> Shape:
    return call.shapes[0]


def _broadcast(call: Call) -> Shape:
    return broadcast(call.shapes)


def _reduced(call: Call) -> Shape:
    [shape], axis = call.shapes, call.settings[0]
    if axis is None:
        return ()
    at = axis_of(shape, axis)
    return shape[:at] + shape[at + 1 :]


def _along(call: Call) -> Shape:
    [shape], axis = call.shapes, call.settings[0]
    assert axis is not None
    axis_of(shape, axis)
    return shape


def _made(call: Call) -> Shape:
    sides = tuple(int(side) for side in call.settings if side is not None)
    if any(not 1 <= side <= LARGEST_SIDE for side in sides):
        raise Unfit(f"a side of an array is 1 to {LARGEST_SIDE}")
    return sides


def _square(call: Call) -> Shape:
    return _made(call) * 2


def _line(call: Call) -> Shape:
    count = call.settings[2]
    if count is None or count != int(count):
        raise Unfit("the third argument of linspace counts points; use a whole number")
    return _made(Call((), (count,)))


def _reshaped(call: Call) -> Shape:
    sides = _made(call)
    before, after = _count(call.shapes[0]), _count(sides)
    if before != after:
        raise Unfit(f"{shown(call.shapes[0])} has {before} numbers and {shown(sides)} has {after}")
    return sides


def _count(shape: Shape) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def _joined(call: Call) -> Shape:
    first, axis = call.shapes[0], call.settings[0]
    assert axis is not None
    at = axis_of(first, axis)
    others = {shape[:at] + shape[at + 1 :] for shape in call.shapes if len(shape) == len(first)}
    if len(others) > 1 or any(len(shape) != len(first) for shape in call.shapes):
        raise Unfit(f"the shapes {', '.join(map(shown, call.shapes))} cannot be joined along axis {at}")
    return (*first[:at], sum(shape[at] for shape in call.shapes), *first[at + 1 :])


def _differences(call: Call) -> Shape:
    [shape] = call.shapes
    if not shape or shape[-1] < 2:
        raise Unfit(f"{shown(shape)} has no neighbours along its last axis")
    return (*shape[:-1], shape[-1] - 1)


def _inner(call: Call) -> Shape:
    left, right = call.shapes
    if len(left) != 1 or left != right:
        raise Unfit(f"dot takes two vectors of one length, not {shown(left)} and {shown(right)}")
    return ()


def _outer(call: Call) -> Shape:
    left, right = call.shapes
    if len(left) != 1 or len(right) != 1:
        raise Unfit(f"outer takes two vectors, not {shown(left)} and {shown(right)}")
    return left + right


def _stacked(call: Call) -> Shape:
    if len(set(call.shapes)) > 1:
        raise Unfit(f"a list has entries of one shape, not of {', '.join(map(shown, sorted(set(call.shapes))))}")
    return (len(call.shapes), *call.shapes[0])


ELEMENTWISE = (
    "abs", "exp", "expm1", "log", "log1p", "sqrt", "square", "sign", "sin", "cos", "tan", "atan", "sinh", "cosh",
    "tanh", "sigmoid", "softplus", "relu", "erf",
)  # fmt: skip
"""Functions of one number, applied to each."""

REDUCTIONS = ("sum", "mean", "max", "min", "logsumexp", "norm")
"""Functions of all numbers, or of those along an axis."""

BINARY = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "**": "power"}
BINARY |= {"<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}
"""The operation of each operator whose operands broadcast."""

OPERATIONS: dict[str, Operation] = {
    **{name: Operation(f"{name}(x)", 1, 1, _same) for name in ELEMENTWISE},
    **{name: Operation(f"{name}(x, axis=0)", 1, 1, _reduced, (("axis", None),)) for name in REDUCTIONS},
    **{
        name: Operation(f"{name}(x, axis=-1)", 1, 1, _along, (("axis", -1),))
        for name in ("softmax", "log_softmax", "cumsum")
    },
    "maximum": Operation("maximum(x, y)", 2, 2, _broadcast),
    "minimum": Operation("minimum(x, y)", 2, 2, _broadcast),
    "clip": Operation("clip(x, low, high)", 3, 3, _broadcast),
    "where": Operation("where(x > y, a, b)", 3, 3, _broadcast),
    "huber": Operation("huber(x, delta=1)", 1, 1, _same, (("delta", 1.0),)),
    "dot": Operation("dot(x, y)", 2, 2, _inner),
    "outer": Operation("outer(x, y)", 2, 2, _outer),
    "diff": Operation("diff(x)", 1, 1, _differences),
    "concat": Operation("concat(x, y, axis=0)", 1, None, _joined, (("axis", 0.0),)),
    "zeros": Operation("zeros(3, 4)", 1, 4, _made, literals=True),
    "ones": Operation("ones(3, 4)", 1, 4, _made, literals=True),
    "eye": Operation("eye(3)", 1, 1, _square, literals=True),
    "arange": Operation("arange(10)", 1, 1, _made, literals=True),
    "linspace": Operation("linspace(0, 1, 11)", 3, 3, _line, literals=True),
    "reshape": Operation("reshape(x, 3, 4)", 2, 5, _reshaped, literals=True),
}
"""Every function, by its name; `odeint` apart, which takes a function."""

STACKED = Operation("[x, y]", 1, None, _stacked)
