"""Overviews of a curve's chunks: of each span of points the lowest and the highest loss, and the first that failed.

Whoever wants a thousand of a hundred thousand points reads these, a twentieth of the bytes, and misses no spike: the
lowest and highest of a stretch of whole spans are among them. An overview has the form of a chunk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlalchemy import Select, and_
from sqlalchemy.orm import Session

from app.store.curve_format import Chunk, minmax_index, pack
from app.store.tables import CurveChunkRow, CurveOverviewRow

SPAN_POINTS = 64
ENOUGH_SPANS = 1  # in a stretch of which two points are kept: fewer, and spans would be skipped
LEAST_POINTS = 512  # of a chunk: a shorter one is as soon read whole


def overview(chunk: Chunk) -> Chunk:
    """Keep of each span of SPAN_POINTS its lowest and highest loss, and the first that failed."""
    finite = bool(np.isfinite(chunk.loss).all())
    most = 2 + (2 if finite else 3) * -(-len(chunk.step) // SPAN_POINTS)
    return chunk if len(chunk.step) <= most else chunk.take(minmax_index(chunk.loss, most))


def keep(session: Session, key: tuple[str, int, int], chunk: Chunk) -> None:
    """Write the overview of a chunk that was just written under `key` (job, attempt, first sequence)."""
    if len(chunk.step) < LEAST_POINTS:
        return
    columns = pack(overview(chunk))
    row = session.get(CurveOverviewRow, key)
    if row is None:
        job, attempt, first_sequence = key
        session.add(CurveOverviewRow(job=job, attempt=attempt, first_sequence=first_sequence, columns=columns))
    else:
        row.columns = columns


def beside(chunks: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """A query of chunks, and of each its overview's columns as well; NULL where it has none."""
    mine = and_(
        CurveOverviewRow.job == CurveChunkRow.job,
        CurveOverviewRow.attempt == CurveChunkRow.attempt,
        CurveOverviewRow.first_sequence == CurveChunkRow.first_sequence,
    )
    both = chunks.add_columns(CurveOverviewRow.columns).outerjoin(CurveOverviewRow, mine)
    return both.execution_options(binary_results=True)
