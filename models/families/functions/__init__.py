"""Test functions of the literature, the part without torch: parameters, costs, and the families with a name."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from models.families.base import Costs, EvaluationPlan, FamilySpec, Kind, Part, Recipe, TaskSpec
from models.families.recipes import winning

PLANE = ("beale", "himmelblau")
"""Functions of two dimensions."""
MOST_ROTATED = 100


class FunctionSpec(TaskSpec):
    """A test function whose minimum lies elsewhere in each task: f(A (theta - shift)), at its least 0.

    A is the identity, or a random rotation and a stretch of each axis after it.

    rosenbrock: a curved narrow valley (Rosenbrock 1960, in the form of Dixon and Mills 1994 for more dimensions)
    rastrigin: a bowl with a grid of local minima (Rastrigin 1974, Mühlenbein et al. 1991)
    ackley: nearly flat far from the minimum, with local minima everywhere (Ackley 1987)
    griewank: a wide bowl with many shallow local minima (Griewank 1981)
    beale: steep ridges around a flat valley, in two dimensions (Beale 1958)
    himmelblau: four equal minima, in two dimensions; the one at (3, 2) is where the shift says (Himmelblau 1972)
    """

    kind: Literal["function"] = "function"
    function: Literal["rosenbrock", "rastrigin", "ackley", "griewank", "beale", "himmelblau"] = "rosenbrock"
    dimension: int = Field(2, ge=2, le=1000)
    shift_std: float = Field(
        0.5, ge=0, le=100, description="The minimum is normal around 0 with this standard deviation."
    )
    start_std: float = Field(1.0, gt=0, le=100, description="theta_0 is normal with this standard deviation.")
    rotation: bool = Field(False, description="Whether each task has a random rotation.")
    stretch: float = Field(
        1.0,
        ge=1,
        le=100,
        description="Each axis of the function is stretched by a factor that is log-uniform from 1 / stretch to "
        "stretch.",
    )

    @model_validator(mode="after")
    def _dimension_fits(self) -> Self:
        wrong = None
        if self.function in PLANE and self.dimension != 2:
            wrong = f"{self.function} is a function of two dimensions, and dimension is {self.dimension}; send 2"
        elif self.rotation and self.dimension > MOST_ROTATED:
            wrong = f"rotation is for at most {MOST_ROTATED} dimensions, and dimension is {self.dimension}"
        if wrong is not None:
            raise PydanticCustomError("unfitting_dimension", "{wrong}", {"wrong": wrong})
        return self

    def parts(self) -> tuple[Part, ...]:
        return (Part("theta", (self.dimension,), "vector"),)

    def costs(self) -> Costs:
        """A batch holds the shift, the start and what rotates; a step makes some vectors of the same length."""
        d = self.dimension
        turned = d * d if self.rotation else d * (self.stretch > 1)
        return Costs(held=2 * d + turned, drawn=max(d, turned), used=8 * d)


def _named(function: str, title: str, words: str, **settings: object) -> FamilySpec:
    return FamilySpec(
        name=function,
        title=title,
        description=f"{words}, its minimum and the start drawn anew for each task.",
        tasks=FunctionSpec.model_validate({"function": function, **settings}),
        recipe=winning(meta_steps=600, tasks=16, validation_interval=100, loss_weighting="sqrt"),
        evaluation=EvaluationPlan(),
    )


KIND = Kind(
    spec=FunctionSpec,
    tasks="models.families.functions.tasks:FunctionFamily",
    built_in=(
        FamilySpec(
            name="rosenbrock",
            title="Rosenbrock's valley",
            description="Rosenbrock's function in two dimensions, its minimum and the start drawn anew for each task.",
            tasks=FunctionSpec(),
            recipe=Recipe(meta_steps=800, meta_learning_rate=0.01),
            evaluation=EvaluationPlan(),
        ),
        _named("rastrigin", "Rastrigin's bowl", "Rastrigin's function in two dimensions, rotated", rotation=True),
        _named("ackley", "Ackley's function", "Ackley's function in two dimensions, rotated", rotation=True),
        _named("beale", "Beale's function", "Beale's function, rotated", rotation=True),
        _named("himmelblau", "Himmelblau's function", "Himmelblau's function with four minima, rotated", rotation=True),
    ),
)
