"""What a stored loss curve is made of: points, and packed columns of them.

A point is (step, loss, gradient norm, validation score or none) and the sequence of the event that carried it live.
A chunk is a 12-byte header (`GSCV`, format version, number of columns, number of points) and the columns one after
another, 8 bytes a value, little-endian. NaN and infinite losses are kept as they are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from app.store.errors import CorruptCurve

_HEADER = struct.Struct("<4sHHI")
_MAGIC, _FORMAT = b"GSCV", 1
_COLUMNS = (("step", "<i8"), ("loss", "<f8"), ("gradient_norm", "<f8"), ("validation", "<f8"), ("sequence", "<i8"))

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Points:
    """Some points of a curve as columns of equal length; `validation` is None where none was measured."""

    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    validation: list[float | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.step)

    def as_json(self) -> dict[str, Any]:
        """The data of a `metrics` event: NaN and infinity become null, which is all that JSON has for them."""
        return {
            "step": [int(step) for step in self.step],
            "loss": _finite_or_none(self.loss),
            "gradient_norm": _finite_or_none(self.gradient_norm),
            "validation": _finite_or_none(self.validation),
        }


def _finite_or_none(values: Sequence[float | None]) -> list[float | None]:
    return [float(value) if value is not None and math.isfinite(value) else None for value in values]


@dataclass(frozen=True)
class Curve:
    """A loss curve: four arrays of shape (points,), by rising step. `validation` is NaN where none was measured."""

    step: Integers
    loss: Floats
    gradient_norm: Floats
    validation: Floats

    def __len__(self) -> int:
        return len(self.step)

    def take(self, index: Integers | npt.NDArray[np.bool_]) -> Curve:
        return Curve(self.step[index], self.loss[index], self.gradient_norm[index], self.validation[index])

    def downsampled(self, max_points: int) -> Curve:
        """Thins the curve to at most `max_points` (at least 4). Each stretch keeps its lowest and highest loss, and its
        first NaN or infinity, so no spike and no failure disappears. The first and last points stay."""
        if max_points < 4:
            raise ValueError(f"max_points is {max_points}; a downsampled curve needs at least 4")
        return self if len(self) <= max_points else self.take(minmax_index(self.loss, max_points))


def minmax_index(values: Floats, max_points: int) -> Integers:
    finite = np.isfinite(values)
    high, low = np.where(finite, values, -np.inf), np.where(finite, values, np.inf)
    # What each stretch keeps, the most telling first: beside the two ends, four points leave room for two only.
    failed = [] if finite.all() else [(finite, np.argmin)]  # the first False: a NaN or infinity, if there is one
    sources = [*failed, (high, np.argmax), (low, np.argmin)][: max_points - 2]
    stretches = (max_points - 2) // len(sources)
    edges = 1 + np.linspace(0, len(values) - 2, stretches + 1).astype(np.int64)
    # Stretches differ in length by one: an index of their own fills the shorter, so that numpy takes all at once.
    width = int(np.diff(edges).max())
    index = np.minimum(edges[:-1, None] + np.arange(width), edges[1:, None] - 1)  # (stretches, width)
    rows = np.arange(stretches)
    chosen = [index[rows, choose(source[index], axis=1)] for source, choose in sources]
    kept = np.zeros(len(values), np.bool_)
    kept[[0, -1]] = True
    for positions in chosen:
        kept[positions] = True
    return np.flatnonzero(kept).astype(np.int64)


class Chunk(NamedTuple):
    """The columns of stored points, each of shape (points,)."""

    step: Integers
    loss: Floats
    gradient_norm: Floats
    validation: Floats
    sequence: Integers

    def take(self, index: Integers) -> Chunk:
        return Chunk(
            self.step[index], self.loss[index], self.gradient_norm[index], self.validation[index], self.sequence[index]
        )


def pack(chunk: Chunk) -> bytes:
    columns = [np.asarray(column, dtype).tobytes() for column, (_, dtype) in zip(chunk, _COLUMNS, strict=True)]
    return _HEADER.pack(_MAGIC, _FORMAT, len(_COLUMNS), len(chunk.step)) + b"".join(columns)


def unpack(data: bytes) -> Chunk:
    """Raises CorruptCurve when the bytes are not a chunk that this version can read."""
    return _chunk(_values(data))


def unpack_all(datas: Sequence[bytes]) -> Chunk:
    """Chunks in a row as one; quicker than one by one. Raises CorruptCurve."""
    return _chunk(np.concatenate([_values(data) for data in datas], axis=1))


def _chunk(values: Integers) -> Chunk:
    return Chunk(*(row.view(dtype) for row, (_, dtype) in zip(values, _COLUMNS, strict=True)))


def _values(data: bytes) -> Integers:
    """The columns of a chunk, as whole numbers whatever they are: shape (columns, points)."""
    if len(data) < _HEADER.size:
        raise CorruptCurve(f"A stored curve chunk has {len(data)} bytes, fewer than its header.")
    magic, version, columns, points = _HEADER.unpack_from(data)
    if (magic, version, columns) != (_MAGIC, _FORMAT, len(_COLUMNS)):
        raise CorruptCurve(
            f"A stored curve chunk begins with {magic!r}, format {version} of {columns} columns; this version reads "
            f"{_MAGIC!r}, format {_FORMAT} of {len(_COLUMNS)}."
        )
    if len(data) != _HEADER.size + 8 * points * columns:
        raise CorruptCurve(f"A stored curve chunk of {points} points has {len(data)} bytes: it is cut or too long.")
    return np.frombuffer(data, "<i8", columns * points, _HEADER.size).reshape(columns, points)


def joined(chunks: Sequence[Chunk]) -> Chunk:
    return Chunk(*(np.concatenate(columns) for columns in zip(*chunks, strict=True)))


def curve_of(chunks: Sequence[Chunk]) -> Curve:
    """Chunks in a row as one curve."""
    if not chunks:
        empty = np.empty(0)
        return Curve(np.empty(0, np.int64), empty, empty, empty)
    whole = joined(chunks) if len(chunks) > 1 else chunks[0]
    return Curve(whole.step, whole.loss, whole.gradient_norm, whole.validation)
