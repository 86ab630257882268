"""What only its owner may read: a store holds users' jobs and the hashes of their keys."""

from __future__ import annotations

import os
from pathlib import Path

_OTHERS = 0o077


def make_folder(folder: Path) -> None:
    """`folder` for its owner alone, whatever the umask, where it is not there; one that is stays as it is.
    Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def make_file(path: Path) -> None:
    """An empty file for its owner alone, where there is none; one that is stays as it is. Raises OSError.

    SQLite gives the files beside a database the rights of the database itself."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def others_reach(path: Path) -> bool:
    """Whether the rights of the file, and those of its folder, let other users than the owner read or write it."""
    return bool(path.stat().st_mode & _OTHERS) and bool(path.parent.stat().st_mode & _OTHERS)
