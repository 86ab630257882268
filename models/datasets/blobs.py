"""Where the bytes of users' data sets are: by their SHA-256, each once, whoever brought them.

`Blobs` is all that the service asks of a store: files of the data folder (`folder`), or objects of a bucket (`bucket`).
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from models.datasets.arrival import Arrival
from models.datasets.folder import FolderBlobs
from models.table_spec import Table

BLOBS = "GRADSMITH_BLOBS"
"""The environment variable that names a bucket. It is read where the store is opened, as `boto3` reads its own AWS_...
variables there: every process that a job starts finds both."""


class Blobs(Protocol):
    """A store of bytes by SHA-256. Every method may raise BlobsUnavailable, and those that write OSError."""

    @property
    def place(self) -> str:
        """Where it is, as people write it."""

    def arriving(self) -> AbstractContextManager[Arrival]:
        """A new file to write to. What was not kept when the context ends is removed."""

    def prepare(self, arrival: Arrival) -> None:
        """Do the slow part of `keep`, for a caller that will hold a lock then."""

    def keep(self, arrival: Arrival) -> None:
        """Store what arrived, where it is not stored already. Brief after `prepare`, unless it was removed since."""

    def holds(self, sha256: str) -> bool:
        """Whether these bytes are stored, without reading them. Brief."""

    def local(self, sha256: str) -> Path:
        """A file on this machine with these bytes, hashed anew. Raises FileNotFoundError, and DatasetCorrupt where
        others are stored."""

    def remove(self, sha256: str) -> None:
        """Forget these bytes, where they are stored. Brief."""

    def stored(self) -> dict[str, int]:
        """Bytes of each that is stored, by SHA-256."""

    def probe(self) -> None:
        """Write, read and remove something small. Raises BlobsUnavailable where that cannot be done."""


def blobs_of(data_dir: Path) -> Blobs:
    """Those of the bucket that GRADSMITH_BLOBS names, else of this data folder."""
    folder = data_dir / "datasets"
    place = os.environ.get(BLOBS, "").strip()
    if not place:
        return FolderBlobs(folder)
    from models.datasets.bucket import BucketBlobs, Place  # not above: few need it

    return BucketBlobs(Place.named(place), folder)


def missing_table(data_dir: Path, table: Table) -> str | None:
    """What is missing and which command brings it, without reading it; None where nothing is. Raises
    BlobsUnavailable."""
    blobs = blobs_of(data_dir)
    return None if blobs.holds(table.sha256) else not_there(blobs, table)


def not_there(blobs: Blobs, table: Table) -> str:
    """What to say of a table whose bytes are not stored."""
    place = "the data folder of this server" if isinstance(blobs, FolderBlobs) else f"the bucket {blobs.place}"
    return (
        f"The data set {table.name} (SHA-256 {table.sha256}) is not in {place}. Bring the "
        f"same file again: `gradsmith data add FILE --name {table.name}`, or on the server "
        f"`gradsmith-server data import {table.name} FILE`."
    )
