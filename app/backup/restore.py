"""Putting a backup in the place of the embedded store.

Everything is unpacked, checked and migrated beside the store first; then one rename puts the database in place. What
stood there is kept in `replaced-<time>/`.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import URL

import migrations
from app import private
from app.backup.make import revision_of
from app.backup.manifest import (
    DATABASE,
    MANIFEST,
    BackupError,
    FileRecord,
    Manifest,
    copy,
    hash_of,
    parsed,
    synchronize,
    synchronize_folder,
)
from app.commands import command
from app.host.supervise import ServeError, only_one
from app.settings import Settings
from app.store.sqlite import file_of
from app.store.tables import SCHEMA_REVISION

Opener = Callable[[str], BinaryIO]


@dataclass(frozen=True)
class Restored:
    """`kept` is where what stood there before is now; `migrated_from` the backup's schema, if it was an older one."""

    manifest: Manifest
    kept: Path | None
    migrated_from: str | None


def restore(settings: Settings, source: Path, *, replace: bool = False) -> Restored:
    """Put the backup `source` in the place of the embedded store, for good or not at all.

    `replace` allows it where a store is already, which is kept. Raises BackupError; then nothing has changed.
    """
    place = file_of(settings.resolved_database_url)
    if place is None:
        raise BackupError(
            'the database is Postgres: put a dump back with `pg_restore --clean --if-exists --dbname="$DATABASE_URL"`, '
            f"then empty Redis (`redis-cli FLUSHDB`) and run {command('migrate')}"
        )
    data = settings.data_dir.resolve()
    try:
        with _reading(source) as (manifest, open_file):
            _refuse_newer(manifest, source)
            if place.exists() and not replace:
                raise BackupError(
                    f"there is a store already at {place}; --replace puts the backup there and keeps it aside"
                )
            with only_one(data), tempfile.TemporaryDirectory(dir=data, prefix=".restore-") as folder:
                _refuse_while_open(place)
                staged = Path(folder)
                for name, record in manifest.files.items():
                    _unpack(name, record, open_file, staged / name, source)
                _prepare(staged / DATABASE, manifest, source)
                kept = _exchange(settings, place, staged, manifest)
    except ServeError as error:
        raise BackupError(str(error)) from error
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        shown = getattr(error, "filename", None) or source
        raise BackupError(f"{shown} cannot be used: {getattr(error, 'strerror', None) or error}") from error
    older = manifest.schema_revision != SCHEMA_REVISION
    return Restored(manifest, kept, manifest.schema_revision if older else None)


@contextmanager
def _reading(source: Path) -> Iterator[tuple[Manifest, Opener]]:
    """The manifest, and how to open the files that it names."""
    if source.is_dir():
        if not (source / MANIFEST).is_file():
            raise BackupError(f"{source} is no backup: it has no {MANIFEST}")
        yield parsed((source / MANIFEST).read_bytes(), str(source)), lambda name: (source / name).open("rb")
        return
    if not source.is_file():
        raise BackupError(f"there is no backup at {source}")
    try:
        tar = tarfile.open(source)  # noqa: SIM115
    except tarfile.TarError as error:
        raise BackupError(f"{source} is no backup: it is neither a folder nor a tar file ({error})") from error
    with tar:

        def open_member(name: str) -> BinaryIO:
            try:
                found = tar.extractfile(name)
            except KeyError:
                found = None
            if found is None:  # a link or a folder of that name is no file either
                raise FileNotFoundError(errno.ENOENT, "it is not there", name)
            return found  # type: ignore[return-value]

        try:
            with open_member(MANIFEST) as stream:
                text = stream.read()
        except FileNotFoundError:
            raise BackupError(f"{source} is no backup: it has no {MANIFEST}") from None
        yield parsed(text, str(source)), open_member


def _refuse_newer(manifest: Manifest, source: Path) -> None:
    if manifest.schema_revision not in migrations.revisions():
        raise BackupError(
            f"the backup {source} has schema {manifest.schema_revision}, which this version ({SCHEMA_REVISION}) does "
            f"not know: it was made by Gradsmith {manifest.gradsmith}. Restore it with that version or a newer one"
        )


def _unpack(name: str, record: FileRecord, open_file: Opener, target: Path, source: Path) -> None:
    try:
        with open_file(name) as stream:
            found = copy(stream, target)
    except FileNotFoundError as error:
        raise BackupError(f"the backup {source} is not whole: {name} is missing; use another") from error
    if (found.bytes, found.sha256) != (record.bytes, record.sha256):
        raise BackupError(
            f"the backup {source} is damaged: {name} has {found.bytes} bytes and sha256 {found.sha256[:12]}..., and "
            f"had {record.bytes} and {record.sha256[:12]}... when it was made; use another"
        )


def _prepare(staged: Path, manifest: Manifest, source: Path) -> None:
    """Check the database and bring it to this version's schema."""
    try:
        with closing(sqlite3.connect(staged)) as found:
            said = found.execute("PRAGMA quick_check(1)").fetchone()[0]
            revision = revision_of(found, source)
    except sqlite3.Error as error:
        raise BackupError(f"the database in {source} cannot be read: {error}; use another backup") from error
    if said != "ok" or revision != manifest.schema_revision:
        raise BackupError(f"the database in {source} is not what its {MANIFEST} says ({said}, schema {revision})")
    migrations.upgrade(URL.create("sqlite", database=str(staged)))
    with closing(sqlite3.connect(staged)) as found:  # one file again, with nothing beside it
        found.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        found.execute("PRAGMA journal_mode = DELETE")
    staged.chmod(0o600)


def _refuse_while_open(place: Path, *, into_one_file: bool = False) -> None:
    """An API or a worker that was started by hand holds no lock on the folder, but each holds one on the database.

    `into_one_file` also ends its log, for nothing of the old database may lie beside the new one.
    """
    if not place.exists():
        return
    try:
        with closing(sqlite3.connect(place, timeout=0, isolation_level=None)) as found:
            found.execute("PRAGMA locking_mode = EXCLUSIVE")
            found.execute("BEGIN EXCLUSIVE")
            found.execute("ROLLBACK")
            if into_one_file:
                found.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                found.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise BackupError(
                f"the database {place} is in use: stop every API and worker (and `sqlite3`) on it first"
            ) from error
    except sqlite3.DatabaseError:
        pass  # damaged: a reason to restore


def _exchange(settings: Settings, place: Path, staged: Path, manifest: Manifest) -> Path | None:
    _refuse_while_open(place, into_one_file=True)
    data = settings.data_dir.resolve()
    kept = data / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for name in manifest.files:
        if name != DATABASE:
            target = data / name
            if target.exists():
                if hash_of(target) == hash_of(staged / name):
                    continue
                _move(target, kept / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            (staged / name).replace(target)
    if (data / "valkey").exists() and settings.redis_url is None:
        # Its streams are of attempts that the restored database does not know: workers would take them for a newer
        # holder of their job, and leave it.
        _move(data / "valkey", kept / "valkey")
    if place.exists():
        kept.mkdir(exist_ok=True)
        _link(place, kept / place.name)  # there is a database at every moment
        for rest in ("-wal", "-shm"):
            beside = place.with_name(place.name + rest)
            if beside.exists():
                _move(beside, kept / beside.name)
    private.make_folder(place.parent)
    _put(staged / DATABASE, place)
    synchronize_folder(place.parent)
    return kept if kept.exists() else None


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _put(staged: Path, place: Path) -> None:
    """One rename, also onto another file system."""
    try:
        staged.replace(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = place.with_name(f".{place.name}.restoring")
        beside.unlink(missing_ok=True)
        with staged.open("rb") as stream:
            copy(stream, beside)
        beside.chmod(0o600)
        beside.replace(place)
    with place.open("rb") as stream:
        synchronize(stream.fileno())
