"""`gradsmith-server data`: data sets that families use, and tables of one's own without HTTP."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import Data, become, existing_file, refuse, settings_from
from app.settings import Settings

_DATA_SETS = "models.tasks.data"

data_commands = typer.Typer(
    name="data",
    help="Data sets that families use, and tables of your own; alone, it lists the data sets.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@dataclass(frozen=True)
class Table:
    """A file, and what it is to be."""

    name: str
    file: Path
    target: str | None
    group: str | None
    inputs: Sequence[str]
    workspace: str


@data_commands.callback()
def data(context: typer.Context, data: Data = None) -> None:
    """Data sets that families use, and tables of your own; alone, it lists the data sets."""
    context.obj = data
    if context.invoked_subcommand is None:
        become(_DATA_SETS, data=data)


@data_commands.command("list")
def list_(context: typer.Context, data: Data = None) -> None:
    """List data sets, and say which are here."""
    become(_DATA_SETS, "list", data=data or context.obj)


@data_commands.command()
def fetch(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="One of `data list` that can be downloaded, such as mnist.")],
    data: Data = None,
) -> None:
    """Download a data set, and check it."""
    become(_DATA_SETS, "fetch", name, data=data or context.obj)


@data_commands.command("import")
def import_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A data set of `data list`, or the name of a table of your own.")],
    path: Annotated[Path, typer.Argument(help="Folder of the data set, or the table: CSV, npz or safetensors.")],
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column that is predicted.")] = None,
    group: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column that says which rows belong to which task.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="COLUMN", help="A column that a model sees. Default: all other numbers."),
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(help="Workspace of the table.", show_default="that of a server without keys")
    ] = None,
    data: Data = None,
) -> None:
    """Copy a data set from a folder, checked, or bring a table of your own.

    A table is kept as POST /datasets keeps it. Exits with 1 where the file cannot be used, with 2 where it cannot be
    kept.
    """
    from app.store.families import FAMILY_NAME_PATTERN
    from app.store.tables import DEFAULT_WORKSPACE
    from models.families import DATASETS

    data = data or context.obj
    if name in DATASETS:
        become(_DATA_SETS, "import", name, str(path), data=data)
    if not re.fullmatch(FAMILY_NAME_PATTERN, name):
        refuse(f"{name!r} is no name: a letter, then letters, digits, - and _, 64 at most, all lower case")
    settings = settings_from(data_dir=data)
    existing_file(settings)
    _bring(settings, Table(name, path, target, group, inputs or (), workspace or DEFAULT_WORKSPACE))


def _bring(settings: Settings, chosen: Table) -> None:
    from app.store import datasets as store
    from app.store.errors import StoreError
    from app.store.sessions import Database
    from models.datasets.blobs import blobs_of
    from models.datasets.inspection import inspected
    from models.datasets.source import Limits
    from models.errors import BlobsUnavailable, DatasetRefused

    limits = Limits(settings.dataset_rows, settings.dataset_columns, settings.dataset_unpacked_bytes)
    blobs = blobs_of(settings.data_dir)
    try:
        with (
            Database(settings.resolved_database_url) as database,
            chosen.file.open("rb") as stream,
            blobs.arriving() as arrival,
        ):
            while part := stream.read(1 << 20):
                arrival.write(part)
            arrival.flush()
            found = inspected(
                arrival.path, called=str(chosen.file), inputs=chosen.inputs, target=chosen.target, group=chosen.group,
                limits=limits,
            )  # fmt: skip
            store.keep(database, blobs, arrival, found, chosen.name, chosen.workspace)
    except DatasetRefused as error:
        print(f"gradsmith-server: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except (StoreError, BlobsUnavailable) as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{error.filename or chosen.file}: {error.strerror or error}")
    print(f"{chosen.name} has {found.rows:,} rows and {len(found.inputs)} inputs.")
