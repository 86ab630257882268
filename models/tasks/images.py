"""The images, or rows of a table, that a network trains on, apart in three: training, validation, test.

Every optimizee trains on training images, whichever split its TASK belongs to; a validation task reports its
held-out loss on validation images and a test task on test images. The parts are drawn at random by a fixed
permutation, never the tail: the last 10,000 images of MNIST's training file are easier than the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.spec import Split
from models.tasks import cifar
from models.tasks.data import load_mnist
from models.tasks.randomness import permutation

DIGITS_VALIDATION = 360
DIGITS_TEST = 360
MNIST_VALIDATION = 10_000
CIFAR_VALIDATION = {"cifar10": 5_000, "cifar10-subset": 1_000, "cifar10-jpeg": 5_000}
TABLE_SHARE = 0.2
"""How many of a table's rows are for validation, and how many for test."""


@dataclass(frozen=True)
class Images:
    """`pixels` (images, inputs) uint8, a place's colours side by side, or float32 of a table; `labels` (images,) int64.
    A network sees `pixels * scale`."""

    pixels: Tensor
    labels: Tensor
    scale: float

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def taken(self, rows: Tensor) -> Images:
        return Images(self.pixels[rows], self.labels[rows], self.scale)

    def scaled(self, factor: float) -> Images:
        """The same images, which a network sees times `factor`."""
        return self if factor == 1 else Images(self.pixels, self.labels, self.scale * factor)

    def labelled(self, labels: Sequence[int]) -> Images:
        """The images of these classes alone, which become 0, 1, ... in this order."""
        number = torch.full((int(self.labels.max()) + 1,), -1, dtype=torch.int64)
        number[torch.tensor(labels)] = torch.arange(len(labels))
        rows = (number[self.labels] >= 0).nonzero()[:, 0]
        return Images(self.pixels[rows], number[self.labels[rows]], self.scale)

    def as_numbers(self, dtype: torch.dtype) -> Tensor:
        """What a network sees, (images, inputs). Kept: for small data sets."""
        if dtype not in self._numbers:
            self._numbers[dtype] = self.pixels.to(dtype).mul_(self.scale)
        return self._numbers[dtype]

    @cached_property
    def _numbers(self) -> dict[torch.dtype, Tensor]:
        return {}

    def to(self, device: torch.device) -> Images:
        if device == self.pixels.device:
            return self
        return Images(self.pixels.to(device), self.labels.to(device), self.scale)


ImageSet = Literal["digits", "mnist", "breast-cancer", "wine", "cifar10", "cifar10-subset", "cifar10-jpeg"]


def load_images(
    name: ImageSet, splits: Collection[Split], data_dir: Path | None, labels: Sequence[int] = ()
) -> dict[Split, Images]:
    """The training images, and those of each split in `splits`; the others are not in the result.

    labels: the classes that are kept (default: all), whose labels become 0, 1, ... in this order. Raises
    DatasetMissing and DatasetCorrupt.
    """
    match name:
        case "digits":
            parts = _digits()
        case "mnist":
            parts = _mnist(data_dir)
        case "breast-cancer" | "wine":
            parts = _table(name)
        case _:
            parts = _cifar(name, data_dir)
    wanted = {split: images for split, images in parts.items() if split in splits or split is Split.TRAIN}
    return {split: images.labelled(labels) for split, images in wanted.items()} if labels else wanted


@lru_cache(maxsize=1)
def _digits() -> dict[Split, Images]:
    from sklearn.datasets import load_digits  # half a second to import, and only this family needs it

    data = load_digits()
    everything = Images(
        torch.from_numpy(np.ascontiguousarray(data.data).astype(np.uint8)),
        torch.from_numpy(data.target.astype(np.int64)),
        1.0 / 16.0,
    )
    order = permutation(len(everything), "digits")
    held_out = DIGITS_VALIDATION + DIGITS_TEST
    return {
        Split.TEST: everything.taken(order[:DIGITS_TEST]),
        Split.VALIDATION: everything.taken(order[DIGITS_TEST:held_out]),
        Split.TRAIN: everything.taken(order[held_out:]),
    }


@lru_cache(maxsize=1)
def _mnist(data_dir: Path | None) -> dict[Split, Images]:
    data = load_mnist(data_dir)

    def images(pixels: str, labels: str) -> Images:
        return Images(torch.from_numpy(data[pixels].copy()), torch.from_numpy(data[labels].astype(np.int64)), 1 / 255)

    training = images("train_images", "train_labels")
    order = permutation(len(training), "mnist")
    return {
        Split.TEST: images("test_images", "test_labels"),
        Split.VALIDATION: training.taken(order[:MNIST_VALIDATION]),
        Split.TRAIN: training.taken(order[MNIST_VALIDATION:]),
    }


@lru_cache(maxsize=2)
def _table(name: Literal["breast-cancer", "wine"]) -> dict[Split, Images]:
    """Each column with mean 0 and standard deviation 1 over the training rows."""
    from sklearn import datasets

    data = (datasets.load_breast_cancer if name == "breast-cancer" else datasets.load_wine)()
    rows, labels = torch.from_numpy(data.data), torch.from_numpy(data.target.astype(np.int64))
    order = permutation(len(rows), name)
    held_out = round(TABLE_SHARE * len(rows))
    test, validation, training = order.tensor_split([held_out, 2 * held_out])
    mean, deviation = rows[training].mean(dim=0), rows[training].std(dim=0, correction=0)
    everything = Images(((rows - mean) / deviation).float(), labels, 1.0)
    parts = {Split.TEST: test, Split.VALIDATION: validation, Split.TRAIN: training}
    return {split: everything.taken(part) for split, part in parts.items()}


@lru_cache(maxsize=1)
def _cifar(name: str, data_dir: Path | None) -> dict[Split, Images]:
    data = cifar.load(name, data_dir)

    def images(part: str) -> Images:
        pixels, labels = data[part]
        return Images(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)), 1 / 255)

    training = images("train")
    order = permutation(len(training), "cifar10")
    validation = CIFAR_VALIDATION[name]
    return {
        Split.TEST: images("test"),
        Split.VALIDATION: training.taken(order[:validation]),
        Split.TRAIN: training.taken(order[validation:]),
    }
