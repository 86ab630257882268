"""Matrix factorizations, the part without torch: their parameters, what they cost, and the family with a name."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.families.base import Costs, EvaluationPlan, FamilySpec, Kind, Part, TaskSpec
from models.families.recipes import winning


class FactorizationSpec(TaskSpec):
    """A matrix that is known in places, to be written as the product of two thin ones: half the squared error over its
    known entries, times the number of entries over that of the known ones, plus half of `l2` times the squares of both.

    The matrix is a product of two that are drawn anew for each task, of `true_rank`, with entries of variance 1, plus
    noise.
    """

    kind: Literal["factorization"] = "factorization"
    rows: int = Field(20, ge=1, le=500)
    columns: int = Field(15, ge=1, le=500)
    rank: int = Field(3, ge=1, le=100, description="Of the product that is fitted.")
    true_rank: int = Field(3, ge=1, le=100, description="Of the matrix without its noise.")
    known: float = Field(0.5, gt=0, le=1, description="How many of the entries are known, in the mean.")
    noise_std: float = Field(0.1, ge=0, le=100)
    l2: float = Field(0.01, ge=0, le=1000)
    start_std: float = Field(0.3, gt=0, le=10, description="theta_0 is normal with this standard deviation.")

    def parts(self) -> tuple[Part, ...]:
        return (
            Part("left", (self.rows, self.rank), "weight"),
            Part("right", (self.columns, self.rank), "weight"),
        )

    def costs(self) -> Costs:
        """A batch holds the matrix, how much each entry counts, and the start; a step makes some matrices of their
        sizes."""
        entries, d = self.rows * self.columns, self.coordinates_per_task
        true = (self.rows + self.columns) * self.true_rank
        return Costs(held=2 * entries + d, drawn=max(entries, d, true), used=2 * entries + 3 * d)


KIND = Kind(
    spec=FactorizationSpec,
    tasks="models.families.factorization.tasks:FactorizationFamily",
    built_in=(
        FamilySpec(
            name="matrix-factorization",
            title="Matrices that are known in places",
            description="20x15 matrices of rank 3 with noise, half of whose entries are known, as products of two.",
            tasks=FactorizationSpec(),
            recipe=winning(meta_steps=600, tasks=8, validation_interval=100, loss_weighting="sqrt"),
            evaluation=EvaluationPlan(),
        ),
    ),
)
