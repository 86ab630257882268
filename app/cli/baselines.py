"""`gradsmith-server baselines`: the stored runs of baselines, which evaluations share; works on the database itself."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli.common import Data, refuse, settings_from
from app.cli.database import database_of
from gradsmith.cli.style import Commands

baselines_commands = Commands(
    "baselines",
    "Count and drop runs of tuned baselines that evaluations keep for one another. It works on the database itself.",
)


@baselines_commands.command(name="list")
def list_(data: Data = None) -> None:
    """Count what is stored, by workspace and baseline."""
    from app.store import baseline_runs

    with database_of(settings_from(data_dir=data)) as database, database.read() as session:
        for workspace, baseline, runs, size in baseline_runs.counts(session):
            print(f"{workspace}  {baseline}  {runs} {'run' if runs == 1 else 'runs'}  {size:,} bytes")


@baselines_commands.command()
def forget(
    name: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Baselines, such as soap. Default: all.")
    ] = None,
    workspace: Annotated[
        str | None, typer.Option("--workspace", metavar="NAME", help="Of this workspace alone.", show_default="all")
    ] = None,
    data: Data = None,
) -> None:
    """Drop stored runs, so that the next evaluation computes them anew.

    Reports and optimizers stay as they are.
    """
    from app.store import baseline_runs
    from models.baselines import BASELINES

    if unknown := sorted(set(name or ()) - BASELINES.keys()):
        refuse(f"there is no baseline {unknown[0]!r}; there are {', '.join(BASELINES)}")
    with database_of(settings_from(data_dir=data)) as database, database.write() as session:
        dropped = baseline_runs.forget(session, tuple(name or ()), workspace)
    print(f"Forgot {dropped} {'run' if dropped == 1 else 'runs'}.", file=sys.stderr)
