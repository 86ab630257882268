"""`gradsmith keys`: who may call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from gradsmith.cli import show
from gradsmith.cli.given import key_id
from gradsmith.cli.outcome import refuse, told
from gradsmith.cli.style import Commands

commands = Commands("keys", alone=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print what the API answers.")]
_SCOPES = ("read", "submit", "admin")


@commands.callback()
def keys(context: typer.Context, as_json: AsJson = False) -> None:
    """Make, list and revoke API keys of your workspace. Alone, it lists them.

    Each of these commands needs a key with the scope admin. The first is made on the server's machine:
    `gradsmith-server keys create --scope admin --name me`.
    """
    if context.invoked_subcommand is None:
        list_keys(as_json=as_json)
    elif as_json:
        refuse(f"--json belongs behind the command: `gradsmith keys {context.invoked_subcommand} --json`")


@commands.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for; tells you later which to revoke.")],
    scope: Annotated[
        str, typer.Option(metavar="SCOPE", help="read; submit, which includes read; admin, which includes both.")
    ] = "submit",
    days: Annotated[
        float | None, typer.Option(min=0.0, max=36500.0, help="How long it is valid.", show_default="for ever")
    ] = None,
    max_active_jobs: Annotated[
        int | None, typer.Option(min=1, help="Most queued and running jobs.", show_default="the server's")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, and print it once, alone, on standard output."""
    from gradsmith.cli.service import client

    if scope not in _SCOPES:
        refuse(f"--scope is read, submit or admin, not {scope!r}")
    ends = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with told(), client() as service:
        made = service.keys.create(name, scopes=(scope,), expires_at=ends, max_active_jobs=max_active_jobs)
        if as_json:
            return show.as_json(made.raw)
        typer.echo(made.token or "")
        until = "" if ends is None else f", valid until {ends:%Y-%m-%d %H:%M} UTC"
        typer.echo(f"Made key {made.id} ({made.name}), {scope}{until}. It is shown only now.", err=True)
        return None


@commands.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List keys, newest first, without their secrets."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        found = list(service.keys.list(limit=100))
        if as_json:
            return show.as_json([each.raw for each in found])
        rows = [
            (each.id, each.name, each.scopes[-1], each.status, show.age(each.last_used_at) or "never",
             f"{each.expires_at:%Y-%m-%d}" if each.expires_at else "")
            for each in found
        ]  # fmt: skip
        empty = "There are no keys; `gradsmith-server keys create` makes the first, on the server's machine."
        show.table(("key", "name", "scope", "status", "last used", "ends"), rows, empty=empty)
        return None


@commands.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its id, or the beginning or end of it; never the key.")],
    as_json: AsJson = False,
) -> None:
    """Revoke a key: it is refused within seconds, and its jobs run on."""
    from gradsmith.cli.service import client

    if key.startswith("gs_"):
        refuse("KEY is an id, key_...; what you gave is a key itself, which is now in your shell's history")
    with told(), client() as service:
        found = key_id(service, key)
        service.keys.revoke(found)
        show.as_json(service.keys.get(found).raw) if as_json else typer.echo(f"Revoked {found}.")
