"""Loss curves in the database: chunks of packed columns, never a row a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sqlalchemy import bindparam, or_, select
from sqlalchemy.orm import Session

from app.store import overviews
from app.store.curve_format import Chunk, Curve, Points, curve_of, joined, pack, unpack
from app.store.tables import CurveChunkRow, JobEventRow, JobRow

CHUNK_POINTS = 4096

_LISTED = (CurveChunkRow.attempt, CurveChunkRow.first_sequence, CurveChunkRow.points)
_CHUNKS = (
    select(*_LISTED)
    .where(CurveChunkRow.job == bindparam("job"))
    .order_by(CurveChunkRow.attempt, CurveChunkRow.first_sequence)
)
_CHUNKS_AND_OVERVIEWS = overviews.beside(_CHUNKS)


def append(session: Session, job_id: str, metrics: Sequence[tuple[tuple[int, int], Points]]) -> None:
    """Store the points of metrics events ((attempt, sequence), points), in order. The newest chunk is filled up to
    CHUNK_POINTS before another is begun, so frequent flushes leave few rows."""
    metrics = [(event_id, points) for event_id, points in metrics if len(points)]
    if not metrics:
        return
    attempt = metrics[0][0][0]
    assert all(event_id[0] == attempt for event_id, _ in metrics), "one append writes one attempt"
    new = joined(
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
        whole = joined([unpack(last.columns), new])
        last.columns, last.points = pack(whole), len(whole.step)
        last.last_sequence, last.last_step = int(whole.sequence[-1]), int(whole.step[-1])
        overviews.keep(session, key, whole)
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
        overviews.keep(session, (job_id, attempt, int(new.sequence[0])), new)
    session.flush()


def read(session: Session, job_id: str) -> Curve:
    """The job's whole curve across its attempts, without the points that a later attempt took back.

    An attempt that resumed from step s drops what earlier ones had after s; one that did not starts anew. An attempt
    of which nothing is known yet takes nothing back.
    """
    stored: dict[int, list[Chunk]] = {}
    for attempt, columns in session.execute(
        select(CurveChunkRow.attempt, CurveChunkRow.columns)
        .where(CurveChunkRow.job == job_id)
        .order_by(CurveChunkRow.attempt, CurveChunkRow.first_sequence)
        .execution_options(binary_results=True)
    ):
        stored.setdefault(attempt, []).append(unpack(columns))
    # After the points: an attempt that resumes meanwhile then takes back what is its to take, and not everything.
    resumed = resumed_from(session, job_id)
    kept: list[Chunk] = []
    for attempt in sorted(resumed.keys() | stored.keys()):
        limit = resumed.get(attempt, 0)
        kept = [_until(chunk, limit) for chunk in kept if chunk.step[0] <= limit]
        kept += stored.get(attempt, [])
    return curve_of(kept)


def resumed_from(session: Session, job_id: str) -> dict[int, int]:
    """The step that each attempt of a job resumed from, of those that did."""
    events = select(JobEventRow.attempt, JobEventRow.data).where(
        JobEventRow.job == job_id, JobEventRow.kind == "resumed"
    )
    return {attempt: int(data["from_step"]) for attempt, data in session.execute(events)}


class Listed(NamedTuple):
    """A stored chunk without its columns."""

    attempt: int
    first_sequence: int
    points: int


@dataclass(frozen=True)
class Outline:
    """A curve without its points: the chunks in order, and what each attempt of those that resumed resumed from."""

    chunks: Sequence[Listed]
    resumed: Mapping[int, int]
    overviews: Mapping[tuple[int, int], Chunk] | None = None  # where they were read with it

    @property
    def points(self) -> int:
        """How many are stored, those too that a later attempt took back."""
        return sum(chunk.points for chunk in self.chunks)

    @property
    def state(self) -> tuple[int, int]:
        """It changes whenever `read` or `thinned` would."""
        return self.points, len(self.resumed)


def outline(session: Session, job: JobRow, *, with_overviews: bool = False) -> Outline:
    """Cheap: a few words for each 4,096 points. A job in its first attempt has resumed from nothing, so that is not
    asked. `with_overviews`: for who is sure to need them, in the same journey to the database."""
    rows = session.execute(_CHUNKS_AND_OVERVIEWS if with_overviews else _CHUNKS, {"job": job.id}).all()
    chunks = [Listed(*row[:3]) for row in rows]
    seen = {row[:2]: unpack(row[3]) for row in rows if row[3] is not None} if with_overviews else None
    first = job.attempt == 1 and all(chunk.attempt == 1 for chunk in chunks)  # they may be newer than the job's row
    return Outline(chunks, {} if first else resumed_from(session, job.id), seen)


def thinned(session: Session, job_id: str, outlined: Outline, max_points: int) -> tuple[Curve, int]:
    """At most `max_points` (at least 4) of the curve, as `Curve.downsampled` chooses them, and how many it has.

    Where a stretch that keeps two points is much longer than what an overview keeps two of, only overviews are read:
    a twentieth of the bytes. Chunks without one are read whole, and so is a curve of several attempts, of which a later
    one may have taken points back.
    """
    attempts = {chunk.attempt for chunk in outlined.chunks} | outlined.resumed.keys()
    total = outlined.points
    if len(attempts) != 1 or total < overviews.ENOUGH_SPANS * overviews.SPAN_POINTS * max_points // 2:
        whole = read(session, job_id)
        return whole.downsampled(max_points), len(whole)
    kept = dict(overviews.read(session, job_id) if outlined.overviews is None else outlined.overviews)
    missing = [chunk.first_sequence for chunk in outlined.chunks if chunk[:2] not in kept]
    if missing:
        rows = session.execute(
            select(CurveChunkRow.attempt, CurveChunkRow.first_sequence, CurveChunkRow.columns)
            .where(CurveChunkRow.job == job_id, CurveChunkRow.first_sequence.in_(missing))
            .execution_options(binary_results=True)
        )
        kept |= {(attempt, first): unpack(columns) for attempt, first, columns in rows}
    return curve_of([kept[chunk[:2]] for chunk in outlined.chunks]).downsampled(max_points), total


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
