"""Test functions of the literature, the part without torch: parameters, costs, and the families with a name."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.families.base import Costs, EvaluationPlan, FamilySpec, Kind, Part, Recipe, TaskSpec


class FunctionSpec(TaskSpec):
    """A test function whose minimum lies elsewhere in each task: f(theta - shift), at its least 0.

    rosenbrock: a curved narrow valley (Rosenbrock 1960, in the form of Dixon and Mills 1994 for more dimensions)
    rastrigin: a bowl with a grid of local minima (Rastrigin 1974, Mühlenbein et al. 1991)
    ackley: nearly flat far from the minimum, with local minima everywhere (Ackley 1987)
    """

    kind: Literal["function"] = "function"
    function: Literal["rosenbrock", "rastrigin", "ackley"] = "rosenbrock"
    dimension: int = Field(2, ge=2, le=1000)
    shift_std: float = Field(
        0.5, ge=0, le=100, description="The minimum is normal around 0 with this standard deviation."
    )
    start_std: float = Field(1.0, gt=0, le=100, description="theta_0 is normal with this standard deviation.")

    def parts(self) -> tuple[Part, ...]:
        return (Part("theta", (self.dimension,), "vector"),)

    def costs(self) -> Costs:
        """A batch holds the shift and the start; a step makes some vectors of the same length."""
        d = self.dimension
        return Costs(held=2 * d, drawn=d, used=6 * d)


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
    ),
)
