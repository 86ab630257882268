"""The memory of models on the rows of a table."""

from __future__ import annotations

from itertools import pairwise

from models.table_spec import Table
from models.task_spec import Costs

HELD_OUT_NUMBERS = 4_000_000
"""Held-out rows and what follows from them are taken for as many tasks at a time as need so many numbers."""


def row_costs(
    table: Table | None,
    sizes: tuple[int, ...],
    *,
    batch_size: int | None,
    most_rows: int,
    loading_bytes: int = 0,
    resident_bytes: int = 0,
) -> Costs:
    """A full batch holds its rows; a step takes every layer's values, with their slopes and what moves them.

    table: None for a data set of the server's own, whose `loading_bytes` and `resident_bytes` are given
    sizes: of the inputs and of every layer
    """
    inputs, *others = sizes
    coordinates = sum(below * above + above for below, above in pairwise(sizes))
    rows = most_rows if table is None else min(table.most_training_rows, most_rows)
    here = batch_size or rows
    if table is not None:
        loading_bytes, resident_bytes = (each * table.rows * (inputs + 2) for each in (40, 12))
    taken = here * (6 * sum(others) + 2) + 2 * coordinates
    return Costs(
        held=coordinates + (0 if batch_size else rows * (inputs + 2)),
        held_bytes=64 if batch_size else 24 * rows,
        drawn=coordinates,
        used=taken + (here * inputs if batch_size else 0),
        used_bytes=40 * here if batch_size else 0,
        held_out_bytes=8 * HELD_OUT_NUMBERS,
        loading_bytes=loading_bytes,
        resident_bytes=resident_bytes,
    )
