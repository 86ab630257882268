"""Regressions, one task a group of a user's table."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from models.families.regression import CLASSIFYING, RegressionSpec
from models.spec import Split
from models.tasks.base import Family, TaskBatch
from models.tasks.row_batch import RowModel, sampled
from models.tasks.row_losses import row_loss
from models.tasks.tables import table_data


class RegressionFamily(Family):
    """Draws a group of the split, and theta_0 from N(0, start_std^2)."""

    def __init__(self, spec: RegressionSpec, splits: Collection[Split], data_dir: Path | None) -> None:
        super().__init__(f"regression/{spec.model_dump_json()}", spec.coordinates_per_task, splits)
        self._data = table_data(
            spec.dataset,
            splits,
            data_dir,
            classes=spec.loss in CLASSIFYING,
            standardize=spec.standardize,
            standardize_target=spec.standardize and spec.loss in ("squared", "huber"),
            split_seed=spec.split_seed,
        )
        self._model = RowModel(
            sizes=spec.layer_sizes,
            activation="relu",
            loss=row_loss(spec.loss, delta=spec.huber_delta),
            l1=spec.l1,
            l2=spec.l2,
            batch_size=spec.batch_size,
            most=spec.most_rows,
            rows=min(spec.dataset.most_training_rows, spec.most_rows),
            start_std=spec.start_std,
        )

    def _batches(self, seeds: Tensor, split: Split, dtype: torch.dtype, device: torch.device) -> tuple[TaskBatch, ...]:
        return (sampled(self._model, self._data, seeds, split, dtype, device),)
