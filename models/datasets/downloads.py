"""The data sets of the families here: whether they are in the data folder, and how a download of one stands.

A download is a process of its own (`python -m models.datasets.downloads NAME`): it
holds a lock for as long as it lives and writes how far it is beside the data, so every API process can tell.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from models.errors import DownloadFailed, ModelsError
from models.tasks.data import DataSet, known, write_atomically

NOTED_SECONDS = 0.5  # between two notes of how far a download is
_LOCKED_WITHIN_SECONDS = 2.0  # whoever looks holds the lock for microseconds


@dataclass(frozen=True)
class Download:
    """How the newest download of a data set stands.

    status: `interrupted` when its process ended without a word
    file: what it receives now, and how many bytes of how many (None: unknown)
    error: why it failed
    """

    status: Literal["running", "failed", "interrupted"]
    file: str | None = None
    received_bytes: int = 0
    total_bytes: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class State:
    """A data set of some family here.

    ready: whether its files are in the data folder; the job that uses them checks what is in them
    fetchable: whether `begin` can download it; others are imported from a folder
    alternative: whether it is another form of a data set, which nobody misses
    """

    name: str
    ready: bool
    fetchable: bool
    alternative: bool
    download: Download | None


def states(data_dir: Path) -> list[State]:
    """All of them, in the order of the families."""
    return [_state(one, data_dir) for one in known().values()]


def state(name: str, data_dir: Path) -> State:
    """Raises KeyError."""
    return _state(known()[name], data_dir)


def _state(one: DataSet, data_dir: Path) -> State:
    ready = one.ready(data_dir)
    fetchable = one.fetch is not None
    return State(one.name, ready, fetchable, one.alternative, None if ready else _download(one.name, data_dir))


def _download(name: str, data_dir: Path) -> Download | None:
    lock, note = _places(name, data_dir)
    try:
        found = Download(**json.loads(note.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    if found.status != "running":
        return found
    with contextlib.suppress(OSError), lock.open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return found
    return Download("interrupted", found.file, found.received_bytes, found.total_bytes)


def begin(name: str, data_dir: Path) -> subprocess.Popen[str]:
    """Start a download in a process of its own. It has noted that it runs, or another one does, when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, name],
        env={**os.environ, "GRADSMITH_DATA_DIR": str(data_dir.resolve())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


def carry_out(one: DataSet, data_dir: Path, begun: Callable[[], None] = lambda: None) -> bool:
    """Download a data set and note how that goes. False where it failed, or where another process is at it.

    begun: called as soon as it is noted that this, or another, download runs
    """
    assert one.fetch is not None
    lock, note = _places(one.name, data_dir)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with _held(lock) as mine:
        if not mine:
            begun()
            return False

        def tell(download: Download) -> None:
            write_atomically(note, json.dumps(vars(download)).encode())

        noted = -NOTED_SECONDS

        def progress(file: str, received: int, total: int | None) -> None:
            nonlocal noted
            if time.monotonic() - noted >= NOTED_SECONDS:
                noted = time.monotonic()
                tell(Download("running", file, received, total))

        tell(Download("running"))
        begun()
        try:
            one.fetch(data_dir, progress)
        except (ModelsError, OSError) as error:
            said = "; ".join(error.reasons) if isinstance(error, DownloadFailed) else str(error)
            # callers of the API learn no folders
            tell(Download("failed", error=said.replace(str(data_dir.resolve()), "<data folder>")))
            return False
        note.unlink()
    return True


@contextlib.contextmanager
def _held(lock: Path) -> Iterator[bool]:
    with lock.open("ab") as file:
        until = time.monotonic() + _LOCKED_WITHIN_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    yield False
                    return
                time.sleep(0.02)
                continue
            yield True
            return


def _places(name: str, data_dir: Path) -> tuple[Path, Path]:
    """The lock of a download, and its note. Both are hidden: backups and `check` pass over them."""
    folder = data_dir / "datasets"
    return folder / f".{name}.lock", folder / f".{name}.json"


def main() -> int:
    """The exit status is 1 where the download failed."""
    data_dir = Path(os.environ["GRADSMITH_DATA_DIR"])
    return 0 if carry_out(known()[sys.argv[1]], data_dir, partial(print, "begun", flush=True)) else 1


if __name__ == "__main__":
    sys.exit(main())
