"""Which stored bytes are damaged: what is read is compared with the checksum or the form it was written with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store import curve_format
from app.store.errors import CorruptCurve
from app.store.tables import CheckpointRow, CurveChunkRow, OptimizerRow, WeightsRow
from models.seal import is_intact, is_sealed

Kind = Literal["weights", "checkpoint", "curve"]


class Damage(NamedTuple):
    """A damaged blob, by what a user knows it as."""

    kind: Kind
    owner: str
    """The optimizers (`opt_... (quadratic@3)`) or the job that it belongs to."""


class Checked(NamedTuple):
    """How many blobs were read, and those that are damaged."""

    counts: dict[Kind, int]
    damaged: list[Damage]


def check(session: Session) -> Checked:
    """Read and verify every stored blob, a few in memory at a time.

    Checkpoints of format 1 and curves carry no checksum: only their form is checked.
    """
    damaged: list[Damage] = []
    counts: dict[Kind, int] = {"weights": 0, "checkpoint": 0, "curve": 0}
    kinds: tuple[tuple[Kind, Iterator[tuple[str, bool]]], ...] = (
        ("weights", _weights(session)),
        ("checkpoint", _checkpoints(session)),
        ("curve", _curves(session)),
    )
    for kind, blobs in kinds:
        for owner, sound in blobs:
            counts[kind] += 1
            if not sound and Damage(kind, owner) not in damaged:
                damaged.append(Damage(kind, owner))
    return Checked(counts, damaged)


def _weights(session: Session) -> Iterator[tuple[str, bool]]:
    query = select(WeightsRow.sha256, WeightsRow.content).execution_options(yield_per=4, binary_results=True)
    for sha256, content in session.execute(query):
        sound = hashlib.sha256(content).hexdigest() == sha256
        yield "" if sound else _owners(session, sha256), sound


def _owners(session: Session, sha256: str) -> str:
    query = select(OptimizerRow.id, OptimizerRow.family, OptimizerRow.version).where(OptimizerRow.sha256 == sha256)
    found = [f"{id_} ({family}@{version})" for id_, family, version in session.execute(query.order_by(OptimizerRow.id))]
    return ", ".join(found) or f"no optimizer, SHA-256 {sha256}"


def _checkpoints(session: Session) -> Iterator[tuple[str, bool]]:
    query = select(CheckpointRow.job, CheckpointRow.content).execution_options(yield_per=4, binary_results=True)
    for job, content in session.execute(query):
        yield job, is_intact(content) if is_sealed(content) else _begins_as_safetensors(content)


def _begins_as_safetensors(content: bytes) -> bool:
    """Whether this may be a checkpoint of format 1: the length of a JSON header, then that header."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content) - 8


def _curves(session: Session) -> Iterator[tuple[str, bool]]:
    query = select(CurveChunkRow.job, CurveChunkRow.columns).execution_options(yield_per=64, binary_results=True)
    for job, columns in session.execute(query):
        try:
            curve_format.unpack(columns)
        except CorruptCurve:
            yield job, False
        else:
            yield job, True
