"""A user's table as tasks take it: each group's rows side by side in a fixed random order, and the groups of a split.

Training, validation and test tasks are of different groups; in each group some rows are held out. A table without
groups is parted by rows instead, and every task trains on the training rows, whichever split it belongs to.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from models.datasets.loading import Rows, load
from models.spec import Split
from models.table_spec import HELD_OUT_SHARE, Table
from models.tasks.images import Images
from models.tasks.randomness import permutation

TEST_SHARE = 0.2
"""How many of the groups, or of the rows where there are none, are for test, and how many for validation."""


@dataclass(frozen=True)
class Stretches:
    """The rows of each group of a split, (groups,) int64: where those for training begin and how many they are, and
    those that are held out."""

    first: Tensor
    count: Tensor
    held_first: Tensor
    held_count: Tensor


@dataclass(frozen=True, eq=False)
class TableData:
    """inputs: (rows, columns) float32; targets: (rows,), int64 where they are classes, else float64."""

    inputs: Tensor
    targets: Tensor
    splits: Mapping[Split, Stretches]

    def scaled(self, factor: float) -> TableData:
        """The same rows with inputs times `factor`."""
        return self if factor == 1 else TableData(self.inputs * factor, self.targets, self.splits)

    def to(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Inputs and targets as a batch takes them. Kept."""
        if (dtype, device) not in self._kept:
            targets = self.targets.to(device, dtype if self.targets.is_floating_point() else self.targets.dtype)
            self._kept[dtype, device] = self.inputs.to(device, dtype), targets
        return self._kept[dtype, device]

    @cached_property
    def _kept(self) -> dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]]:
        return {}


def table_data(
    table: Table,
    opened: Collection[Split],
    data_dir: Path | None,
    *,
    classes: bool,
    standardize: bool,
    standardize_target: bool,
    split_seed: int,
) -> TableData:
    """opened: the splits whose groups are given. classes: whether the targets are classes. Raises DatasetMissing and
    DatasetCorrupt."""
    rows = load(data_dir, table, as_classes=classes)
    order = permutation(len(rows.target), f"rows/{split_seed}")
    if table.group is None:
        splits = _by_rows(len(rows.target))
    else:
        groups = torch.from_numpy(rows.groups)[order]
        order = order[torch.argsort(groups, stable=True)]
        splits = _by_groups(torch.bincount(groups), split_seed)
    data = _standardized(rows, order, splits, classes=classes, inputs=standardize, target=standardize_target)
    return replace(data, splits={split: there for split, there in splits.items() if split in opened})


def data_of_images(images: Mapping[Split, Images]) -> TableData:
    """A data set of the server's own as a table without groups. images: those for training, and of each split that is
    opened"""
    first, splits = 0, {}
    training = torch.tensor([0]), torch.tensor([len(images[Split.TRAIN])])
    order = [Split.TRAIN, *(split for split in images if split is not Split.TRAIN)]
    for split in order:
        held = torch.tensor([first]), torch.tensor([len(images[split])])
        splits[split] = Stretches(*training, *held)
        first += len(images[split])
    pixels, labels = (torch.cat([getattr(images[split], name) for split in order]) for name in ("pixels", "labels"))
    return TableData(pixels.float() * images[Split.TRAIN].scale, labels, splits)


def _by_groups(sizes: Tensor, split_seed: int) -> dict[Split, Stretches]:
    first = sizes.cumsum(0) - sizes
    held = (HELD_OUT_SHARE * sizes).round().long().clamp(min=1)
    order = permutation(len(sizes), f"groups/{split_seed}")
    apart = max(1, round(TEST_SHARE * len(sizes)))
    parts = {Split.TEST: order[:apart], Split.VALIDATION: order[apart : 2 * apart], Split.TRAIN: order[2 * apart :]}
    return {
        split: Stretches(first[of] + held[of], sizes[of] - held[of], first[of], held[of]) for split, of in parts.items()
    }


def _by_rows(count: int) -> dict[Split, Stretches]:
    apart = max(1, round(TEST_SHARE * count))
    first, training = torch.tensor([2 * apart]), torch.tensor([count - 2 * apart])
    held = {Split.TEST: (0, apart), Split.VALIDATION: (apart, apart), Split.TRAIN: (2 * apart, count - 2 * apart)}
    return {
        split: Stretches(first, training, torch.tensor([start]), torch.tensor([size]))
        for split, (start, size) in held.items()
    }


def _standardized(
    rows: Rows, order: Tensor, splits: Mapping[Split, Stretches], *, classes: bool, inputs: bool, target: bool
) -> TableData:
    """Standardized by the training rows of the training groups. A missing input becomes their mean."""
    seen = splits[Split.TRAIN]
    trained = torch.cat([torch.arange(a, a + n) for a, n in zip(seen.first.tolist(), seen.count.tolist(), strict=True)])
    values, targets = torch.from_numpy(rows.inputs)[order].double(), torch.from_numpy(rows.target)[order]
    mean = values[trained].nanmean(dim=0).nan_to_num(0.0)
    centred = (values - mean).nan_to_num(0.0, 0.0, 0.0)
    if inputs:
        deviation = centred[trained].square().mean(dim=0).sqrt()
        values = centred / torch.where(deviation > 0, deviation, 1.0)
    else:
        values = centred + mean
    if target:
        scale = targets[trained].std(correction=0)
        targets = (targets - targets[trained].mean()) / torch.where(scale > 0, scale, 1.0)
    return TableData(values.float(), targets.long() if classes else targets, splits)
