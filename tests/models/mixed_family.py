"""Quadratics of different dimensions: a distribution whose `sample` gives several batches."""

from __future__ import annotations

from typing import Literal

from models.families.base import Costs, FamilySpec, Part, TaskSpec
from models.spec import EvaluationPlan, Recipe


class MixedSpec(TaskSpec):
    kind: Literal["mixed"] = "mixed"
    dimensions: tuple[int, ...] = (2, 3, 7)

    def parts(self):
        return (Part("theta", (max(self.dimensions),), "vector"),)

    def costs(self):
        d = max(self.dimensions)
        return Costs(held=d**2 + 2 * d, drawn=d**2 + d, used=3 * d)


MIXED = FamilySpec(
    name="mixed", title="Mixed", description="Mixed", tasks=MixedSpec(), recipe=Recipe(), evaluation=EvaluationPlan()
)
