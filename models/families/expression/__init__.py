"""Families whose loss the user writes as text; the part without torch: what is declared, checked, and what it costs.

    {
      "kind": "expression",
      "parameters": {"theta": {"kind": "normal", "shape": [10]}},
      "draws": {"A": {"kind": "normal", "shape": [20, 10]}, "y": {"kind": "normal", "shape": [20]}},
      "constants": {"weight": 0.1},
      "loss": "sum((A @ theta - y)**2) + weight * sum(abs(theta))"
    }

`grammar` reads the text, `checking` turns it into a `program` whose shapes are all known, and `tasks` runs that for
many tasks at once. Nothing is ever handed to Python's own evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from models.families.base import Costs, EvaluationPlan, FamilySpec, Kind, Part, TaskSpec
from models.families.expression.checking import Checker
from models.families.expression.grammar import LONGEST_TEXT, ExpressionError
from models.families.expression.program import Program, Shape
from models.families.expression.values import Array, Draw, Start, shape_of
from models.families.recipes import winning

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_TEXT)]
MOST_NAMES = 64
MOST_DRAWN = 1_000_000
MOST_COORDINATES = 1_000_000


class ExpressionSpec(TaskSpec):
    """A loss that is written as text, over parameters that an optimizer moves and numbers that make each task its own.

    Operators are those of numpy: + - * / ** @, comparisons, indices such as x[0], x[1:], and .T.
    """

    kind: Literal["expression"] = "expression"
    parameters: dict[Name, Start] = Field(
        min_length=1, max_length=MOST_NAMES, description="What an optimizer moves, and where each begins."
    )
    draws: dict[Name, Draw] = Field({}, max_length=MOST_NAMES, description="Numbers drawn at random, by name.")
    constants: dict[Name, Array] = Field(
        {}, max_length=MOST_NAMES, description="Numbers written out, by name: one, a vector or the rows of a matrix."
    )
    definitions: tuple[Text, ...] = Field(
        (),
        max_length=MOST_NAMES,
        description="Lines `name = expression` or `name(argument, ...) = expression`, each of which may use those "
        "before it. A function is a right side of `odeint(name, start, times, ...)`: it gets the state, after the "
        "time where its first argument is t.",
    )
    loss: Text = Field(description="The loss of one task: one number.")

    @field_validator("constants")
    @classmethod
    def _rectangular(cls, constants: dict[str, Array]) -> dict[str, Array]:
        for name, array in constants.items():
            try:
                shape_of(array)
            except ValueError as error:
                raise PydanticCustomError("shape", "{name}: {reason}", {"name": name, "reason": str(error)}) from error
        return constants

    @field_validator("definitions")
    @classmethod
    def _defined(cls, definitions: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if (inputs := _inputs(info.data)) is not None:
            _checked(inputs, definitions)
        return definitions

    @field_validator("loss")
    @classmethod
    def _computable(cls, loss: str, info: ValidationInfo) -> str:
        if (inputs := _inputs(info.data)) is None or "definitions" not in info.data:
            return loss  # what is wrong there is reported
        checker = _checked(inputs, info.data["definitions"])
        with _pointed("loss"):
            program = checker.finish(loss)
        _, stepped = program.divided(info.data["parameters"])
        read = {each.name for each in stepped.instructions}
        if unread := sorted(info.data["parameters"].keys() - read):
            raise PydanticCustomError(
                "unread",
                "the loss does not depend on the parameter {name}; use it, or leave it out",
                {"name": unread[0]},
            )
        return loss

    @property
    def program(self) -> Program:
        """What computes the loss."""
        return _checked(_inputs(dict(self)) or {}, self.definitions).finish(self.loss)

    def parts(self) -> tuple[Part, ...]:
        """In the order of their names, which every store keeps."""
        return tuple(
            Part(name, tuple(start.shape) or (1,), "weight" if len(start.shape) > 1 else "vector")
            for name, start in sorted(self.parameters.items())
        )

    @property
    def noisy(self) -> bool:
        return any(draw.each == "step" for draw in self.draws.values())

    def costs(self) -> Costs:
        """A batch holds the start, what was drawn for the task and what follows from that alone; a step computes every
        other value of the program, and as many gradients as are the largest of them."""
        once, stepped = self.divided
        drawn = sum(draw.size for draw in self.draws.values() if draw.each == "task")
        anew = sum(draw.size for draw in self.draws.values() if draw.each == "step")
        kept = sum(once.instructions[slot].size for slot in once.labels.values())
        largest = max(each.size for each in stepped.instructions)
        d = self.coordinates_per_task
        return Costs(
            held=drawn + kept + d,
            drawn=max(drawn + d, once.numbers // 6),
            used=stepped.numbers + anew + 2 * largest + 2 * d,
        )

    @property
    def divided(self) -> tuple[Program, Program]:
        """What is computed once for a task, and what each step computes."""
        return self.program.divided(
            {*self.parameters, *(name for name, draw in self.draws.items() if draw.each == "step")}
        )


def _inputs(declared: Mapping[str, Any]) -> dict[str, Shape] | None:
    """The shape of every declared name; None where something about them has been refused already."""
    if not {"parameters", "draws", "constants"} <= declared.keys():
        return None
    parameters, draws = declared["parameters"], declared["draws"]
    shapes: dict[str, Shape] = {}
    arrays = {name: shape_of(array) for name, array in declared["constants"].items()}
    for group in ({name: tuple(each.shape) for name, each in (parameters | draws).items()}, arrays):
        shapes |= group
    groups = (parameters, draws, declared["constants"])
    if twice := sorted(name for name in shapes if sum(name in group for group in groups) > 1):
        raise PydanticCustomError(
            "twice", "the name {name} is declared twice among parameters, draws and constants", {"name": twice[0]}
        )
    for most, what, group in ((MOST_COORDINATES, "parameters", parameters), (MOST_DRAWN, "draws", draws)):
        if (count := sum(math.prod(each.shape) for each in group.values())) > most:
            raise PydanticCustomError(
                "too_many",
                "the {what} hold {count} numbers a task, and at most {most} fit",
                {"what": what, "count": count, "most": most},
            )
    return shapes


def _checked(inputs: Mapping[str, Shape], definitions: tuple[str, ...]) -> Checker:
    with _pointed("a declared name"):
        checker = Checker(inputs)
    for number, text in enumerate(definitions, 1):
        with _pointed(f"definition {number}"):
            checker.define(text)
    return checker


class _pointed:  # noqa: N801 - used like a function
    """Turns an ExpressionError into pydantic's, which says which text it is about."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ExpressionError):
            raise PydanticCustomError(
                "expression",
                "{where}, column {column}: {reason}",
                {"where": self._where, "column": error.column, "reason": error.reason},
            ) from error


PENDULUM = FamilySpec(
    name="pendulum",
    title="A damped pendulum's two parameters",
    description="Damping and stiffness of a pendulum, fitted to 40 noisy observations of its angle, which a fixed-step "
    "Runge-Kutta method integrates. Both are logarithms, so that they stay positive.",
    tasks=ExpressionSpec(
        parameters={"guess": {"kind": "normal", "shape": [2], "std": 0.3}},
        draws={
            "truth": {"kind": "normal", "shape": [2], "std": 0.5},
            "angle": {"kind": "uniform", "low": 0.5, "high": 2.0},
            "noise": {"kind": "normal", "shape": [40], "std": 0.05},
        },
        definitions=(
            "swing(s, p) = [s[1], -exp(p[0]) * 0.3 * s[1] - exp(p[1]) * sin(s[0])]",
            "times = linspace(0, 8, 40)",
            "start = [angle, 0]",
            "observed = odeint(swing, start, times, truth)[:, 0] + noise",
        ),
        loss="mean((odeint(swing, start, times, guess)[:, 0] - observed)**2)",
    ),
    recipe=winning(meta_steps=300, tasks=8, validation_tasks=64, validation_interval=50, loss_weighting="sqrt"),
    evaluation=EvaluationPlan(),
)

KIND = Kind(spec=ExpressionSpec, tasks="models.families.expression.tasks:ExpressionFamily", built_in=(PENDULUM,))
