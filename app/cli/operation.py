"""Commands of whoever keeps the service running: `doctor`, `backup`, `restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.cli.common import Data, Host, Port, refuse, settings_from
from app.settings import Settings, wrong


def doctor(
    host: Host = None,
    port: Port = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")] = False,
    min_free_mb: Annotated[
        int, typer.Option("--min-free-mb", min=0, help="Free disk space below which the check fails.")
    ] = 500,
) -> None:
    """Check everything that the service needs.

    Names the next step for each problem, and changes nothing.

    Prints one line per check: ok, warn or fail, and the next step. The exit code is 1 if a check failed. It can run
    beside the service, and before its first start.
    """
    from app import doctor as doctors

    given = {name: value for name, value in (("data_dir", data), ("host", host), ("port", port)) if value is not None}
    findings = []
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
        examined = doctors.examine(doctors.Patient(settings, min_free_mb * 2**20))
    except (ValidationError, SettingsError) as error:
        nothing_else = "correct it; nothing else was looked at"
        examined = iter([doctors.fail("settings", sentence, nothing_else) for sentence in wrong(error)])
    for finding in examined:
        findings.append(finding)
        if not as_json:
            print(doctors.line(finding), flush=True)
    print(doctors.document(findings) if as_json else doctors.summary(findings))
    raise SystemExit(doctors.exit_code(findings))


def backup(
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="A new folder, or a new file that ends in .tar or .tar.gz.")
    ],
    data: Data = None,
    datasets: Annotated[bool, typer.Option("--datasets/--no-datasets", help="Whether to copy data sets too.")] = True,
) -> None:
    """Back up the embedded store while the service runs.

    The backup is a consistent snapshot of the database, and the data sets.

    TARGET is written atomically, with a checksum for each file. For Postgres use pg_dump.
    """
    from app.backup import BackupError, back_up

    settings = settings_from(data_dir=data)
    try:
        manifest = back_up(settings, target, datasets=datasets)
    except BackupError as error:
        refuse(str(error))
    size, count = sum(file.bytes for file in manifest.files.values()), len(manifest.files)
    files = "1 file" if count == 1 else f"{count} files"
    print(f"{target}: schema {manifest.schema_revision}, {files}, {size / 1e6:,.1f} MB")
    if settings.blobs is not None:
        print(f"Users' data sets are not in it: they are in {settings.blobs}, which is backed up by its own means.")


def restore(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder or file made by `backup`.")],
    data: Data = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a store that exists; it is kept in replaced-TIME.")
    ] = False,
) -> None:
    """Replace the embedded store by a backup. Stop the service first.

    Verifies every checksum before it changes anything, migrates an older backup to this version's schema, and refuses
    a newer one.
    """
    from app.backup import BackupError
    from app.backup import restore as put_back

    settings = settings_from(data_dir=data)
    try:
        done = put_back(settings, source, replace=replace)
    except BackupError as error:
        refuse(str(error))
    print(f"Restored {source}, made at {done.manifest.made_at}, into {settings.data_dir}.")
    if done.migrated_from is not None:
        print(f"Its schema was {done.migrated_from} and has been brought to this version's.")
    if done.kept is not None:
        print(f"What was there before is in {done.kept}; delete it when all is well.")
    if settings.redis_url is not None:
        print("Empty the Redis at REDIS_URL before you start the service: `redis-cli FLUSHDB`.")
