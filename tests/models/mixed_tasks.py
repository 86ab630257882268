"""The half of `mixed_family` with torch."""

from __future__ import annotations

from models.families.quadratic import QuadraticSpec
from models.families.quadratic.tasks import QuadraticFamily
from models.spec import Split
from models.tasks.base import Family
from models.tasks.randomness import indices, streams


class MixedFamily(Family):
    def __init__(self, spec, splits, data_dir=None):  # noqa: ARG002
        super().__init__(f"mixed/{spec.dimensions}", spec.coordinates_per_task, splits)
        self.inner = [QuadraticFamily(QuadraticSpec(dimension=dimension), set(Split)) for dimension in spec.dimensions]

    def _batches(self, seeds, split, dtype, device):
        drawn = indices(streams(seeds, "dimension"), 0, 1, len(self.inner))[:, 0]
        return [
            batch
            for number, family in enumerate(self.inner)
            if (own := seeds[drawn == number]).numel()
            for batch in family._batches(own, split, dtype, device)
        ]
