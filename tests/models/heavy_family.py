"""A plug-in that is a file: its tasks take far more memory than it says."""

from __future__ import annotations

from typing import Literal

from models.families.base import Costs, Kind
from models.families.quadratic import QuadraticSpec


class Heavy(QuadraticSpec):
    """Its tasks hold 2,000 times what it says."""

    kind: Literal["heavy"] = "heavy"
    dimension: int = 200

    def costs(self):
        return Costs(held=20)


KIND = Kind(Heavy, tasks="models.families.quadratic.tasks:QuadraticFamily")
