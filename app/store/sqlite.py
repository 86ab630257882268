"""What SQLite needs beside the settings of a connection."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from sqlalchemy.engine import URL, make_url


def file_of(url: str | URL) -> Path | None:
    """The file of a SQLite URL; None for another database, for one in memory, and for a `file:` URI."""
    parsed = make_url(url)
    if (
        parsed.get_backend_name() != "sqlite"
        or not parsed.database
        or parsed.database.startswith((":memory:", "file:"))
    ):
        return None
    return Path(parsed.database).resolve()


def missing_file(url: str | URL) -> Path | None:
    """The file of a SQLite URL where it is not there: SQLite would make it, empty. None where there is something to
    open, and where that cannot be seen: opening it says why."""
    path = file_of(url)
    try:
        if path is not None:
            path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except OSError:
        pass
    return None


def write_ahead_log(connection: sqlite3.Connection, seconds: float) -> None:
    """Put the database into WAL mode, waiting up to `seconds` for others. It is no change when it is in it already.

    The switch needs the database for itself, and SQLite's busy timeout does not hold for it: where two processes open
    a new database at once, the second is told "database is locked" at once. Raises that error when the time is up.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError as error:
            # The primary code is the low byte; the extended ones tell recovery, snapshot and timeout apart.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return
