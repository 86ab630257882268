"""`gradsmith optimizers`: the registry."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradsmith.cli import complete, show
from gradsmith.cli.given import meant, optimizer_named, optimizer_names
from gradsmith.cli.outcome import refuse, told

if TYPE_CHECKING:
    from gradsmith.types import Optimizer

commands = typer.Typer(
    name="optimizers", help="The registry of trained optimizers.", invoke_without_command=True, rich_markup_mode=None
)

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
    """The registry of trained optimizers; alone, it lists them."""
    if context.invoked_subcommand is None:
        list_optimizers(as_json=as_json)
    elif as_json:
        refuse(f"--json belongs behind the command: `gradsmith optimizers {context.invoked_subcommand} --json`")


@commands.command("list")
def list_optimizers(
    family: Annotated[str | None, typer.Option(help="Of this family only.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List optimizers, newest first."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        found = list(itertools.islice(service.optimizers.list(family=family, limit=min(limit, 100)), limit))
        if as_json:
            return show.as_json([each.raw for each in found])
        rows = [
            (
                each.reference,
                ", ".join(each.aliases),
                "tuned baseline" if each.tuned else "learned schedule" if each.stands_for else "learned",
                show.number(each.validation_score),
                ", ".join(each.evaluations[0].get("verdict", {}).values()) if each.evaluations else "",
                show.age(each.created_at),
            )
            for each in found
        ]
        show.table(
            ("optimizer", "aliases", "what", "validation", "verdict: end, curve", "age"),
            rows,
            empty="No optimizers yet. `gradsmith train FAMILY --follow` makes one.",
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
            lines[f"evaluation {number + 1}"] = f"{verdict} ({each.get('job', '')})"
        show.fields({name: value for name, value in lines.items() if value})
        if found.answer:
            show.paragraph(found.answer)
        steps = ", steps=N)  # N: the steps that your run takes" if found.tuned or found.stands_for else ")"
        typer.echo(f"\ngradsmith.LearnedOptimizer(model.parameters(), {found.reference!r}{steps}")
        return None


def _what(found: Optimizer) -> str:
    if found.tuned:
        own = found.card.get("tuned", {})
        which = f"{own['baseline']} at {show.number(own['learning_rate'])}, {own['schedule']}: " if own else ""
        return f"{which}a tuned baseline, which is not learned"
    return "learned" if found.stands_for is None else f"a learned schedule, as good as {found.stands_for}"


@commands.command()
def pull(
    optimizer: Reference,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: its name, here.")] = None,
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
