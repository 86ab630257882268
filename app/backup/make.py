"""Making a backup beside a running service."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from app.backup.manifest import (
    DATABASE,
    DATASETS,
    FORMAT,
    MANIFEST,
    BackupError,
    FileRecord,
    Manifest,
    copy,
    hash_of,
    synchronize_folder,
)
from app.commands import command
from app.settings import Settings
from app.store.sqlite import file_of
from app.version import VERSION

BUSY_SECONDS = 30.0
SPARE_BYTES = 50 * 2**20
TAR_NAMES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz"}
# Names that promise a file of another kind; what else has a dot in it, such as a date, is a folder.
FILE_ENDINGS = (".zip", ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst", ".tbz2", ".txz", ".db", ".sqlite", ".sql", ".dump")
_POSTGRES = (
    "the database is Postgres, which has tools of its own: `pg_dump --format=custom --file=gradsmith.dump "
    '"$DATABASE_URL"`, and `pg_restore` to put it back; data sets are in {datasets}'
)


def back_up(settings: Settings, target: Path, *, datasets: bool = True) -> Manifest:
    """Write the embedded store to the new folder `target`, or to a file where it ends in .tar, .tar.gz or .tgz. Another
    file's ending, such as .zip, is refused.

    The service may run: the copy is of one moment, and nobody waits for it. Raises BackupError; then there is no
    `target`, whole or half.
    """
    database = file_of(settings.resolved_database_url)
    sets = settings.data_dir.resolve() / DATASETS
    if database is None:
        raise BackupError(_POSTGRES.format(datasets=sets))
    target = target.resolve()
    ending = next((suffix for suffix in FILE_ENDINGS if target.name.lower().endswith(suffix)), None)
    if ending is not None and tar_mode(target) is None:
        raise BackupError(
            f"{target} would be a file by its name, and {ending} is none that this command writes: end it in .tar or "
            ".tar.gz; a name without such an ending makes a folder"
        )
    if not database.is_file():
        raise BackupError(f"there is no database at {database}; name the service's data folder with --data")
    if target.exists():
        raise BackupError(f"{target} exists already and is not overwritten; name another")
    if target.is_relative_to(sets):
        raise BackupError(f"{target} is among the data sets that it would hold; name a place outside {sets}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _refuse_without_room(target, database, sets if datasets else None)
        with _partial(target) as work:
            revision = _copy_database(database, work / DATABASE)
            files = {DATABASE: FileRecord.model_validate(vars(hash_of(work / DATABASE)))}
            if datasets:
                files |= _copy_sets(sets, work / DATASETS)
            manifest = Manifest(
                format=FORMAT,
                made_at=datetime.now(UTC).isoformat(timespec="seconds"),
                gradsmith=VERSION,
                schema_revision=revision,
                files=files,
            )
            with (work / MANIFEST).open("xb") as out:
                out.write(manifest.text().encode())
            _publish(work, target)
    except OSError as error:
        place = error.filename or target
        raise BackupError(
            f"{place} cannot be used: {error.strerror or error}; name another place, or make room"
        ) from error
    return manifest


def tar_mode(target: Path) -> str | None:
    """How a tar file of that name is written; None for a folder."""
    return next((mode for ending, mode in TAR_NAMES.items() if target.name.lower().endswith(ending)), None)


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A folder beside `target`, hidden, for its owner alone; gone at the end."""
    work = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
    work.mkdir(mode=0o700)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _refuse_without_room(target: Path, database: Path, sets: Path | None) -> None:
    needed = sum(
        path.stat().st_size for path in (database, database.with_name(database.name + "-wal")) if path.exists()
    )
    needed += sum(path.stat().st_size for path in _files(sets)) if sets else 0
    if tar_mode(target) is not None:
        needed *= 2  # the copy, and the file that it is packed into
    free = shutil.disk_usage(target.parent).free
    if free < needed + SPARE_BYTES:
        raise BackupError(
            f"the backup needs about {needed / 2**20:,.0f} MiB and {target.parent} has {free / 2**20:,.0f} free; "
            "make room, or name another place"
        )


def _copy_database(source: Path, target: Path) -> str:
    """All of it as it is at one moment, in one file; gives its schema's revision."""
    try:
        # mode=rw: a file that is gone meanwhile is not made anew
        with closing(sqlite3.connect(f"file:{quote(str(source))}?mode=rw", uri=True, timeout=BUSY_SECONDS)) as found:
            revision = revision_of(found, source)
            with closing(sqlite3.connect(target)) as copied:
                found.backup(copied)  # one step: a reader's snapshot, which no writer disturbs or waits for
                copied.execute("PRAGMA journal_mode = DELETE")
                said = copied.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise BackupError(f"the database {source} cannot be read: {error}; {command('doctor')} says more") from error
    if said != "ok":
        raise BackupError(f"the database {source} is damaged ({said}): a copy would be too. Restore an older backup")
    with target.open("rb") as stream:
        os.fsync(stream.fileno())
    target.chmod(0o600)
    return revision


def revision_of(connection: sqlite3.Connection, shown: Path) -> str:
    """Raises BackupError when it is no database of ours, sqlite3.Error when it is none at all."""
    tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'").fetchone()[0]
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if tables else None
    if row is None:
        raise BackupError(f"the database {shown} is empty: nothing has been migrated there. Is it the right --data?")
    return str(row[0])


def _files(folder: Path) -> list[Path]:
    """Whole data sets only: a download or import that is under way has a hidden name."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _copy_sets(folder: Path, target: Path) -> dict[str, FileRecord]:
    records = {}
    for path in _files(folder):
        name = path.relative_to(folder)
        with path.open("rb") as stream:
            copied = copy(stream, target / name)
        records[f"{DATASETS}/{name.as_posix()}"] = FileRecord.model_validate(vars(copied))
    return records


def _publish(work: Path, target: Path) -> None:
    mode = tar_mode(target)
    if mode is None:
        work.rename(target)
    else:
        packed = work / "packed"
        with tarfile.open(packed, mode) as tar:  # type: ignore[call-overload]
            # the manifest first: whoever reads knows at once what follows
            for name in (MANIFEST, DATABASE, DATASETS):
                if (work / name).exists():
                    tar.add(work / name, arcname=name, filter=_anonymous)
        packed.chmod(0o600)
        with packed.open("rb") as stream:
            os.fsync(stream.fileno())
        # not replace: who made it meanwhile keeps theirs
        os.link(packed, target)
    synchronize_folder(target.parent)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
