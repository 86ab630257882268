"""Programs: what an expression computes, as a list of instructions whose shapes are known before anything runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]
"""The shape of a value in ONE task; () is a single number."""

_VIEWS = frozenset({"index", "reshape", "transpose"})  # of numbers that are there already

STAGES = 4
"""Evaluations of the right side in one step of the classical Runge-Kutta method."""


@dataclass(frozen=True)
class Integration:
    """What an instruction `odeint` integrates, by Runge and Kutta's classical method of fixed steps.

    body: the right side, a program over the names "state", "time" and those of `captured`
    captured: the slot, outside, of each further value that the right side reads
    """

    body: Program
    captured: Mapping[str, int]
    intervals: int
    substeps: int

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.intervals * self.substeps


@dataclass(frozen=True)
class Instruction:
    """One operation. inputs: the slots of its operands; its own slot is its place in the program.

    settings: numbers that the operation takes beside its operands, such as an axis
    """

    operation: str
    shape: Shape
    inputs: tuple[int, ...] = ()
    settings: tuple[float | None, ...] = ()
    name: str = ""
    integration: Integration | None = None

    @property
    def size(self) -> int:
        """Numbers in its value."""
        return math.prod(self.shape)

    @property
    def given(self) -> bool:
        """Whether nothing has to be computed for it."""
        return self.operation in {"input", "number"}

    @property
    def work(self) -> int:
        """Operations that it makes: one, or those of all steps."""
        each = self.integration
        return 1 if each is None else 1 + each.steps * STAGES * (each.body.work + 3)

    @property
    def numbers(self) -> int:
        """Numbers that it computes for a task, those between the steps included."""
        each = self.integration
        if each is None:
            return 0 if self.given or self.operation in _VIEWS else self.size
        return self.size + each.steps * STAGES * (each.body.numbers + 2 * math.prod(each.body.shape))


@dataclass(frozen=True)
class Program:
    """Instructions in the order in which they run. result: the slot of what they compute.

    An instruction `input` is a value that is handed in by its name.
    """

    instructions: tuple[Instruction, ...]
    result: int
    labels: Mapping[str, int] = field(default_factory=dict)
    """Slots of further values that are wanted."""

    @property
    def shape(self) -> Shape:
        """The shape of what it computes."""
        return self.instructions[self.result].shape

    @property
    def work(self) -> int:
        """Operations that one run makes."""
        return sum(each.work for each in self.instructions)

    @property
    def numbers(self) -> int:
        """Numbers that one run computes for a task."""
        return sum(each.numbers for each in self.instructions)

    def divided(self, moving: Collection[str]) -> tuple[Program, Program]:
        """What depends on none of these inputs, which is computed once for a task, and the rest, which each step runs.

        The first has a label for each value that the rest reads; the rest gets it as an input of that name.
        """
        depends: list[bool] = []
        for each in self.instructions:
            read = _read(each)
            depends.append(each.name in moving if each.operation == "input" else any(depends[slot] for slot in read))
        used = {slot for each, moved in zip(self.instructions, depends, strict=True) if moved for slot in _read(each)}
        kept = {slot for slot in {*used, self.result} if not depends[slot] and not self.instructions[slot].given}
        rest = tuple(
            Instruction("input", each.shape, name=f"value {slot}") if slot in kept else each
            for slot, each in enumerate(self.instructions)
        )
        return (
            Program(self.instructions, self.result, {f"value {slot}": slot for slot in sorted(kept)}).without_unread(),
            Program(rest, self.result, {}).without_unread(result=True),
        )

    def without_unread(self, *, result: bool = False) -> Program:
        """The same values from as few instructions as they need: those of the labels, and of the result if wanted."""
        wanted = set(self.labels.values()) | ({self.result} if result else set())
        for slot in range(len(self.instructions) - 1, -1, -1):
            if slot in wanted:
                wanted.update(_read(self.instructions[slot]))
        places = {slot: place for place, slot in enumerate(sorted(wanted))}
        return Program(
            tuple(_moved(self.instructions[slot], places) for slot in sorted(wanted)),
            places.get(self.result, 0),
            {label: places[slot] for label, slot in self.labels.items()},
        )


def _read(instruction: Instruction) -> tuple[int, ...]:
    """The slots that it reads."""
    outside = instruction.integration.captured.values() if instruction.integration else ()
    return (*instruction.inputs, *outside)


def _moved(instruction: Instruction, places: Mapping[int, int]) -> Instruction:
    integration = instruction.integration
    if integration is not None:
        captured = {name: places[slot] for name, slot in integration.captured.items()}
        integration = replace(integration, captured=captured)
    return replace(instruction, inputs=tuple(places[slot] for slot in instruction.inputs), integration=integration)
