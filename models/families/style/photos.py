"""Content images and paintings of the data set `art`, and which photo belongs to which split."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.families.style import data
from models.spec import Split
from models.tasks.randomness import permutation

TEST_PHOTOS, VALIDATION_PHOTOS = 6, 4


@lru_cache(maxsize=2)
def content_images(data_dir: Path | None, size: int) -> dict[Split, Tensor]:
    """The content images of each split, uint8 (images, 3, size, size). No photo has images in two splits.

    64 pixels wide: tiles of the photos at a half and at a quarter of their size. 128: four neighbouring tiles at half
    size. Raises DatasetMissing and DatasetCorrupt.
    """
    arrays = _arrays(data_dir, "content64.npz")
    if size == 64:
        pixels = np.concatenate([arrays["tiles_div4"], arrays["tiles_div2"]])
        photos = np.concatenate([arrays["photo_div4"], arrays["photo_div2"]])
    else:
        pixels, photos = _of_four(arrays["tiles_div2"], arrays["photo_div2"], arrays["rowcol_div2"])
    images, photo = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(photos.astype(np.int64))
    return {split: images[torch.isin(photo, own)] for split, own in photos_of(len(arrays["photo_names"])).items()}


def photos_of(count: int) -> dict[Split, Tensor]:
    """The numbers of the photos of each split, drawn once and for all."""
    order = permutation(count, "art")
    held_out = TEST_PHOTOS + VALIDATION_PHOTOS
    return {
        Split.TEST: order[:TEST_PHOTOS],
        Split.VALIDATION: order[TEST_PHOTOS:held_out],
        Split.TRAIN: order[held_out:],
    }


def painting(data_dir: Path | None, name: str) -> Tensor:
    """A painting's centre, uint8 (3, 64, 64). Raises DatasetMissing and DatasetCorrupt."""
    arrays = _arrays(data_dir, "style64.npz")
    [place] = np.flatnonzero(arrays["names"] == f"{name}.jpg")
    return torch.from_numpy(arrays["images"][place]).permute(2, 0, 1).contiguous()


def _arrays(data_dir: Path | None, name: str) -> dict[str, NDArray[np.generic]]:
    with np.load(io.BytesIO(data.ART_FILES.read(data_dir, name)), allow_pickle=False) as found:
        return {key: found[key] for key in found.files}


def _of_four(
    tiles: NDArray[np.generic], photos: NDArray[np.generic], places: NDArray[np.generic]
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Squares of two by two tiles that do not overlap, and the photo of each."""
    keys = [(int(photo), int(row), int(column)) for photo, (row, column) in zip(photos, places, strict=True)]
    at = {key: number for number, key in enumerate(keys)}
    squares, owners = [], []
    for photo, row, column in at:
        corners = [(photo, row + down, column + right) for down in (0, 1) for right in (0, 1)]
        if row % 2 or column % 2 or not at.keys() >= set(corners):
            continue
        a, b, c, d = (tiles[at[corner]] for corner in corners)
        squares.append(np.concatenate([np.concatenate([a, b], axis=1), np.concatenate([c, d], axis=1)]))
        owners.append(photo)
    return np.stack(squares), np.asarray(owners)
