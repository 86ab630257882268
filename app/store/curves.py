"""Loss curves in the database: chunks of packed columns, never a row a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from sqlalchemy import bindparam, or_, select
from sqlalchemy.orm import Session

from app.store import overviews
from app.store.curve_format import Chunk, Curve, Floats, Integers, Points, curve_of, joined, pack, unpack, unpack_all
from app.store.errors import JobNotFound
from app.store.tables import CurveChunkRow, JobEventRow, JobRow
from models.spec import JobKind

CHUNK_POINTS = 4096

_OUTLINE = (
    select(
        *(JobRow.kind, JobRow.status, JobRow.attempt, JobRow.step),
        *(CurveChunkRow.attempt, CurveChunkRow.first_sequence, CurveChunkRow.points),
    )
    .outerjoin(CurveChunkRow, CurveChunkRow.job == JobRow.id)
    .where(JobRow.id == bindparam("job"), JobRow.workspace == bindparam("workspace"))
    .order_by(CurveChunkRow.attempt, CurveChunkRow.first_sequence)
)
_OUTLINE_AND_OVERVIEWS = overviews.beside(_OUTLINE)
# The same statements for every part of a curve, the whole one too: SQLAlchemy builds and compiles each of them once.
_INSIDE = (
    select(CurveChunkRow.points, CurveChunkRow.first_sequence)
    .where(
        CurveChunkRow.job == bindparam("job"),
        CurveChunkRow.last_step >= bindparam("from_step"),
        CurveChunkRow.first_step <= bindparam("to_step"),
    )
    .order_by(CurveChunkRow.attempt, CurveChunkRow.first_sequence)
)
_SPANS_INSIDE = overviews.beside(_INSIDE)
_CHUNKS_INSIDE = _INSIDE.add_columns(CurveChunkRow.columns).execution_options(binary_results=True)
_CHUNKS_NAMED = _CHUNKS_INSIDE.where(CurveChunkRow.first_sequence.in_(bindparam("first_sequences", expanding=True)))
_LAST_STEP = 2**63 - 1


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
                _nan_for_none(points.validation),
                _nan_for_none(points.learning_rate),
                np.asarray(points.skipped, np.bool_),
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
    stored: dict[int, list[bytes]] = {}
    for attempt, columns in session.execute(
        select(CurveChunkRow.attempt, CurveChunkRow.columns)
        .where(CurveChunkRow.job == job_id)
        .order_by(CurveChunkRow.attempt, CurveChunkRow.first_sequence)
        .execution_options(binary_results=True)
    ):
        stored.setdefault(attempt, []).append(columns)
    # After the points: an attempt that resumes meanwhile then takes back what is its to take, and not everything.
    resumed = resumed_from(session, job_id)
    kept: list[Chunk] = []
    for attempt in sorted(resumed.keys() | stored.keys()):
        limit = resumed.get(attempt, 0)
        kept = [_until(chunk, limit) for chunk in kept if chunk.step[0] <= limit]
        if attempt in stored:
            kept.append(unpack_all(stored[attempt]))
    return curve_of(kept)


def resumed_from(session: Session, job_id: str) -> dict[int, int]:
    """The step that each attempt of a job resumed from, of those that did."""
    events = select(JobEventRow.attempt, JobEventRow.data).where(
        JobEventRow.job == job_id, JobEventRow.kind == "resumed"
    )
    return {attempt: int(data["from_step"]) for attempt, data in session.execute(events)}


@dataclass(frozen=True)
class Outline:
    """A curve without its points, and where its job stands: of one moment, save `resumed`, which may be newer."""

    job_id: str
    workspace: str
    kind: JobKind
    status: str
    attempt: int
    step: int
    points: int  # as many as are stored, those too that a later attempt took back
    attempts: frozenset[int]  # that stored some
    resumed: Mapping[int, int]  # the step that each attempt resumed from, of those that did
    overviews: Mapping[tuple[int, int], bytes | None] | None  # of each chunk, by (attempt, first sequence)

    @property
    def is_empty(self) -> bool:
        """Whether no point has been stored, or the last attempt took all of them back and has none of its own yet."""
        begun = self.attempts | self.resumed.keys()
        return not self.attempts or (max(begun) not in self.attempts and self.resumed[max(begun)] == 0)

    @property
    def state(self) -> tuple[int, int]:
        """It changes whenever `read` or `thinned` would."""
        return self.points, len(self.resumed)


def outline(session: Session, job_id: str, workspace: str, *, with_overviews: bool = False) -> Outline:
    """Cheap: a few words for each 4,096 points. A job in its first attempt has resumed from nothing, so that is not
    asked. `with_overviews`: for who is sure to thin the curve, in the same journey. Raises JobNotFound."""
    query = _OUTLINE_AND_OVERVIEWS if with_overviews else _OUTLINE
    rows = session.connection().execute(query, {"job": job_id, "workspace": workspace}).all()
    if not rows:
        raise JobNotFound(job_id)
    kind, status, attempt, step = rows[0][:4]
    chunks = [row[4:] for row in rows if row[4] is not None]
    return Outline(
        *(job_id, workspace, kind, status, attempt, step),
        points=sum(points for _, _, points, *_ in chunks),
        attempts=frozenset(attempt for attempt, *_ in chunks),
        resumed=resumed_from(session, job_id) if attempt > 1 else {},
        overviews={row[:2]: row[3] for row in chunks} if with_overviews else None,
    )


def thinned(session: Session, outlined: Outline, max_points: int) -> tuple[Curve, int]:
    """A curve of at most `max_points` (at least 4), chosen as by `Curve.downsampled`, and the full number of points.

    Where a stretch that keeps two points is much longer than what an overview keeps two of, only overviews are read:
    a twentieth of the bytes. Chunks without one are read whole, and so is a curve of several attempts, of which a later
    one may have taken points back.
    """
    enough = overviews.ENOUGH_SPANS * overviews.SPAN_POINTS * max_points // 2
    if outlined.attempt > 1 or outlined.points < enough:
        whole = read(session, outlined.job_id)
        return whole.downsampled(max_points), len(whole)
    if outlined.overviews is None:
        again = outline(session, outlined.job_id, outlined.workspace, with_overviews=True)
        return thinned(session, again, max_points)
    parts = dict(outlined.overviews)
    missing = [first for (_, first), columns in parts.items() if columns is None]
    if missing:
        parts |= {
            (attempt, first): columns
            for attempt, first, columns in session.execute(
                select(CurveChunkRow.attempt, CurveChunkRow.first_sequence, CurveChunkRow.columns)
                .where(CurveChunkRow.job == outlined.job_id, CurveChunkRow.first_sequence.in_(missing))
                .execution_options(binary_results=True)
            )
        }
    chosen = unpack_all([columns for columns in parts.values() if columns is not None])
    return curve_of([chosen]).downsampled(max_points), outlined.points


@dataclass(frozen=True)
class Part:
    """Which points of a curve are wanted; by default all. Both steps are inclusive."""

    from_step: int | None = None
    to_step: int | None = None
    validated: bool = False  # only those with a validation

    @property
    def is_whole(self) -> bool:
        return self == Part()

    def of(self, curve: Curve) -> Curve:
        inside = curve.take(self.rows(curve.step))
        return inside.take(np.isfinite(inside.validation)) if self.validated else inside

    def rows(self, step: Integers) -> slice:
        """Where the wanted steps are, of steps that rise. A slice copies nothing."""
        first = 0 if self.from_step is None else int(np.searchsorted(step, self.from_step, side="left"))
        last = len(step) if self.to_step is None else int(np.searchsorted(step, self.to_step, side="right"))
        return slice(first, last)


def part(session: Session, outlined: Outline, wanted: Part, max_points: int | None) -> tuple[Curve, int]:
    """The points of a curve that `wanted` names, thinned to `max_points` as by `thinned`; and how many it has in all.

    Only the chunks that hold such steps are read, or their overviews where these are enough. A curve of several
    attempts is read whole, because a later attempt may have taken points back.
    """
    if outlined.attempt > 1:
        all_points = read(session, outlined.job_id)
        return _at_most(wanted.of(all_points), max_points), len(all_points)
    named: dict[str, object] = {
        "job": outlined.job_id,
        "from_step": wanted.from_step or 0,
        "to_step": _LAST_STEP if wanted.to_step is None else wanted.to_step,
    }
    connection = session.connection()
    if max_points is not None and not wanted.validated:
        rows = connection.execute(_SPANS_INSIDE, named).all()
        # chunks at the edges count in part
        inside = sum(points for points, *_ in rows[1:-1])
        if inside >= overviews.ENOUGH_SPANS * overviews.SPAN_POINTS * max_points // 2:
            # a cut through a span would lose its lowest or highest: the two ends are read whole, cut, and thinned like
            # the others, or the few points at the ends would take the room of the many between them
            ends = {rows[0].first_sequence, rows[-1].first_sequence}
            entire = [first for _, first, columns in rows if columns is None or first in ends]
            found = connection.execute(_CHUNKS_NAMED, {**named, "first_sequences": entire})
            read_whole = {row.first_sequence: row.columns for row in found}
            pieces: list[Chunk] = []
            for is_whole, run in groupby(rows, key=lambda row: row.first_sequence in read_whole):
                columns = [read_whole[first] if is_whole else overview for _, first, overview in run]
                chunk = unpack_all(columns)
                pieces.append(overviews.overview(chunk.take(wanted.rows(chunk.step))) if is_whole else chunk)
            return curve_of(pieces).downsampled(max_points), outlined.points
    stored = [row.columns for row in connection.execute(_CHUNKS_INSIDE, named)]
    return _at_most(wanted.of(curve_of([unpack_all(stored)] if stored else [])), max_points), outlined.points


def _at_most(curve: Curve, max_points: int | None) -> Curve:
    return curve if max_points is None else curve.downsampled(max_points)


def _until(chunk: Chunk, last_step: int) -> Chunk:
    return chunk.take(slice(int(np.searchsorted(chunk.step, last_step, side="right"))))


def _nan_for_none(values: Sequence[float | None]) -> Floats:
    return np.asarray([np.nan if value is None else value for value in values], np.float64)


def _none_for_nan(values: Floats) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]


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
                part = chunk.take(slice(start, end))
                points = Points(
                    part.step.tolist(),
                    part.loss.tolist(),
                    part.gradient_norm.tolist(),
                    _none_for_nan(part.validation),
                    _none_for_nan(part.learning_rate),
                    part.skipped.tolist(),
                )
                events.append((event_id, points))
    return events, False
