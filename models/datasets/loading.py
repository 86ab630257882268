"""A family's part of a user's data set, as numbers: what a worker reads before it makes tasks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.datasets.blobs import blobs_of, not_there
from models.datasets.source import Limits, labels, numbers, opened
from models.errors import DatasetCorrupt, DatasetMissing
from models.table_spec import LEAST_ROWS, Table


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a table that have a target and, where it has groups, belong to one that is large enough.

    inputs: (rows, columns) float32, NaN where a value is missing
    target: (rows,) float64, or the number of the class
    groups: (rows,) int64, the number of the group in the order of their names; 0 where there are none
    """

    inputs: NDArray[np.float32]
    target: NDArray[np.float64]
    groups: NDArray[np.int64]


@lru_cache(maxsize=2)
def load(data_dir: Path | None, table: Table, *, as_classes: bool) -> Rows:
    """as_classes: whether targets are numbered by `table.classes`. Raises DatasetMissing, DatasetCorrupt and
    BlobsUnavailable."""
    if data_dir is None:
        raise DatasetMissing(f"The data set {table.name} needs a data folder.")
    blobs = blobs_of(data_dir)
    try:
        path = blobs.local(table.sha256)
    except FileNotFoundError as error:
        raise DatasetMissing(not_there(blobs, table)) from error
    except DatasetCorrupt as error:
        raise DatasetCorrupt(f"The data set {table.name} cannot be used. {error}. Bring it again.") from error
    return _read(path, table, as_classes=as_classes)


def _read(path: Path, table: Table, *, as_classes: bool) -> Rows:
    source = opened(path, table.format, Limits(rows=2**62, columns=2**31, unpacked_bytes=2**62))  # as when it came
    place = {name: number for number, name in enumerate(source.names)}
    number_of = {name: number for number, name in enumerate(table.classes)}
    inputs: list[NDArray[np.float32]] = []
    targets: list[NDArray[np.float64]] = []
    groups: list[str] = []
    for chunk in source.chunks():
        columns = [_numbers(chunk[place[name]]) for name in table.inputs]
        values = chunk[place[table.target]]
        if as_classes:
            target = np.array([number_of.get(label, np.nan) if label else np.nan for label in labels(values)])
        else:
            target = _numbers(values)
        names = labels(chunk[place[table.group]]) if table.group is not None else [""] * len(target)
        kept = np.array([name is not None for name in names]) & ~np.isnan(target)
        inputs.append(np.stack(columns, axis=1)[kept].astype(np.float32))
        targets.append(target[kept])
        groups += [name for name, keep in zip(names, kept, strict=True) if keep and name is not None]
    return _of_large_groups(np.concatenate(inputs), np.concatenate(targets), groups)


def _numbers(values: object) -> NDArray[np.float64]:
    found = numbers(values)  # type: ignore[arg-type]
    assert found is not None, "the inspection found numbers here"
    return found


def _of_large_groups(inputs: NDArray[np.float32], target: NDArray[np.float64], groups: list[str]) -> Rows:
    sizes = Counter(groups)
    names = sorted(name for name, count in sizes.items() if count >= LEAST_ROWS)
    number_of = {name: number for number, name in enumerate(names)}
    numbered = np.array([number_of.get(name, -1) for name in groups], np.int64)
    kept = numbered >= 0
    return Rows(inputs[kept], target[kept], numbered[kept])
