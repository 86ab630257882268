"""`gradsmith data`: tables of your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradsmith.cli import complete, show
from gradsmith.cli.given import meant
from gradsmith.cli.outcome import refuse, told
from gradsmith.cli.style import Commands

if TYPE_CHECKING:
    from gradsmith.types import Dataset

commands = Commands("data", alone=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print what the API answers.")]
DatasetName = Annotated[
    str, typer.Argument(metavar="NAME", help="One of `gradsmith data`.", autocompletion=complete.datasets)
]


@commands.callback()
def data(context: typer.Context, as_json: AsJson = False) -> None:
    """Add, list, show and delete tables of your own. Alone, it lists them."""
    if context.invoked_subcommand is None:
        list_data(as_json=as_json)
    elif as_json:
        refuse(f"--json belongs behind the command: `gradsmith data {context.invoked_subcommand} --json`")


@commands.command()
def add(
    file: Annotated[Path, typer.Argument(help="CSV with a line of names, npz, safetensors or Parquet.")],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the file's, without its ending.")] = None,
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column that is predicted.")] = None,
    group: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column that says which rows belong to which task.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="COLUMN", help="A column that a model sees; repeatable. Default: all numbers."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring a file: it is checked, and kept whole or not at all."""
    from gradsmith.cli.service import client
    from gradsmith.parquet import as_sendable

    with told(), client() as service:
        called = name or file.stem.lower()
        try:
            with as_sendable(file) as sent:
                made = service.datasets.create(sent, name=called, target=target, group=group, inputs=inputs or ())
        except OSError as error:
            refuse(f"{file} cannot be read: {error.strerror or error}")
        except ValueError as error:
            refuse(str(error))
        show.as_json(made.raw) if as_json else typer.echo(_in_words(made))


@commands.command("list")
def list_data(as_json: AsJson = False) -> None:
    """List data sets."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        page = service.datasets.list()
        if as_json:
            return show.as_json([each.raw for each in page])
        rows = [
            (each.name, each.format, f"{each.rows:,}", f"{len(each.inputs)}", each.target or "", each.group or "",
             f"{each.groups['count']:,}" if each.groups else "")
            for each in page
        ]  # fmt: skip
        names = ("data set", "format", "rows", "inputs", "target", "group", "groups")
        show.table(names, rows, empty="You have no data sets; `gradsmith data add FILE` brings one.")
        return None


@commands.command("show")
def show_data(name: DatasetName, as_json: AsJson = False) -> None:
    """Show a data set: its columns, classes and groups."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        with meant(name, lambda: (each.name for each in service.datasets.list())):
            found = service.datasets.get(name)
        if as_json:
            return show.as_json(found.raw)
        typer.echo(_in_words(found))
        rows = [
            (each["name"], _role(found, each["name"]), each["type"], *(_number(each[key]) for key in _NUMBERS),
             ", ".join(each["examples"][:3]))
            for each in found.columns
        ]  # fmt: skip
        show.table(("column", "role", "type", *_NUMBERS, "such as"), rows, empty="It has no columns.")
        return None


@commands.command()
def delete(name: DatasetName, as_json: AsJson = False) -> None:
    """Delete a data set that no family is made of."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        with meant(name, lambda: (each.name for each in service.datasets.list())):
            service.datasets.delete(name)
        show.as_json({"deleted": name}) if as_json else typer.echo(f"Deleted {name}.")


_NUMBERS = ("missing", "low", "high", "mean", "distinct")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.6g}"


def _role(found: Dataset, column: str) -> str:
    if column in found.inputs:
        return "input"
    return "target" if column == found.target else "group" if column == found.group else ""


def _in_words(found: Dataset) -> str:
    words = [f"{found.name}: {found.rows:,} rows, {len(found.inputs)} inputs"]
    if found.target is not None:
        classes = f" ({len(found.classes)} values)" if found.classes else ""
        words.append(f"target {found.target}{classes}")
    if found.groups is not None:
        small = f", {found.groups['too_small']} of them too small" if found.groups["too_small"] else ""
        words.append(f"{found.groups['count']:,} groups by {found.group}{small}")
    return ", ".join(words)
