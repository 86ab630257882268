"""The command line: what it is called with, and what that does. httpx is loaded when a server is asked, torch never."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import typer

from gradsmith.cli import complete, datasets, families, jobs, keys, optimizers, show
from gradsmith.cli import sweeps as sweeping
from gradsmith.cli.given import labels, settings
from gradsmith.cli.outcome import AUTHENTICATION, UNAVAILABLE, refuse, told
from gradsmith.cli.style import Commands
from gradsmith.errors import InvalidRequest

_HELP = """Train, prove and fetch learned optimizers.

The server is at GRADSMITH_URL, or where `gradsmith login` says; the key is in GRADSMITH_API_KEY, or kept by that.

Exit codes: 0 done, 1 the job failed, 2 wrong arguments or a refused request, 3 no key or a wrong one, 4 not found,
5 the server is unavailable, 130 Ctrl-C, which never cancels a job.
"""
_SECTIONS = ("recipe", "tasks", "evaluation", "resources")

program = Commands("gradsmith", _HELP, completion=True)
for each in (jobs.commands, optimizers.commands, families.commands, datasets.commands, keys.commands):
    program.add_typer(each)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="A value of the job, such as recipe.meta_steps=300; repeatable."),
]
Label = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label of yours; repeatable.")]
Compared = Annotated[
    str,
    typer.Argument(
        metavar="JOB|OPTIMIZER", help="A job, or an optimizer: the job that made it.", autocompletion=complete.both
    ),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends. Ctrl-C stops watching only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the API answers.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Start nothing: tell memory, seconds, queue time.")]
Seed = Annotated[int | None, typer.Option(help="Default: a random one, which the job records.")]


@program.command()
def train(
    family: families.FamilyName,
    set_: Set = None,
    seed: Seed = None,
    label: Label = None,
    evaluate: Annotated[bool, typer.Option(help="Measure the result against tuned baselines afterwards.")] = True,
    follow: Follow = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train an optimizer for a family, and prove it.

    The proof is an evaluation against tuned baselines, which follows the training.
    """
    wanted = settings(set_ or [], _SECTIONS)
    body = {"kind": "meta_train", "family": family, "seed": seed, "evaluate": evaluate, **wanted}
    if dry_run:
        return _priced(body, label, as_json=as_json)
    return _start(body, label, follow=follow, as_json=as_json)


@program.command()
def sweep(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="One of `gradsmith families`.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUES",
            help="A value of the job, or what is swept in its recipe: recipe.meta_steps=100,200 or "
            "recipe.meta_learning_rate=0.001..0.1:log; repeatable.",
        ),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(metavar="NAME", help="grid, random or tpe. Default: grid; with a range random.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="How many; a grid has its own.")] = None,
    parallel: Annotated[int | None, typer.Option(help="Most that wait or run at a time.")] = None,
    halving: Annotated[
        str | None, typer.Option(metavar="RUNGS[:REDUCTION]", help="Successive halving, such as 3:3.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the search and of every trial. Default: a random one.")] = None,
    label: Label = None,
    evaluate: Annotated[bool, typer.Option(help="Measure the best against tuned baselines afterwards.")] = True,
    follow: Follow = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train with many recipes, and keep the best.

    Lists in --set are tried in every combination; ranges are drawn from.
    """
    wanted = settings(set_ or [], (*_SECTIONS, "seed"), sweeping.swept)
    body = {"kind": "sweep", "family": family, "seed": seed, "evaluate": evaluate, **wanted}
    body |= {"sampler": sampler, "trials": trials, "parallel": parallel, "halving": sweeping.halving(halving)}
    if dry_run:
        return _priced(body, label, as_json=as_json)
    return _start(body, label, follow=follow, as_json=as_json)


@program.command()
def evaluate(
    optimizer: optimizers.Reference,
    family: Annotated[
        str | None,
        typer.Option(
            metavar="FAMILY", help="Measure on this family. Default: its own.", autocompletion=complete.families
        ),
    ] = None,
    set_: Set = None,
    label: Label = None,
    follow: Follow = False,
    as_json: AsJson = False,
) -> None:
    """Measure an optimizer against tuned baselines.

    It takes tasks that the optimizer never saw.
    """
    wanted = settings(set_ or [], ("tasks", "evaluation", "resources"))
    _start(
        {"kind": "evaluate", "optimizer": optimizer, "family": family, **wanted}, label, follow=follow, as_json=as_json
    )


@program.command()
def preview(
    family: families.FamilyName,
    set_: Set = None,
    follow: Follow = True,
    as_json: AsJson = False,
) -> None:
    """Show in seconds what tuned baselines do on a family.

    It shows mistakes in a family before a training is spent on it.
    """
    wanted = settings(set_ or [], ("tasks", "evaluation", "resources"))
    _start({"kind": "preview", "family": family, **wanted}, None, follow=follow, as_json=as_json)


@program.command()
def compare(first: Compared, second: Compared, as_json: AsJson = False) -> None:
    """Compare two jobs or optimizers: their settings and results."""
    from gradsmith.cli.comparison import compared, job_of
    from gradsmith.cli.service import client

    with told(), client() as service:
        rows = compared(service, *(job_of(service, name) for name in (first, second)))
        if as_json:
            return show.as_json([dict(zip(("field", "first", "second"), row, strict=True)) for row in rows])
        show.table(("", first, second), rows, empty="They do not differ.")
        return None


@program.command()
def login(
    url: Annotated[str, typer.Argument(help="Where the server is, such as https://gradsmith.example.org.")],
    key: Annotated[
        str,
        typer.Option(
            metavar="KEY", prompt="API key (none: press Enter)", hide_input=True, help="Asked for where not given."
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the address, and where it is kept.")] = False,
) -> None:
    """Keep a server's address and your key.

    Later commands use them. The file is one that only you can read.
    """
    from gradsmith.cli.service import client_of, keep

    with told(), client_of(url, key or None) as service:
        service.jobs.list(limit=1)  # refused here rather than at the first command
        place = keep(service.base_url, key)
        if as_json:
            return show.as_json({"url": service.base_url, "kept_in": str(place)})
        show.say(f"{service.base_url} answers; kept in {place}")
        return None


@program.command("open")
def open_page(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[JOB|OPTIMIZER]", help="Its page; default: all jobs.", autocompletion=complete.both),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address, and open nothing.")] = False,
) -> None:
    """Open the dashboard in the browser."""
    from gradsmith.cli.given import LAST, job_id, optimizer_named
    from gradsmith.cli.service import client

    with told(), client() as service:
        if what is None:
            page = ""
        elif what.startswith("opt_") or ("@" in what and what != LAST):
            page = f"#/optimizers/{optimizer_named(service, what)}"
        else:
            page = f"#/jobs/{job_id(service, what)}"
        place = f"{service.base_url}/{page}"
    if as_json:
        return show.as_json({"url": place})
    typer.echo(place)
    typer.launch(place)
    return None


@program.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print what was found.")] = False) -> None:
    """Check that the server answers and knows the key."""
    from gradsmith import __version__, errors
    from gradsmith.cli.service import client, kept_in

    with told(), client() as service:
        facts = {"client": __version__, "server": service.base_url, "key": _key_in_words(kept_in().exists())}
        if not as_json:
            show.fields(facts)
        for question, ask in (("answers", service.families.list), ("key", lambda: service.jobs.list(limit=1))):
            try:
                ask()
            except (errors.Unauthorized, errors.Forbidden) as error:
                refuse(f"{error}. Set GRADSMITH_API_KEY, or run `gradsmith login {service.base_url}`", AUTHENTICATION)
            except errors.ServiceError as error:
                refuse(str(error), UNAVAILABLE)
            if not as_json:
                typer.echo(f"ok  {question}")
        if as_json:
            show.as_json(facts | {"ok": True})


def _key_in_words(kept: bool) -> str:
    if os.environ.get("GRADSMITH_API_KEY"):
        return "from GRADSMITH_API_KEY"
    return "from gradsmith login, where it is for this server" if kept else "none"


def _priced(body: dict[str, Any], label: list[str] | None, *, as_json: bool) -> None:
    from gradsmith.cli import price
    from gradsmith.cli.service import client

    with told(), client() as service, _something_swept():
        asked = dict(body)
        kind = asked.pop("kind")
        if kind == "sweep":
            asked.setdefault("recipe", {})
        of = service.sweeps.price if kind == "sweep" else partial(service.jobs.price, kind)
        found = of(**asked, metadata=labels(label or []) or None)
        show.as_json(found.raw) if as_json else price.told(found)


@contextmanager
def _something_swept() -> Iterator[None]:
    """Tells of the option where a sweep was asked for that sweeps nothing."""
    try:
        yield
    except InvalidRequest as error:
        if any(each.code == "nothing_swept" for each in error.errors):
            refuse("nothing is swept; add --set recipe.meta_learning_rate=0.001..0.1:log, or another range")
        raise


def _start(body: dict[str, Any], label: list[str] | None, *, follow: bool, as_json: bool) -> None:
    from gradsmith.cli.given import optimizer_named
    from gradsmith.cli.service import client

    metadata = labels(label or [])
    with told():
        with client() as service:
            given = {name: value for name, value in body.items() if value is not None}
            if "optimizer" in given:
                given["optimizer"] = optimizer_named(service, given["optimizer"])
            kind = given.pop("kind")
            if kind == "sweep":
                given.setdefault("recipe", {})
            create = service.sweeps.create if kind == "sweep" else partial(service.jobs.create, kind)
            with _something_swept():
                job = create(**given, metadata=metadata or None)
        if as_json and not follow:
            return show.as_json(job.raw)
        typer.echo(job.id, err=as_json)
        if not follow:
            typer.echo(f"`gradsmith jobs watch {job.id[-8:]}` follows it.", err=True)
    if follow:
        jobs.follow(job.id, as_json=as_json)
    return None
