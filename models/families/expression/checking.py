"""Turns expressions into programs: names are looked up, functions written out, and every shape worked out.

Whatever passes here runs: an expression that names what is not there, joins shapes that do not fit or grows beyond the
limits is refused with the column at which it goes wrong.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from models.families.expression.grammar import RESERVED, Definition, ExpressionError, Node, parsed, parsed_definition
from models.families.expression.operations import (
    BINARY,
    OPERATIONS,
    STACKED,
    Call,
    Operation,
    Unfit,
    broadcast,
    product,
    shown,
)
from models.families.expression.program import Instruction, Integration, Program, Shape

MOST_INSTRUCTIONS = 2000
MOST_WORK = 20_000
"""Operations of one evaluation of the loss, those of a differential equation's steps included: some 0.2 s."""
MOST_NUMBERS = 4_000_000
DEEPEST = 120
"""Nodes within nodes. A chain of sums is a tree as deep as it is long."""
_ODE = "odeint(right_side, start, times, ..., substeps=1)"


class Checker:
    """Reads definitions one after another, then the loss. inputs: the shape of every declared name."""

    def __init__(self, inputs: Mapping[str, Shape]) -> None:
        self._main = _Builder(self)
        self.values: dict[str, int] = {}
        self.functions: dict[str, Definition] = {}
        for name, shape in inputs.items():
            self._declare(name, 1)
            self.values[name] = self._main.emit(1, Instruction("input", shape, name=name))

    def define(self, text: str) -> None:
        """A definition, of a value or of a function. Raises ExpressionError."""
        definition = parsed_definition(text)
        self._declare(definition.name, definition.column)
        if definition.arguments is None:
            self.values[definition.name] = self._main.value(definition.body, {})
        else:
            for argument in definition.arguments:
                self._refuse_reserved(argument, definition.column)
            self.functions[definition.name] = definition

    def finish(self, text: str) -> Program:
        """The program that computes the loss, which is one number. Raises ExpressionError."""
        node = parsed(text)
        result = self._main.value(node, {})
        shape = self._main.shape(result)
        if shape != ():
            raise ExpressionError(
                node.column, f"a loss is one number, and this is {shown(shape)}; take sum() or mean()"
            )
        return self._main.program(result)

    def _declare(self, name: str, column: int) -> None:
        self._refuse_reserved(name, column)
        if name in self.values or name in self.functions:
            raise ExpressionError(column, f"the name {name!r} is given twice")

    @staticmethod
    def _refuse_reserved(name: str, column: int) -> None:
        if name in RESERVED or name in OPERATIONS or name == "odeint":
            raise ExpressionError(column, f"the name {name!r} means something already; choose another")


class _Builder:
    """The instructions of the loss, or of a right side. outside: the builder that a right side reads values from."""

    def __init__(self, checker: Checker, outside: _Builder | None = None) -> None:
        self._checker = checker
        self._outside = outside
        self._instructions: list[Instruction] = []
        self.captured: dict[int, int] = {}
        """Slots outside, and where their values are here."""
        self._depth = 0

    def emit(self, column: int, instruction: Instruction) -> int:
        """Appends an instruction and gives its slot. Raises ExpressionError beyond the limits."""
        self._instructions.append(instruction)
        if len(self._instructions) > MOST_INSTRUCTIONS:
            raise ExpressionError(column, f"this makes more than {MOST_INSTRUCTIONS} operations; use fewer calls")
        if instruction.size > MOST_NUMBERS or instruction.numbers > MOST_NUMBERS:
            raise ExpressionError(
                column, f"this computes {instruction.numbers:,} numbers for a task, and at most {MOST_NUMBERS:,} fit"
            )
        if instruction.work > MOST_WORK:
            raise ExpressionError(
                column, f"this makes {instruction.work:,} operations, and at most {MOST_WORK:,} run; use fewer steps"
            )
        return len(self._instructions) - 1

    def shape(self, slot: int) -> Shape:
        return self._instructions[slot].shape

    def program(self, result: int) -> Program:
        """The finished program. Raises ExpressionError where all of it together is beyond the limits."""
        program = Program(tuple(self._instructions), result)
        if program.work > MOST_WORK or program.numbers > MOST_NUMBERS:
            raise ExpressionError(
                1,
                f"all of it makes {program.work:,} operations on {program.numbers:,} numbers of a task; at most "
                f"{MOST_WORK:,} operations and {MOST_NUMBERS:,} numbers fit",
            )
        return program

    def value(self, node: Node, local: Mapping[str, int]) -> int:
        """The slot of a node's value. local: slots of a function's arguments."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise ExpressionError(node.column, "this is nested too deep; name its parts in definitions")
        try:
            return self._of(node, local)
        except Unfit as error:
            raise ExpressionError(node.column, str(error)) from error
        finally:
            self._depth -= 1

    def _of(self, node: Node, local: Mapping[str, int]) -> int:
        column = node.column
        if node.kind == "number":
            return self._number(column, _finite(node))
        if node.kind == "name":
            return self._named(node, local)
        if node.kind == "call":
            return self._call(node, local)
        if node.kind == "index":
            return self._index(node, local)
        slots = tuple(self.value(each, local) for each in node.inputs)
        shapes = tuple(map(self.shape, slots))
        if node.kind == "list":
            return self.emit(column, Instruction("stack", STACKED.shape(Call(shapes)), slots))
        if node.kind == "negative":
            return self.emit(column, Instruction("negative", shapes[0], slots))
        if node.kind == "transpose":
            if len(shapes[0]) != 2:
                raise Unfit(f".T transposes a matrix, not {shown(shapes[0])}")
            return self.emit(column, Instruction("transpose", shapes[0][::-1], slots))
        if node.kind == "@":
            return self.emit(column, Instruction("matmul", product(*shapes), slots))
        return self.emit(column, Instruction(BINARY[node.kind], broadcast(shapes), slots))

    def _number(self, column: int, number: float) -> int:
        return self.emit(column, Instruction("number", (), settings=(number,)))

    def _named(self, node: Node, local: Mapping[str, int]) -> int:
        if node.text in local:
            return local[node.text]
        if node.text == "pi":
            return self._number(node.column, math.pi)
        outer = self._checker.values.get(node.text)
        if outer is None:
            raise ExpressionError(node.column, self._unknown(node.text, local))
        return outer if self._outside is None else self._capture(outer)

    def _capture(self, slot: int) -> int:
        assert self._outside is not None
        if slot not in self.captured:
            self.captured[slot] = self.emit(1, Instruction("input", self._outside.shape(slot), name=f"outside {slot}"))
        return self.captured[slot]

    def _unknown(self, name: str, local: Mapping[str, int]) -> str:
        if name in self._checker.functions or name in OPERATIONS or name == "odeint":
            return f"{name} is a function; call it"
        here = [*local, *self._checker.values]
        return f"there is no {name!r} here{_meant(name, here)} (there are {', '.join(sorted(here)) or 'no names'})"

    def _call(self, node: Node, local: Mapping[str, int]) -> int:
        if node.text == "odeint":
            return self._odeint(node, local)
        if (function := self._checker.functions.get(node.text)) is not None:
            if node.named:
                raise ExpressionError(node.column, f"{node.text} takes its arguments without names")
            return self.inlined(node, function, [self.value(each, local) for each in node.inputs])
        operation = OPERATIONS.get(node.text)
        if operation is None:
            known = [*self._checker.functions, *OPERATIONS, "odeint"]
            raise ExpressionError(
                node.column,
                f"there is no function {node.text!r}{_meant(node.text, known)}; functions: {', '.join(sorted(known))}",
            )
        count = len(node.inputs)
        if count < operation.least or (operation.most is not None and count > operation.most):
            raise ExpressionError(node.column, f"{node.text} is called as {operation.usage}, not with {count} values")
        literal = node.inputs[1 if node.text == "reshape" else 0 :] if operation.literals else ()
        slots = tuple(self.value(each, local) for each in node.inputs[: count - len(literal)])
        settings = (*map(_literal, literal), *_settings(node, operation))
        if node.text != "linspace" and any(each != int(each) for each in settings[: len(literal)] if each is not None):
            raise ExpressionError(node.column, f"{node.text} takes whole numbers, as in {operation.usage}")
        shape = operation.shape(Call(tuple(map(self.shape, slots)), settings))
        return self.emit(node.column, Instruction(node.text, shape, slots, settings))

    def inlined(self, node: Node, function: Definition, slots: Sequence[int]) -> int:
        """A function of the user's, written out at its call."""
        arguments = function.arguments or ()
        if len(slots) != len(arguments):
            raise ExpressionError(
                node.column, f"{function.name}({', '.join(arguments)}) is called with {len(slots)} values"
            )
        try:
            return self.value(function.body, dict(zip(arguments, slots, strict=True)))
        except ExpressionError as error:
            raise ExpressionError(node.column, f"in {function.name}, {error}") from error

    def _index(self, node: Node, local: Mapping[str, int]) -> int:
        slot = self.value(node.inputs[0], local)
        shape, indices = self.shape(slot), node.inputs[1:]
        if len(indices) > len(shape):
            raise ExpressionError(node.column, f"{len(indices)} indices for {shown(shape)}")
        kept: list[int] = []
        settings: list[float | None] = []
        for index, side in zip(indices, shape, strict=False):
            if index.kind == "number":
                at = int(index.text)
                if not -side <= at < side:
                    raise ExpressionError(index.column, f"index {at} is outside of {side} entries")
                settings += [at % side, None]
                continue
            start, stop, _ = slice(*(int(each) if each else None for each in index.text.split(":"))).indices(side)
            if stop <= start:
                raise ExpressionError(index.column, f"{index.text} is empty: there are {side} entries")
            settings += [start, stop]
            kept.append(stop - start)
        found = (*kept, *shape[len(indices) :])
        return self.emit(node.column, Instruction("index", found, (slot,), tuple(settings)))

    def _odeint(self, node: Node, local: Mapping[str, int]) -> int:
        if self._outside is not None:
            raise ExpressionError(node.column, "odeint cannot stand inside a right side")
        if len(node.inputs) < 3 or node.inputs[0].kind != "name":
            raise ExpressionError(node.column, f"odeint is called as {_ODE}")
        function = self._checker.functions.get(node.inputs[0].text)
        if function is None or function.arguments is None:
            raise ExpressionError(
                node.inputs[0].column, f"there is no function {node.inputs[0].text!r} among the definitions"
            )
        unknown = [name for name, _ in node.named if name != "substeps"]
        if unknown:
            raise ExpressionError(node.column, f"odeint has no argument {unknown[0]!r}; it is called as {_ODE}")
        substeps = _literal(node.named[0][1]) if node.named else 1.0
        if substeps != int(substeps) or not 1 <= substeps <= 1000:
            raise ExpressionError(node.column, f"substeps is a whole number from 1 to 1000, not {substeps:g}")
        start, times, *given = (self.value(each, local) for each in node.inputs[1:])
        state, ticks = self.shape(start), self.shape(times)
        if len(ticks) != 1 or ticks[0] < 2:
            raise ExpressionError(node.column, f"times is a vector of at least 2 entries, not {shown(ticks)}")
        inner = _Builder(self._checker, outside=self)
        timed = function.arguments[0] == "t"
        slots = [inner.emit(1, Instruction("input", (), name="time"))] if timed else []
        slots.append(inner.emit(1, Instruction("input", state, name="state")))
        slots += [inner._capture(each) for each in given]
        slope = inner.inlined(node, function, slots)
        if inner.shape(slope) != state:
            raise ExpressionError(
                node.column, f"the state is {shown(state)}, and {function.name} gives {shown(inner.shape(slope))}"
            )
        body, captured = self._hoisted(node.column, inner.program(slope), inner.captured)
        integration = Integration(body, captured, ticks[0] - 1, int(substeps))
        shape = (ticks[0], *state)
        return self.emit(node.column, Instruction("odeint", shape, (start, times), integration=integration))

    def _hoisted(self, column: int, program: Program, captured: Iterable[int]) -> tuple[Program, dict[str, int]]:
        """A right side without what depends on neither state nor time, which is computed here, once and not at each
        stage; and the slot of each value that it reads from here."""
        fixed, body = program.divided({"state", "time"})
        outside = {f"outside {slot}": slot for slot in captured}
        places: list[int] = []
        for each in fixed.instructions:
            if each.operation == "input":
                places.append(outside[each.name])
            else:
                places.append(self.emit(column, replace(each, inputs=tuple(places[slot] for slot in each.inputs))))
        known = outside | {label: places[slot] for label, slot in fixed.labels.items()}
        read = {each.name for each in body.instructions if each.operation == "input"}
        return body, {name: slot for name, slot in known.items() if name in read}


def _finite(node: Node) -> float:
    number = float(node.text)
    if not math.isfinite(number):
        raise ExpressionError(node.column, f"{node.text} is beyond the largest number")
    return number


def _literal(node: Node) -> float:
    if node.kind == "negative":
        return -_literal(node.inputs[0])
    if node.kind != "number":
        raise ExpressionError(node.column, "here a number is written out")
    return _finite(node)


def _settings(node: Node, operation: Operation) -> tuple[float | None, ...]:
    given = {name: _literal(value) for name, value in node.named}
    known = dict(operation.settings)
    for name, _ in node.named:
        if name not in known:
            raise ExpressionError(
                node.column, f"{node.text} has no argument {name!r}; it is called as {operation.usage}"
            )
    return tuple((known | given).values())


def _meant(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
