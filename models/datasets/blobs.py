"""Where the bytes of users' data sets are: by their SHA-256, each once, whoever brought them.

`Blobs` is all that the service asks of a store. `FolderBlobs` keeps them in the data folder, which workers share.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from models.table_spec import Table

_STALE_SECONDS = 86_400.0
"""A file that arrives is written to all the time: one that nobody wrote to for so long belongs to a dead process."""


class Arrival:
    """A file that is arriving, hashed as it is written. It is gone when it is not kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")

    @property
    def sha256(self) -> str:
        """The hash of what has come so far."""
        return self._hash.hexdigest()

    def write(self, content: bytes) -> None:
        """Append. Raises OSError, such as for a full disk."""
        self._hash.update(content)
        self._file.write(content)
        self.size += len(content)

    def flush(self) -> None:
        """Let others read what has come so far."""
        self._file.flush()

    def close(self, *, durably: bool) -> None:
        """durably: whether the bytes must survive a power failure from now on"""
        if not self._file.closed:
            try:
                if durably:
                    self._file.flush()
                    os.fsync(self._file.fileno())
            finally:
                self._file.close()


class Blobs(Protocol):
    """A store of bytes by SHA-256."""

    def arriving(self) -> AbstractContextManager[Arrival]:
        """A new file to write to. What was not kept when the context ends is removed."""

    def keep(self, arrival: Arrival) -> None:
        """Store what arrived, where it is not stored already."""

    def local(self, sha256: str) -> Path:
        """A file on this machine with these bytes. Raises FileNotFoundError."""

    def remove(self, sha256: str) -> None:
        """Forget these bytes, where they are stored."""


class FolderBlobs:
    """Blobs as files of one folder, on a file system that all processes of the service share."""

    def __init__(self, folder: Path) -> None:
        self._kept = folder / "blobs"
        self._coming = folder / ".arriving"  # hidden from backups

    @contextmanager
    def arriving(self) -> Iterator[Arrival]:
        for place in (self._coming, self._kept):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        arrival = Arrival(self._coming / uuid.uuid4().hex)
        try:
            yield arrival
        finally:
            try:
                arrival.close(durably=False)
            finally:
                arrival.path.unlink(missing_ok=True)

    def keep(self, arrival: Arrival) -> None:
        arrival.close(durably=True)
        arrival.path.replace(self._kept / arrival.sha256)
        folder = os.open(self._kept, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def local(self, sha256: str) -> Path:
        path = self._kept / sha256
        if not path.is_file():
            raise FileNotFoundError(path)
        return path

    def remove(self, sha256: str) -> None:
        (self._kept / sha256).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what killed processes have left."""
        for path in self._coming.iterdir():
            try:
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
            except FileNotFoundError:  # its own process was faster
                continue


def blobs_of(data_dir: Path) -> FolderBlobs:
    """Those of this data folder."""
    return FolderBlobs(data_dir / "datasets")


def missing_table(data_dir: Path, table: Table) -> str | None:
    """What is missing and which command brings it, without reading it; None where nothing is."""
    try:
        blobs_of(data_dir).local(table.sha256)
    except FileNotFoundError:
        return (
            f"The data set {table.name} (SHA-256 {table.sha256}) is not in the data folder of this server. Bring the "
            f"same file again: `gradsmith data add FILE --name {table.name}`, or on the server "
            f"`gradsmith-server data import {table.name} FILE`."
        )
    return None
