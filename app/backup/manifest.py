"""What a backup holds, and whether that is what it held when it was made."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = "gradsmith.db"
DATASETS = "datasets"
_CHUNK_BYTES = 1 << 20


class BackupError(RuntimeError):
    """It cannot be backed up or restored; the message says why and what to do. Nothing has been changed."""


class FileRecord(BaseModel):
    model_config = ConfigDict(extra="ignore")
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """`files` by their paths within the backup, with `/`; `schema_revision` is the database's."""

    model_config = ConfigDict(extra="ignore")
    format: int
    made_at: str
    gradsmith: str
    schema_revision: str
    files: dict[str, FileRecord]

    def text(self) -> str:
        return self.model_dump_json(indent=2) + "\n"


def parsed(text: bytes, shown: str) -> Manifest:
    """Raises BackupError when it is none, of a newer format, or names files that are not a backup's."""
    try:
        document = json.loads(text)
        number = document.get("format") if isinstance(document, dict) else None
        if isinstance(number, int) and number > FORMAT:
            raise BackupError(
                f"the backup {shown} has format {number}, and this version reads {FORMAT}: use the newer Gradsmith"
            )
        manifest = Manifest.model_validate(document)
    except (ValueError, ValidationError, RecursionError) as error:
        raise BackupError(
            f"the {MANIFEST} of {shown} is damaged ({str(error).splitlines()[0]}); use another"
        ) from error
    for name in manifest.files:
        path = PurePosixPath(name)
        if name != DATABASE and (path.is_absolute() or ".." in path.parts or path.parts[0] != DATASETS or "\\" in name):
            raise BackupError(f"the backup {shown} names a file that belongs to none: {name!r}; use another")
    if DATABASE not in manifest.files:
        raise BackupError(f"the backup {shown} holds no {DATABASE}; use another")
    return manifest


@dataclass(frozen=True)
class Copied:
    bytes: int
    sha256: str


def copy(source: BinaryIO, target: Path) -> Copied:
    """All of `source` into the new file `target`, on the disk when it returns. Its size and hash, of what was read."""
    digest, size = hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            out.write(chunk)
        out.flush()
        synchronize(out.fileno())
    return Copied(size, digest.hexdigest())


def hash_of(path: Path) -> Copied:
    with path.open("rb") as stream:
        return Copied(path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest())


def synchronize(descriptor: int) -> None:
    """Calls os.fsync, and ignores file systems that do not support it (some network ones)."""
    with contextlib.suppress(OSError):
        os.fsync(descriptor)


def synchronize_folder(folder: Path) -> None:
    """A rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        synchronize(descriptor)
    finally:
        os.close(descriptor)
