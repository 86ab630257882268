"""Tasks of several families: each task's seed draws which one it is of, and each family makes a batch of its own."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from models.families.mixture import MixtureSpec
from models.spec import Split
from models.tasks.base import Family, TaskBatch
from models.tasks.catalogue import opened
from models.tasks.randomness import streams, uniforms


class MixtureFamily(Family):
    """Draws a family by weight for each task. The tasks of a family are side by side, in the order of the families."""

    def __init__(self, spec: MixtureSpec, splits: Collection[Split], data_dir: Path | None) -> None:
        # A store may hand the fields back in another order, and the tasks must not change with it.
        told = json.dumps(spec.model_dump(mode="json"), sort_keys=True)
        super().__init__(f"mixture/{told}", spec.coordinates_per_task, splits)
        self._families = [opened(point.tasks, splits, data_dir) for point in spec.weighted_points]
        weights = torch.tensor([point.weight for point in spec.weighted_points], dtype=torch.float64)
        self._until = (weights / weights.sum()).cumsum(0)

    def _batches(self, seeds: Tensor, split: Split, dtype: torch.dtype, device: torch.device) -> list[TaskBatch]:
        share = uniforms(streams(seeds, "family"), 1)[:, 0]
        chosen = torch.searchsorted(self._until, share).clamp(max=len(self._families) - 1)
        found: list[TaskBatch] = []
        for number, family in enumerate(self._families):
            own = seeds[chosen == number]
            if len(own):
                found += family.batches(own, split, dtype, device)
        return found
