"""`gradsmith-server keys`: make, list and revoke API keys on the server's machine, in every workspace."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from app.cli.common import Data, refuse, settings_from
from app.cli.database import database_of
from app.commands import command
from gradsmith.cli.style import Commands

keys_commands = Commands(
    "keys", "Make, list and revoke API keys. It works on the database itself and needs no running server."
)

_WORKSPACE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class ScopeName(StrEnum):
    read = "read"
    submit = "submit"
    admin = "admin"


@keys_commands.command()
def create(
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="What the key is for; tells you later which to revoke.")
    ],
    scope: Annotated[
        ScopeName, typer.Option("--scope", help="read; submit, which includes read; admin, which includes both.")
    ] = ScopeName.submit,
    workspace: Annotated[
        str,
        typer.Option(
            "--workspace", metavar="NAME", help="Workspace that the key belongs to; created if it does not exist."
        ),
    ] = "default",
    days: Annotated[
        float | None,
        typer.Option("--days", min=0.0, max=36500.0, help="How long the key is valid.", show_default="for ever"),
    ] = None,
    max_active_jobs: Annotated[
        int | None,
        typer.Option(
            "--max-active-jobs", min=1, max=1_000_000, help="Most queued and running jobs.", show_default="the server's"
        ),
    ] = None,
    data: Data = None,
) -> None:
    """Make a key and print it once, alone, on standard output.

    The database keeps only its SHA-256. A new data folder gets its database here, so the first key can be made before
    the first start.
    """
    from app.auth.issue import issue

    if not 1 <= len(name) <= 128 or not name.isprintable():
        refuse(f"--name has {len(name)} characters; use 1 to 128 that can be printed")
    if _WORKSPACE.fullmatch(workspace) is None:
        refuse(f"--workspace {workspace!r}: use up to 64 of a-z, 0-9, - and _, the first a letter or digit")
    if days == 0:
        refuse("--days 0: the key would have expired before anyone has it; leave it out for a key without an end")
    ends = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with database_of(settings_from(data_dir=data), make=True) as database, database.write() as session:
        row, token = issue(
            session, name=name, scopes=[scope.value], workspace=workspace, expires_at=ends,
            max_active_jobs=max_active_jobs,
        )  # fmt: skip
        shown = f"{row.id} ({row.name}), workspace {row.workspace}, scopes {', '.join(row.scopes)}"
    print(token, flush=True)
    until = "" if ends is None else f", valid until {ends:%Y-%m-%d %H:%M} UTC"
    print(f"Made key {shown}{until}. The line above is the key: it is shown only now.", file=sys.stderr)


@keys_commands.command(name="list")
def list_(data: Data = None) -> None:
    """List the keys of every workspace, without their secrets."""
    from app.store import keys

    settings = settings_from(data_dir=data)
    with database_of(settings) as database, database.read() as session:
        rows = keys.every(session)
    table = [("ID", "WORKSPACE", "SCOPE", "STATUS", "LAST USED", "NAME")]
    for row in rows:
        used = "never" if row.last_used_at is None else f"{row.last_used_at:%Y-%m-%d %H:%M}"
        table.append((row.id, row.workspace, row.scopes[-1], keys.status_of(row), used, row.name))
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if not rows:
        made_by = command("keys create --scope admin --name me", settings)
        print(f"No key has been made yet: {made_by}.", file=sys.stderr)


@keys_commands.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, key_...; never the key itself.")],
    data: Data = None,
) -> None:
    """Revoke a key, even the last one.

    Running servers refuse it after a few seconds.
    """
    from app.store import keys
    from app.store.ids import is_id

    settings = settings_from(data_dir=data)
    listed_by = command("keys list", settings)
    if not is_id("key", key_id):
        # What was given may be a key: it is in the shell's history now, but need not be on the screen.
        refuse(f"ID must be key_ and 32 hexadecimal digits; {listed_by} shows them")
    with database_of(settings) as database, database.write() as session:
        row = keys.find(session, key_id)
        if row is None:
            refuse(f"there is no key {key_id}; {listed_by} shows those that exist")
        keys.KeyRepository(session, row.workspace).revoke(key_id, even_the_last=True)
        left = keys.any_usable(session)
        shown = f"{row.id} ({row.name})"
    print(f"Revoked {shown}.", file=sys.stderr)
    if not left:
        print("No key is left: a server that needs keys will not start until there is one.", file=sys.stderr)
