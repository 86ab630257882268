"""`gradsmith optimizers`: the registry."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradsmith.cli import complete, show
from gradsmith.cli.given import meant, nothing_of, optimizer_named, optimizer_names
from gradsmith.cli.outcome import refuse, told
from gradsmith.cli.style import Commands
from gradsmith.own_tasks import is_own, own_evaluation, tasks_of

if TYPE_CHECKING:
    from gradsmith.types import Optimizer

commands = Commands("optimizers", alone=True)

Reference = Annotated[
    str,
    typer.Argument(
        metavar="OPTIMIZER",
        help="FAMILY@best, FAMILY@latest, FAMILY@VERSION, FAMILY@ALIAS, an id, its beginning or end, or @last.",
        autocompletion=complete.optimizers,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the API answers.")]


@commands.callback()
def optimizers(context: typer.Context, as_json: AsJson = False) -> None:
    """List, show, fetch and name trained optimizers. Alone, it lists them."""
    if context.invoked_subcommand is None:
        list_optimizers(as_json=as_json)
    elif as_json:
        refuse(f"--json belongs behind the command: `gradsmith optimizers {context.invoked_subcommand} --json`")


@commands.command("list")
def list_optimizers(
    family: Annotated[str | None, typer.Option(metavar="FAMILY", help="Of this family only.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    archived: Annotated[bool, typer.Option("--archived", help="Also those that were archived.")] = False,
    as_json: AsJson = False,
) -> None:
    """List optimizers, newest first."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        asked = service.optimizers.list(family=family, archived=archived, limit=min(limit, 100))
        found = list(itertools.islice(asked, limit))
        if as_json:
            return show.as_json([each.raw for each in found])
        rows = [
            (
                each.reference,
                ", ".join(each.aliases),
                f"{_kind(each)}, archived" if each.archived else _kind(each),
                show.number(each.validation_score),
                ", ".join(_own(each).get("verdict", {}).values()),
                show.age(each.created_at),
            )
            for each in found
        ]
        nothing = "No optimizers yet. `gradsmith train FAMILY --follow` makes one."
        if family is not None and not found:
            nothing = nothing_of(service, family, "optimizer")
        show.table(
            ("optimizer", "aliases", "what", "validation", "end, curve", "age"),
            rows,
            spare=("what",),
            right=("validation", "age"),
            empty=nothing,
        )
        return None


@commands.command("show")
def show_optimizer(optimizer: Reference, as_json: AsJson = False) -> None:
    """Show an optimizer: score, verdicts, and how to use it."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        with meant(optimizer, lambda: optimizer_names(service, optimizer)):
            found = service.optimizers.get(optimizer_named(service, optimizer))
        if as_json:
            return show.as_json(found.raw)
        lines = {
            "optimizer": found.reference,
            "what": _what(found),
            "id": found.id,
            "description": found.description,
            "uploaded": _source(found),
            "archived": "yes" if found.archived else "",
            "aliases": ", ".join(found.aliases),
            "validation": show.number(found.validation_score),
            "changed": ", ".join(f"{name} {value}" for name, value in found.overrides.items()),
            "job": found.job or "",
            "size": f"{found.size_bytes:,} bytes" if found.size_bytes else "",
            "sha256": found.sha256,
            "labels": ", ".join(f"{name}={value}" for name, value in found.tags.items()),
            "age": show.age(found.created_at),
        }
        for number, each in enumerate(found.evaluations):
            verdict = ", ".join(f"{words} {name}" for name, words in each.get("verdict", {}).items())
            other = "" if is_own(each, found.family, found.overrides) else f" on {tasks_of(each)}"
            lines[f"evaluation {number + 1}{other}"] = f"{verdict} ({each.get('job', '')})"
        show.fields({name: value for name, value in lines.items() if value})
        if found.answer:
            show.paragraph(found.answer)
        steps = ", steps=N" if found.tuned or found.stands_for else ""
        typer.echo(f"\ngradsmith.LearnedOptimizer(model.parameters(), {found.reference!r}{steps})")
        if steps:
            show.say("N is the number of steps that your run takes.")
        return None


def _own(found: Optimizer) -> Mapping[str, Any]:
    """What counts of its evaluations on its own tasks, if it has one."""
    return own_evaluation(found.evaluations, found.family, found.overrides) or {}


def _kind(found: Optimizer) -> str:
    if found.uploaded is not None:
        return "uploaded"
    return "tuned baseline" if found.tuned else "learned schedule" if found.stands_for else "learned"


def _source(found: Optimizer) -> str:
    """From what and by whom an optimizer was brought."""
    if found.uploaded is None:
        return ""
    words = [f"from {found.uploaded['source']}" if found.uploaded.get("source") else ""]
    words.append(f"by {found.uploaded['by']}" if found.uploaded.get("by") else "")
    return " ".join(filter(None, words)) or "yes"


def _what(found: Optimizer) -> str:
    if found.tuned:
        own = found.card.get("tuned", {})
        which = f"{own['baseline']} at {show.number(own['learning_rate'])}, {own['schedule']}: " if own else ""
        return f"{which}a tuned baseline, which is not learned"
    return "learned" if found.stands_for is None else f"a learned schedule, as good as {found.stands_for}"


@commands.command()
def pull(
    optimizer: Reference,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: its name, here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where the file is, and its size.")] = False,
) -> None:
    """Fetch the weights into a file.

    They are checked against their SHA-256.
    """
    from gradsmith.cli.service import client

    with told(), client() as service:
        place = output or Path(optimizer.replace("/", "_") + ".safetensors")
        if not place.parent.is_dir():
            refuse(f"there is no folder {place.parent} for {place.name}; make it, or choose another with --output")
        with meant(optimizer, lambda: optimizer_names(service, optimizer)):
            written = service.optimizers.pull(optimizer_named(service, optimizer), place)
        size = written.stat().st_size
        if as_json:
            return show.as_json({"path": str(written), "size_bytes": size})
        typer.echo(f"{written} ({size:,} bytes)")
        return None


@commands.command()
def alias(
    name: Annotated[str, typer.Argument(metavar="FAMILY@ALIAS", help="The name to make or to move.")],
    optimizer: Reference,
    as_json: AsJson = False,
) -> None:
    """Make a name of yours for an optimizer, or move it."""
    from gradsmith.cli.service import client
    from gradsmith.errors import NotFound

    family, separator, short = name.partition("@")
    if not separator or not family or not short:
        refuse(f"an alias is FAMILY@ALIAS, such as quadratic@prod, not {name!r}")
    with told(), client() as service:
        try:
            seen = service.aliases.get(family, short)
        except NotFound:
            seen = None
        aliases = service.aliases
        optimizer = optimizer_named(service, optimizer)
        moved = aliases.create(family, short, optimizer) if seen is None else aliases.move(seen, optimizer)
        if as_json:
            return show.as_json(moved.raw)
        before = "" if seen is None else f", before {family}@{seen.version}"
        typer.echo(f"{moved.reference} is {family}@{moved.version}{before}")
        return None


@commands.command()
def upload(
    file: Annotated[Path, typer.Argument(help="A weights file, such as `gradsmith optimizers pull` writes.")],
    family: Annotated[str | None, typer.Option(metavar="FAMILY", help="Default: the one that the file names.")] = None,
    source: Annotated[str | None, typer.Option(help="Where it comes from. Default: the file's name.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is, in your words.")] = None,
    as_json: AsJson = False,
) -> None:
    """Bring an optimizer from another server, or one that was trained elsewhere."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        try:
            made = service.optimizers.upload(file, family=family, source=source, description=description)
        except OSError as error:
            refuse(f"{file} cannot be read: {error.strerror or error}")
        if as_json:
            return show.as_json(made.raw)
        typer.echo(f"{made.reference} ({made.id})")
        if made.validation_score is None:
            typer.echo(f"`gradsmith evaluate {made.reference}` measures it, so that {made.family}@best may name it.")
        return None


@commands.command()
def describe(
    optimizer: Reference,
    text: Annotated[str, typer.Argument(help="In your words; an empty text removes them.")],
    as_json: AsJson = False,
) -> None:
    """Say what an optimizer is, in your own words."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        found = optimizer_named(service, optimizer)
        with meant(found, lambda: optimizer_names(service, found)):
            changed = service.optimizers.update(found, description=text)
        show.as_json(changed.raw) if as_json else typer.echo(f"{changed.reference}: {changed.description}")


@commands.command()
def archive(
    optimizer: Reference,
    undo: Annotated[bool, typer.Option("--undo", help="Bring it back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let lists, FAMILY@latest and FAMILY@best pass over an optimizer."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        found = optimizer_named(service, optimizer)
        with meant(found, lambda: optimizer_names(service, found)):
            changed = service.optimizers.archive(found, archived=not undo)
        if as_json:
            return show.as_json(changed.raw)
        typer.echo(f"{changed.reference} {'is archived' if changed.archived else 'is no longer archived'}.")
        return None


@commands.command()
def delete(optimizer: Reference, as_json: AsJson = False) -> None:
    """Delete an optimizer that no alias, job or evaluation needs."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        found = optimizer_named(service, optimizer)
        with meant(found, lambda: optimizer_names(service, found)):
            service.optimizers.delete(found)
        show.as_json({"deleted": found}) if as_json else typer.echo(f"Deleted {found}.")
