"""Users' data sets: whether their store can be used, and holds what the database says."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from app.doctor.findings import Finding, fail, ok, warn
from app.settings import Settings
from app.store import datasets
from app.store.errors import StoreError
from app.store.sessions import Database
from app.store.sqlite import missing_file
from app.store.tables import DatasetRow
from models.datasets.blobs import Blobs, blobs_of
from models.datasets.folder import FolderBlobs
from models.errors import BlobsUnavailable

if TYPE_CHECKING:
    from app.doctor import Patient

_SHOWN = 3
"""Lost files that get a line each."""
_KEYS = (
    "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; their user needs s3:ListBucket, s3:GetObject, s3:PutObject "
    "and s3:DeleteObject"
)
_ADVICE = (
    (("could not connect", "timeout", "timed out"), "is its server running, and is AWS_ENDPOINT_URL right?"),
    (("credentials", "accesskey", "signature", "(403)", "denied", "forbidden"), _KEYS),
    (("nosuchbucket",), "make the bucket, or correct its name in GRADSMITH_BLOBS"),
)


def users_tables(patient: Patient) -> Iterator[Finding]:
    """Silent about a data folder that holds none, and about a database that cannot be read: its own line says so."""
    blobs = blobs_of(patient.settings.data_dir)
    try:
        blobs.probe()
        stored = blobs.stored()
    except BlobsUnavailable as error:
        said = str(error).rstrip(".")
        known = (advice for words, advice in _ADVICE if any(word in said.lower() for word in words))
        yield fail("data sets", said, next(known, "docs/operations.md, Data sets in a bucket"))
        return
    rows = _rows(patient.settings)
    if rows is not None:
        yield from _compared(blobs, stored, rows)


def _rows(settings: Settings) -> dict[str, DatasetRow] | None:
    try:
        if missing_file(settings.resolved_database_url) is not None:
            return {}
        with Database(settings.resolved_database_url) as database, database.read() as session:
            return datasets.by_content(session)
    except (StoreError, SQLAlchemyError):
        return None


def _compared(blobs: Blobs, stored: dict[str, int], rows: dict[str, DatasetRow]) -> Iterator[Finding]:
    lost = [row for sha256, row in rows.items() if stored.get(sha256) != row.size]
    for row in lost[:_SHOWN]:
        state = "not there" if row.sha256 not in stored else "of another size"
        yield fail(
            "data sets",
            f"the file of {row.name} (workspace {row.workspace}) is {state} in {blobs.place}: {row.sha256}",
            f"bring the same file again: `gradsmith data add FILE --name {row.name}`, or put a backup in its place",
        )
    if len(lost) > _SHOWN:
        yield fail("data sets", f"{len(lost) - _SHOWN} other files are missing too", "is GRADSMITH_BLOBS right?")
    left = sorted(stored.keys() - rows.keys())
    if left:
        size = sum(stored[sha256] for sha256 in left)
        yield warn(
            "data sets",
            f"{len(left)} files in {blobs.place} ({size / 1e6:,.1f} MB) belong to no data set, such as {left[0]}",
            "does another service use this place? Give each its own. Else an upload was killed: "
            f"{_removal(blobs, left[0])}",
        )
    if not lost and not left and (rows or not isinstance(blobs, FolderBlobs)):
        yield ok("data sets", f"{blobs.place} can be used and holds {len(rows)} files of users")


def _removal(blobs: Blobs, sha256: str) -> str:
    if isinstance(blobs, FolderBlobs):
        return f"`rm {shlex.quote(f'{blobs.place}/{sha256}')}`"
    return f"`aws s3 rm {blobs.place}/blobs/{sha256}`"
