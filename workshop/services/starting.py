"""What every server that is started for a test or a measurement has in common."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

START_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1


class NoServer(Exception):
    """This machine has no such server; the message says what would bring one."""


def dies_with_caller(signum: int) -> Callable[[], None]:
    """A `preexec_fn`: the kernel sends `signum` when the thread that started the server ends. It is run after the
    change of user, which would clear it."""
    parent = os.getpid()

    def prepare() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return prepare


def short_folder(*, for_everyone: bool) -> Path:
    """A temporary folder whose path leaves room for a socket's name (108 bytes) and, for a server that runs as
    another user, through whose parents that user may pass."""
    for base in (tempfile.gettempdir(), "/tmp", "/dev/shm"):
        path = Path(base)
        reachable = not for_everyone or all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents))
        if path.is_dir() and len(base) < 60 and reachable:
            return Path(tempfile.mkdtemp(prefix="gs-", dir=base))
    raise NoServer("no temporary folder has a short path that other users may pass through")
