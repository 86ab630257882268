"""The data folder, which only its owner may read: a store holds users' jobs and the hashes of their keys."""

from __future__ import annotations

import errno
import os
import shlex
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


def unusable(folder: Path, error: OSError) -> str:
    """Why a data folder cannot be written, as `error` says, and the next step. One sentence for people."""
    place = Path(os.fsdecode(error.filename)) if error.filename is not None else folder
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            found, advice = "its disk is full", "make room (old backups, `replaced-*` folders, logs/*.log.1)"
        case errno.EROFS:
            found, advice = f"{place} is on a file system that is mounted read-only", "mount it writable"
        case errno.EACCES | errno.EPERM:
            found = f"this user may not write {place}"
            advice = f"give the folder to the user that runs Gradsmith (`chown -R USER {shlex.quote(str(folder))}`)"
        case _:
            found, advice = f"{place}: {error.strerror or error}", "look at the disk"
    return f"the data folder {folder} cannot be used: {found}; {advice}, or choose another with --data"
