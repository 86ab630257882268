"""Loss curves: packed columns in chunks, never a row a point.

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
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.store.errors import CorruptCurve
from app.store.tables import CurveChunkRow, JobEventRow

CHUNK_POINTS = 4096
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

    def validations(self) -> Curve:
        """The points at which a validation score was measured: few, so no downsampling need touch them."""
        return self.take(~np.isnan(self.validation))

    def downsampled(self, max_points: int) -> Curve:
        """At most `max_points` (at least 4) of these points: each stretch keeps its lowest and highest loss, and its
        first NaN or infinity, so that no spike and no failure disappears. The first and last points stay."""
        if max_points < 4:
            raise ValueError(f"max_points is {max_points}; a downsampled curve needs at least 4")
        return self if len(self) <= max_points else self.take(_minmax_index(self.loss, max_points))


def _minmax_index(values: Floats, max_points: int) -> Integers:
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
    return np.unique(np.concatenate([[0, len(values) - 1], *chosen])).astype(np.int64)


class Chunk(NamedTuple):
    """The columns of stored points, each of shape (points,)."""

    step: Integers
    loss: Floats
    gradient_norm: Floats
    validation: Floats
    sequence: Integers


def pack(chunk: Chunk) -> bytes:
    columns = [np.asarray(column, dtype).tobytes() for column, (_, dtype) in zip(chunk, _COLUMNS, strict=True)]
    return _HEADER.pack(_MAGIC, _FORMAT, len(_COLUMNS), len(chunk.step)) + b"".join(columns)


def unpack(data: bytes) -> Chunk:
    """Raises CorruptCurve when the bytes are not a chunk that this version can read."""
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
    return Chunk(
        *(
            np.frombuffer(data, dtype, points, _HEADER.size + 8 * points * position)
            for position, (_, dtype) in enumerate(_COLUMNS)
        )
    )


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    return Chunk(*(np.concatenate(columns) for columns in zip(*chunks, strict=True)))


def append(session: Session, job_id: str, metrics: Sequence[tuple[tuple[int, int], Points]]) -> None:
    """Store the points of metrics events ((attempt, sequence), points), in order. The newest chunk is filled up to
    CHUNK_POINTS before another is begun, so frequent flushes leave few rows."""
    metrics = [(event_id, points) for event_id, points in metrics if len(points)]
    if not metrics:
        return
    attempt = metrics[0][0][0]
    assert all(event_id[0] == attempt for event_id, _ in metrics), "one append writes one attempt"
    new = _joined(
        [
            Chunk(
                np.asarray(points.step, np.int64),
                np.asarray(points.loss, np.float64),
                np.asarray(points.gradient_norm, np.float64),
                np.asarray([np.nan if score is None else score for score in points.validation], np.float64),
                np.full(len(points), event_id[1], np.int64),
            )
            for event_id, points in metrics
        ]
    )
    newest = session.execute(
        select(CurveChunkRow.first_sequence, CurveChunkRow.points)
        .where(CurveChunkRow.job == job_id, CurveChunkRow.attempt == attempt)
        .order_by(CurveChunkRow.first_sequence.desc())
        .limit(1)
    ).first()
    if newest is not None and newest.points + len(new.step) <= CHUNK_POINTS:
        # Only now its columns: of a full chunk they would be 160 kB for nothing.
        key = (job_id, attempt, newest.first_sequence)
        last = session.get_one(CurveChunkRow, key, execution_options={"binary_results": True})
        joined = _joined([unpack(last.columns), new])
        last.columns, last.points = pack(joined), len(joined.step)
        last.last_sequence, last.last_step = int(joined.sequence[-1]), int(joined.step[-1])
    else:
        session.add(
            CurveChunkRow(
                job=job_id,
                attempt=attempt,
                first_sequence=int(new.sequence[0]),
                last_sequence=int(new.sequence[-1]),
                first_step=int(new.step[0]),
                last_step=int(new.step[-1]),
                points=len(new.step),
                columns=pack(new),
            )
        )
    session.flush()


def read(session: Session, job_id: str) -> Curve:
    """The job's whole curve across its attempts, without the points that a later attempt took back.

    An attempt that resumed from step s drops what earlier ones had after s; one that did not starts anew. An attempt
    of which nothing is known yet takes nothing back.
    """
    resumed = {
        attempt: int(data["from_step"])
        for attempt, data in session.execute(
            select(JobEventRow.attempt, JobEventRow.data).where(
                JobEventRow.job == job_id, JobEventRow.kind == "resumed"
            )
        )
    }
    stored: dict[int, list[Chunk]] = {}
    for attempt, columns in session.execute(
        select(CurveChunkRow.attempt, CurveChunkRow.columns)
        .where(CurveChunkRow.job == job_id)
        .order_by(CurveChunkRow.attempt, CurveChunkRow.first_sequence)
        .execution_options(binary_results=True)
    ):
        stored.setdefault(attempt, []).append(unpack(columns))
    kept: list[Chunk] = []
    for attempt in sorted(resumed.keys() | stored.keys()):
        limit = resumed.get(attempt, 0)
        kept = [_until(chunk, limit) for chunk in kept if chunk.step[0] <= limit]
        kept += stored.get(attempt, [])
    if not kept:
        empty = np.empty(0)
        return Curve(np.empty(0, np.int64), empty, empty, empty)
    whole = _joined(kept)
    return Curve(whole.step, whole.loss, whole.gradient_norm, whole.validation)


def state(session: Session, job_id: str) -> tuple[int, int]:
    """How many points are stored, and how many attempts took some back: it changes whenever `read` would. Cheap."""
    points = select(func.coalesce(func.sum(CurveChunkRow.points), 0)).where(CurveChunkRow.job == job_id)
    resumed = select(func.count()).where(JobEventRow.job == job_id, JobEventRow.kind == "resumed")
    return int(session.scalar(points) or 0), session.scalar(resumed) or 0


def _until(chunk: Chunk, last_step: int) -> Chunk:
    end = int(np.searchsorted(chunk.step, last_step, side="right"))
    return Chunk(
        chunk.step[:end], chunk.loss[:end], chunk.gradient_norm[:end], chunk.validation[:end], chunk.sequence[:end]
    )


def points_after(
    session: Session, job_id: str, position: tuple[int, int], limit: int
) -> tuple[list[tuple[tuple[int, int], Points]], bool]:
    """The metrics events after (attempt, sequence), with the very points that they carried live; and whether more
    than about `limit` of them follow. Chunks are read one by one until there are `limit`."""
    attempt, sequence = position
    rows = session.execute(
        select(CurveChunkRow.attempt, CurveChunkRow.columns)
        .where(
            CurveChunkRow.job == job_id,
            or_(
                CurveChunkRow.attempt > attempt,
                (CurveChunkRow.attempt == attempt) & (CurveChunkRow.last_sequence > sequence),
            ),
        )
        .order_by(CurveChunkRow.attempt, CurveChunkRow.first_sequence)
        .limit(max(1, limit // 64) + 1)
        .execution_options(binary_results=True)
    ).all()
    events: list[tuple[tuple[int, int], Points]] = []
    for number, (chunk_attempt, columns) in enumerate(rows):
        if len(events) >= limit or number == max(1, limit // 64):
            return events, True
        chunk = unpack(columns)
        starts = np.flatnonzero(np.diff(chunk.sequence, prepend=-1))  # where another event's points begin
        for start, end in zip(starts, [*starts[1:], len(chunk.sequence)], strict=True):
            event_id = (chunk_attempt, int(chunk.sequence[start]))
            if event_id > position:
                scores = chunk.validation[start:end].tolist()
                events.append(
                    (
                        event_id,
                        Points(
                            chunk.step[start:end].tolist(),
                            chunk.loss[start:end].tolist(),
                            chunk.gradient_norm[start:end].tolist(),
                            [None if score != score else score for score in scores],
                        ),
                    )
                )
    return events, False
