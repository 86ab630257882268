"""Users' tables in a folder that all processes of the service share."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from models.datasets.arrival import Arrival, arriving, hash_of
from models.errors import DatasetCorrupt


class FolderBlobs:
    """Blobs as files of one folder, on a file system that all processes of the service share."""

    def __init__(self, folder: Path) -> None:
        self._kept = folder / "blobs"
        self._coming = folder / ".arriving"  # hidden from backups

    @property
    def place(self) -> str:
        return str(self._kept)

    def arriving(self) -> AbstractContextManager[Arrival]:
        return arriving(self._coming)

    def prepare(self, arrival: Arrival) -> None:
        arrival.close(durably=True)

    def keep(self, arrival: Arrival) -> None:
        arrival.close(durably=True)
        self._kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        arrival.path.replace(self._kept / arrival.sha256)
        folder = os.open(self._kept, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def holds(self, sha256: str) -> bool:
        return (self._kept / sha256).is_file()

    def local(self, sha256: str) -> Path:
        path = self._kept / sha256
        if not path.is_file():
            raise FileNotFoundError(path)
        if (found := hash_of(path)) != sha256:
            raise DatasetCorrupt(f"{path} is damaged: its SHA-256 is {found}")
        return path

    def remove(self, sha256: str) -> None:
        (self._kept / sha256).unlink(missing_ok=True)

    def stored(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self._kept.iterdir()} if self._kept.is_dir() else {}

    def probe(self) -> None:
        """Nothing: whoever looks at the data folder has seen whether it can be written."""
