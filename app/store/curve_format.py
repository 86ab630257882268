"""What a stored loss curve is made of: points, and packed columns of them.

A point is (step, loss, gradient norm, validation score or none, learning rate, whether the meta-step was skipped) and
the sequence of the event that carried it live. A chunk is a 12-byte header (`GSCV`, format version, number of columns,
number of points), the columns one after another, 8 bytes a value, little-endian, and a bit a point for `skipped`. NaN
and infinite losses are kept as they are.

Format 1, which is still read, has neither the learning rate nor the bits: its rates are NaN, and it skipped the
meta-steps whose loss or gradient norm is not finite.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from app.store.errors import CorruptCurve

_HEADER = struct.Struct("<4sHHI")
_MAGIC, _FORMAT = b"GSCV", 2
_COLUMNS = {  # by format
    1: (("step", "<i8"), ("loss", "<f8"), ("gradient_norm", "<f8"), ("validation", "<f8"), ("sequence", "<i8")),
    2: (
        *(("step", "<i8"), ("loss", "<f8"), ("gradient_norm", "<f8"), ("validation", "<f8"), ("learning_rate", "<f8")),
        ("sequence", "<i8"),
    ),
}

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Points:
    """Some points of a curve as columns of equal length."""

    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    validation: list[float | None] = field(default_factory=list)
    """None where none was measured."""
    learning_rate: list[float | None] = field(default_factory=list)
    """None where an older version stored the point without it."""
    skipped: list[bool] = field(default_factory=list)
    """Whether the meta-step changed nothing, because its loss or gradient was not finite."""

    def __len__(self) -> int:
        return len(self.step)

    def as_json(self) -> dict[str, Any]:
        """The data of a `metrics` event: NaN and infinity become null, which is all that JSON has for them."""
        return {
            "step": [int(step) for step in self.step],
            "loss": _finite_or_none(self.loss),
            "gradient_norm": _finite_or_none(self.gradient_norm),
            "validation": _finite_or_none(self.validation),
            "learning_rate": _finite_or_none(self.learning_rate),
            "skipped": [bool(skipped) for skipped in self.skipped],
        }


def _finite_or_none(values: Sequence[float | None]) -> list[float | None]:
    return [float(value) if value is not None and math.isfinite(value) else None for value in values]


@dataclass(frozen=True)
class Curve:
    """A loss curve: arrays of shape (points,), by rising step."""

    step: Integers
    loss: Floats
    gradient_norm: Floats
    validation: Floats
    """NaN where none was measured."""
    learning_rate: Floats
    """NaN where an older version stored the point without it."""
    skipped: Bools

    def __len__(self) -> int:
        return len(self.step)

    def take(self, index: Integers | Bools | slice) -> Curve:
        return Curve(*(getattr(self, column.name)[index] for column in fields(self)))

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
    learning_rate: Floats
    skipped: Bools
    sequence: Integers

    def take(self, index: Integers | slice) -> Chunk:
        return Chunk._make(column[index] for column in self)


def pack(chunk: Chunk) -> bytes:
    columns = [np.asarray(getattr(chunk, name), dtype).tobytes() for name, dtype in _COLUMNS[_FORMAT]]
    header = _HEADER.pack(_MAGIC, _FORMAT, len(columns), len(chunk.step))
    return b"".join([header, *columns, np.packbits(chunk.skipped).tobytes()])


def unpack(data: bytes) -> Chunk:
    """Raises CorruptCurve when the bytes are not a chunk that this version can read."""
    return unpack_all([data])


def unpack_all(datas: Sequence[bytes]) -> Chunk:
    """Chunks in a row as one; quicker than one by one. Raises CorruptCurve."""
    runs = [list(run) for _, run in groupby(map(_parts, datas), key=lambda parts: parts[0])]
    return joined([_chunk(run) for run in runs])


def _chunk(parts: Sequence[tuple[int, Integers, Bools]]) -> Chunk:
    """Stored chunks of one format."""
    version = parts[0][0]
    values = np.concatenate([values for _, values, _ in parts], axis=1) if len(parts) > 1 else parts[0][1]
    found: dict[str, Any] = {
        name: row.view(dtype) for row, (name, dtype) in zip(values, _COLUMNS[version], strict=True)
    }
    if version == 1:
        skipped = ~(np.isfinite(found["loss"]) & np.isfinite(found["gradient_norm"]))
        return Chunk(**found, learning_rate=np.full(len(skipped), np.nan), skipped=skipped)
    return Chunk(**found, skipped=np.concatenate([skipped for _, _, skipped in parts]))


def _parts(data: bytes) -> tuple[int, Integers, Bools]:
    """Format of a chunk, its columns as whole numbers whatever they are, of shape (columns, points), and `skipped`."""
    if len(data) < _HEADER.size:
        raise CorruptCurve(f"A stored curve chunk has {len(data)} bytes, fewer than its header.")
    magic, version, count, points = _HEADER.unpack_from(data)
    columns = _COLUMNS.get(version, ())
    if magic != _MAGIC or not columns or count != len(columns):
        raise CorruptCurve(
            f"A stored curve chunk begins with {magic!r}, format {version} of {count} columns; this version reads "
            f"{_MAGIC!r}, format {_FORMAT} of {len(_COLUMNS[_FORMAT])} and format 1 of {len(_COLUMNS[1])}."
        )
    bits_at = _HEADER.size + 8 * points * count
    bits = np.frombuffer(data, np.uint8, offset=min(bits_at, len(data)))
    if len(data) != bits_at + (0 if version == 1 else -(-points // 8)):
        raise CorruptCurve(f"A stored curve chunk of {points} points has {len(data)} bytes: it is cut or too long.")
    values = np.frombuffer(data, "<i8", points * count, _HEADER.size).reshape(count, points)
    return version, values, np.unpackbits(bits, count=points).view(np.bool_)


def joined(chunks: Sequence[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    return Chunk(*(np.concatenate(columns) for columns in zip(*chunks, strict=True)))


def curve_of(chunks: Sequence[Chunk]) -> Curve:
    """Chunks in a row as one curve."""
    if not chunks:
        empty = np.empty(0)
        return Curve(np.empty(0, np.int64), empty, empty, empty, empty, np.empty(0, np.bool_))
    whole = joined(chunks)
    return Curve(*(getattr(whole, column.name) for column in fields(Curve)))
