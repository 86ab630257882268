"""What the shape of a tensor says of it, for optimizers that work on matrices. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

MOST_ROWS = 256
"""A side of a matrix that is longer than this has no basis in SOAP: one of 784 costs more than a hundred small
gradients."""


def matrix(shape: Sequence[int]) -> tuple[int, int] | None:
    """Rows and columns of a tensor that is a matrix, else None. One with more dimensions, such as a convolution's
    weights, is a matrix of its first and all others; what has one row or column is none."""
    if len(shape) < 2 or not (size := math.prod(shape)):
        return None
    rows, columns = shape[0], size // shape[0]
    return (rows, columns) if min(rows, columns) > 1 else None


def sides(shape: Sequence[int]) -> tuple[int, ...]:
    """The lengths of the sides of a tensor that have a basis, rows before columns; an empty tuple where none has."""
    return tuple(length for length in matrix(shape) or () if length <= MOST_ROWS)


def side_numbers(shape: Sequence[int]) -> int:
    """How many numbers a square matrix for each of these sides has in all."""
    return sum(length**2 for length in sides(shape))
