"""A file that arrives: written to a folder of this machine, hashed on the way, and gone when it is not kept."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def arriving(folder: Path) -> Iterator[Arrival]:
    """A new file of this folder, which is made. What was not moved away when the context ends is removed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_older(folder, _STALE_SECONDS)
    arrival = Arrival(folder / uuid.uuid4().hex)
    try:
        yield arrival
    finally:
        try:
            arrival.close(durably=False)
        finally:
            arrival.path.unlink(missing_ok=True)


def remove_older(folder: Path, seconds: float) -> None:
    """Remove the folder's files that nobody wrote to, or touched, for so long."""
    for path in folder.iterdir():
        try:
            if time.time() - path.stat().st_mtime > seconds:
                path.unlink()
        except FileNotFoundError:  # another process was faster
            continue


def hash_of(path: Path) -> str:
    """SHA-256 of a file, a part at a time in memory. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
