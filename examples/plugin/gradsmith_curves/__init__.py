"""Robust fits of curves, the half without torch, which the API reads: parameters, costs and a family with a name."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.families.base import Costs, EvaluationPlan, FamilySpec, Kind, Part, Recipe, TaskSpec


class CurveSpec(TaskSpec):
    """Noisy points of a curve, some of them far off; theta holds the coefficients of its Chebyshev polynomials.

    The loss of a point is the pseudo-Huber loss: quadratic for small residuals, linear for large ones.
    """

    kind: Literal["curve"] = "curve"
    degree: int = Field(7, ge=1, le=30, description="The curve has degree + 1 coefficients.")
    points: int = Field(64, ge=4, le=4096)
    noise: float = Field(0.1, gt=0, le=10, description="Standard deviation of every point's error.")
    outliers: float = Field(0.1, ge=0, le=0.5, description="Share of the points whose error is thirty times as large.")
    batch_size: int = Field(16, ge=1, le=4096, description="Points that are drawn for each step, with replacement.")

    def parts(self) -> tuple[Part, ...]:
        return (Part("coefficients", (self.degree + 1,), "vector"),)

    def costs(self) -> Costs:
        """A batch holds the heights of all points. A step gathers the polynomials at the points that it draws, some
        numbers for each of these, and two gradients."""
        coefficients = self.degree + 1
        return Costs(
            held=self.points,
            held_bytes=8,
            drawn=coefficients + 3 * self.points,
            used=self.batch_size * (coefficients + 4) + 2 * coefficients,
            used_bytes=24 * self.batch_size,
        )


KIND = Kind(
    spec=CurveSpec,
    tasks="gradsmith_curves.tasks:CurveFamily",
    built_in=(
        FamilySpec(
            name="curves",
            title="Robust fits of curves",
            description="Eight coefficients from 64 noisy points, a tenth of them far off; minibatches of 16.",
            tasks=CurveSpec(),
            recipe=Recipe(meta_steps=400, meta_learning_rate=0.01),
            evaluation=EvaluationPlan(test_tasks=256),
        ),
    ),
)
