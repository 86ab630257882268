"""`gradsmith families`: what can be trained on."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from gradsmith.cli import complete, show
from gradsmith.cli.given import settings
from gradsmith.cli.outcome import JOB_FAILED, refuse, told
from gradsmith.cli.style import Commands

commands = Commands("families", alone=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print what the API answers.")]
FamilyName = Annotated[
    str,
    typer.Argument(metavar="FAMILY", help="One of `gradsmith families`.", autocompletion=complete.families),
]


@commands.callback()
def families(context: typer.Context, as_json: AsJson = False) -> None:
    """List, show and declare families: what can be trained on. Alone, it lists them."""
    if context.invoked_subcommand is None:
        list_families(as_json=as_json)
    elif as_json:
        refuse(f"--json belongs behind the command: `gradsmith families {context.invoked_subcommand} --json`")


@commands.command("list")
def list_families(as_json: AsJson = False) -> None:
    """List families."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        page = service.families.list()
        if as_json:
            return show.as_json([each.raw for each in page])
        rows = [
            (each.name, each.title, str(each.tasks.get("kind", "")), f"{each.coordinates_per_task or 0:,}",
             "yours" if each.declared else "")
            for each in page
        ]  # fmt: skip
        names = ("family", "what it is", "kind", "coordinates", "declared")
        show.table(names, rows, empty="The server has no families.", spare=("kind",), right=("coordinates",))
        return None


@commands.command("show")
def show_family(name: FamilyName, as_json: AsJson = False) -> None:
    """Show a family: its tasks and its recipe."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        found = service.families.get(name)
        if as_json:
            return show.as_json(found.raw)
        show.say(f"{found.name}: {found.title}\n{found.description}")
        for title, values in (("tasks", found.tasks), ("recipe", found.recipe), ("evaluation", found.evaluation)):
            show.say(f"\n{title} (change with --set {title}.NAME=VALUE)")
            show.fields({f"  {name}": value for name, value in show.flat(values).items()})
        show.say(f"\n`gradsmith train {found.name}` trains on it.")
        return None


@commands.command()
def preview(
    name: FamilyName,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="A value of the training that is priced; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a training would need, and tuned Adam's curve.

    A worker times a few steps and tunes Adam. It takes seconds, and nothing is trained.
    """
    from gradsmith.cli import price
    from gradsmith.cli.live import watched
    from gradsmith.cli.service import client

    wanted = settings(set_ or [], ("tasks", "recipe", "evaluation", "resources"))
    with told(), client() as service:
        job = service.families.preview(name, **wanted).job
        ended = service.jobs.wait(job) if as_json else watched(service, job.id)
        if ended.status != "succeeded":
            refuse(f"job {ended.id} {ended.status}: {ended.status_reason}", JOB_FAILED)
        report = service.jobs.report(ended)
        show.as_json(report.raw) if as_json else price.previewed(report)


@commands.command()
def create(
    file: Annotated[typer.FileText, typer.Argument(help="JSON with name and tasks; - reads standard input.")],
    as_json: AsJson = False,
) -> None:
    """Declare a family of your own from a JSON file.

    docs/your-own-problem.md has examples.
    """
    from gradsmith.cli.service import client

    wanted = _object(file.read(), "standard input" if file is sys.stdin else file.name)
    with told(), client() as service:
        known = {"name", "tasks", "title", "description", "recipe", "evaluation"}
        unknown = sorted(wanted.keys() - known)
        if unknown or not {"name", "tasks"} <= wanted.keys():
            refuse(
                f"a family has name and tasks, and may have title, description, recipe and evaluation"
                f"{f'; {unknown[0]!r} is none of these' if unknown else ''}"
            )
        made = service.families.create(**wanted)
        show.as_json(made.raw) if as_json else typer.echo(
            f"{made.name}: {made.coordinates_per_task:,} coordinates. `gradsmith train {made.name}` trains on it."
        )


def _object(text: str, place: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        refuse(f"{place} is not JSON: {error}")
    return found if isinstance(found, dict) else refuse(f"{place} has no JSON object")
