"""Lasso and elastic net with random dictionaries, as in sparse coding; the part without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.families.base import Costs, EvaluationPlan, FamilySpec, Kind, Part, TaskSpec
from models.families.recipes import winning


class LassoSpec(TaskSpec):
    """A sparse vector, measured through a dictionary that each task draws anew: half the squared error, plus `l1` times
    the absolute sum of the parameters, plus half of `l2` times their squares.

    Entries of the dictionary are normal with variance 1 / measurements; those of the vector are standard normal where
    they are not zero.
    """

    kind: Literal["lasso"] = "lasso"
    dimension: int = Field(60, ge=1, le=2000, description="Atoms of the dictionary: what an optimizer moves.")
    measurements: int = Field(30, ge=1, le=500, description="Numbers that are measured of the vector.")
    nonzero: float = Field(0.1, gt=0, le=1, description="How many of the vector's entries are not zero, in the mean.")
    noise_std: float = Field(0.01, ge=0, le=100, description="Noise of a measurement.")
    l1: float = Field(0.1, gt=0, le=1000)
    l2: float = Field(0.0, ge=0, le=1000, description="Above 0 it is an elastic net.")
    start_std: float = Field(0.0, ge=0, le=100, description="theta_0 is normal with this standard deviation.")

    def parts(self) -> tuple[Part, ...]:
        return (Part("x", (self.dimension,), "vector"),)

    def costs(self) -> Costs:
        """A batch holds the dictionary, the measurements and the start."""
        d, m = self.dimension, self.measurements
        return Costs(held=d * m + m + d, drawn=d * m, used=2 * m + 3 * d)

    @property
    def composite(self) -> bool:
        return True


KIND = Kind(
    spec=LassoSpec,
    tasks="models.families.lasso.tasks:LassoFamily",
    built_in=(
        FamilySpec(
            name="lasso",
            title="Lasso with random dictionaries",
            description="Half the squared error of 30 measurements of a sparse vector of 60, plus a tenth of its "
            "absolute sum.",
            tasks=LassoSpec(),
            recipe=winning(
                meta_steps=600, tasks=8, validation_tasks=64, validation_interval=100, loss_weighting="sqrt"
            ),
            evaluation=EvaluationPlan(),
        ),
    ),
)
