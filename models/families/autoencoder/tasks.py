"""Autoencoders, one task after the other on random minibatches: models on rows whose targets are their inputs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from models.families.autoencoder import AutoencoderSpec
from models.families.mlp import MOST_HELD_OUT
from models.spec import Split
from models.table_spec import Table
from models.tasks.base import Family, TaskBatch
from models.tasks.images import load_images
from models.tasks.row_batch import RowModel, sampled
from models.tasks.row_losses import Reconstruction
from models.tasks.tables import data_of_images, table_data


class AutoencoderFamily(Family):
    """Draws a group of the split, where the table has groups, and theta_0 from N(0, start_std^2)."""

    def __init__(self, spec: AutoencoderSpec, splits: Collection[Split], data_dir: Path | None) -> None:
        super().__init__(f"autoencoder/{spec.model_dump_json()}", spec.coordinates_per_task, splits)
        if isinstance(spec.dataset, Table):
            kept = {"classes": False, "standardize": True, "standardize_target": False}
            classes = spec.dataset.target_lowest is None
            data = table_data(spec.dataset, splits, data_dir, split_seed=0, **kept | {"classes": classes})
        else:
            data = data_of_images(load_images(spec.dataset, splits, data_dir))
        self._data = data.scaled(spec.input_scale)
        self._model = RowModel(
            sizes=spec.layer_sizes,
            activation=spec.activation,
            loss=Reconstruction(),
            l1=0.0,
            l2=0.0,
            batch_size=spec.batch_size,
            most=MOST_HELD_OUT,
            rows=spec.batch_size,
            start_std=spec.start_std,
        )

    def _batches(self, seeds: Tensor, split: Split, dtype: torch.dtype, device: torch.device) -> tuple[TaskBatch, ...]:
        return (sampled(self._model, self._data, seeds, split, dtype, device),)
