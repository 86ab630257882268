"""Random quadratics, the part without torch: their parameters, what they cost, and the families with a name."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.families.base import Costs, EvaluationPlan, FamilySpec, Kind, Part, TaskSpec
from models.families.recipes import winning


class QuadraticSpec(TaskSpec):
    """f(theta) = ||W theta - y||^2 with W (dimension x dimension) and y drawn anew for each task."""

    kind: Literal["quadratic"] = "quadratic"
    dimension: int = Field(10, ge=1, le=1000)
    distribution: Literal["gaussian", "uniform"] = Field(
        "gaussian", description="Entries of W and y: standard normal, or uniform on [0, 1] as in the authors' code."
    )
    start_std: float = Field(1.0, gt=0, le=100, description="theta_0 is normal with this standard deviation.")

    def parts(self) -> tuple[Part, ...]:
        return (Part("theta", (self.dimension,), "vector"),)

    def costs(self) -> Costs:
        """A batch holds W, y and the start; a step makes the residual and two vectors more."""
        d = self.dimension
        return Costs(held=d**2 + 2 * d, drawn=d**2 + d, used=3 * d)


KIND = Kind(
    spec=QuadraticSpec,
    tasks="models.families.quadratic.tasks:QuadraticFamily",
    built_in=(
        FamilySpec(
            name="quadratic",
            title="Random quadratics, Gaussian",
            description="||W theta - y||^2 in ten dimensions, W and y standard normal (section 3.1 of the paper).",
            tasks=QuadraticSpec(),
            recipe=winning(meta_steps=1200, tasks=16, validation_interval=100, loss_weighting="sqrt"),
            evaluation=EvaluationPlan(),
        ),
        FamilySpec(
            name="quadratic-uniform",
            title="Random quadratics, uniform",
            description="||W theta - y||^2 in ten dimensions, W and y uniform on [0, 1] as in the authors' code.",
            tasks=QuadraticSpec(distribution="uniform"),
            recipe=winning(meta_steps=1200, tasks=16, validation_interval=100, loss_weighting="sqrt"),
            evaluation=EvaluationPlan(),
        ),
    ),
)
