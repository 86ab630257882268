"""`gradsmith jobs`: what runs, what ran, and how it goes."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from gradsmith.cli import complete, show, sweeps
from gradsmith.cli.given import job_id, labels, nothing_of
from gradsmith.cli.outcome import JOB_FAILED, refuse, told
from gradsmith.cli.style import Commands

if TYPE_CHECKING:
    from gradsmith.types import Job

commands = Commands("jobs", alone=True)

JobName = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="An id, the beginning or the end of one that is clear, or @last.",
        autocompletion=complete.jobs,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the API answers.")]


@commands.callback()
def jobs(context: typer.Context, as_json: AsJson = False) -> None:
    """List, show, follow and end trainings, sweeps, evaluations and previews. Alone, it lists them."""
    if context.invoked_subcommand is None:
        list_jobs(as_json=as_json)
    elif as_json:
        refuse(f"--json belongs behind the command: `gradsmith jobs {context.invoked_subcommand} --json`")


@commands.command("list")
def list_jobs(
    family: Annotated[str | None, typer.Option(metavar="FAMILY", help="Of this family only.")] = None,
    sweep: Annotated[str | None, typer.Option(metavar="ID", help="The children of this sweep only.")] = None,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="queued, running, succeeded, failed, cancelled.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="With this label; repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        jobs = service.jobs.list(
            family=family, sweep=sweep, status=status, metadata=labels(label or []), limit=min(limit, 100)
        )
        found = list(itertools.islice(jobs, limit))
        if as_json:
            return show.as_json([job.raw for job in found])
        rows = [
            (
                show.name(job.id),
                job.kind,
                job.family,
                job.status,
                show.progress(job),
                show.took(job),
                show.age(job.created_at),
            )
            for job in found
        ]
        nothing = "No jobs. `gradsmith train FAMILY` starts one; `gradsmith families` lists what can be trained on."
        if family is not None and not found:
            nothing = nothing_of(service, family, "job")
        show.table(
            ("job", "kind", "family", "status", "done", "ran", "age"),
            rows,
            empty=nothing,
            spare=("done", "ran"),
            right=("done", "ran", "age"),
        )
        return None


@commands.command("show")
def show_job(job: JobName = "@last", as_json: AsJson = False) -> None:
    """Show a job: its status, its result and its curve."""
    from gradsmith.cli.service import client
    from gradsmith.errors import NotFound, NotReady

    with told(), client() as service:
        found = service.jobs.get(job_id(service, job))
        if as_json:
            return show.as_json(found.raw)
        lines = _facts(found)
        if found.optimizer is not None:
            with suppress(NotFound):  # it was deleted
                lines["optimizer"] = f"{service.optimizers.get(found.optimizer).reference} ({found.optimizer})"
        if found.kind == "meta_train":
            try:
                curve = service.jobs.curve(found, max_points=400)
            except (NotReady, NotFound):
                curve = None
            if curve is not None:
                lines["meta-loss"] = show.sparkline(curve.loss)
        show.fields({name: value for name, value in lines.items() if value})
        if found.kind == "sweep":
            typer.echo()
            sweeps.table(service.sweeps.get(found))
        elif found.kind != "meta_train" and found.status == "succeeded":
            typer.echo()
            show.verdict(service.jobs.report(found))
        if (step := _next_step(found)) is not None:
            show.paragraph(step)
        return None


@commands.command()
def watch(
    job: JobName = "@last",
    as_json: Annotated[bool, typer.Option("--json", help="Print the job as it is at the end.")] = False,
) -> None:
    """Follow a job until it ends. Ctrl-C stops watching; the job runs on."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        found = job_id(service, job)
    follow(found, as_json=as_json)


@commands.command()
def cancel(job: JobName, as_json: AsJson = False) -> None:
    """Cancel a job: a queued one at once, a running one within seconds."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        found = service.jobs.cancel(job_id(service, job))
        show.as_json(found.raw) if as_json else typer.echo(f"{found.id} {found.status}")


@commands.command()
def retry(job: JobName, as_json: AsJson = False) -> None:
    """Start another attempt of a job that failed or was cancelled."""
    from gradsmith.cli.service import client

    with told(), client() as service:
        found = service.jobs.retry(job_id(service, job))
        show.as_json(found.raw) if as_json else typer.echo(f"{found.id} {found.status}, attempt {found.attempt}")


@commands.command()
def logs(job: JobName = "@last", as_json: AsJson = False) -> None:
    """Print what a job has said.

    A job that has not ended is followed until it ends.
    """
    from gradsmith.cli.service import client
    from gradsmith.cli.spoken import with_short_ids
    from gradsmith.events import MetricsEvent

    def detached() -> str:
        return "stopped reading; the job runs on"

    with told(detached), client() as service:
        for event in service.jobs.stream(job_id(service, job)):
            if as_json:
                typer.echo(show.line({"kind": event.kind, "id": event.id, "data": event.data}))
            elif event.id is not None and not isinstance(event, MetricsEvent):
                typer.echo(f"{event.id:>8}  {with_short_ids(show.event(event))}")


def follow(job: str, *, as_json: bool = False) -> None:
    """Watch a job and the evaluation behind it. Exit code 1 where it fails; Ctrl-C detaches with 130.

    as_json: print the job as it ended, in place of the verdict
    """
    from gradsmith.cli.live import watched
    from gradsmith.cli.service import client

    def detached() -> str:
        end = job[-8:]
        return f"the job runs on; `gradsmith jobs watch {end}` looks at it again"

    with told(detached), client() as service:
        searching = service.jobs.get(job).kind == "sweep"
        ended = sweeps.watched(service, job) if searching else watched(service, job)
        if as_json:
            show.as_json(ended.raw)
            raise typer.Exit(0 if ended.status == "succeeded" else JOB_FAILED)
        if searching:
            sweeps.table(service.sweeps.get(ended))
        if ended.status != "succeeded":
            reason = ended.status_reason or "no reason given"
            again = f". `gradsmith jobs retry {ended.id[-8:]}` starts another attempt"
            refuse(f"job {ended.id} {ended.status}: {reason.rstrip('.')}{again}", JOB_FAILED)
        if ended.status_reason:
            show.say(f"note: {ended.status_reason}")
        if ended.evaluation is None or ended.kind not in ("meta_train", "sweep"):
            if ended.kind not in ("meta_train", "sweep"):
                show.verdict(service.jobs.report(ended))
            return
        measured = watched(service, ended.evaluation)
        if measured.status != "succeeded":
            refuse(f"its evaluation {measured.id} {measured.status}: {measured.status_reason}", JOB_FAILED)
        show.verdict(service.jobs.report(measured))
        if ended.optimizer is not None:
            record = service.optimizers.get(ended.optimizer)
            # What was trained on changed tasks is compared with nothing: `best` is of the family's own.
            show.paragraph(record.answer)
            typer.echo()
            best = record if record.overrides else service.optimizers.get(f"{record.family}@best")
            if best.id != record.id:
                what = "a tuned baseline" if best.tuned else "another optimizer"
                show.say(f"{record.reference} is not the best: {record.family}@best is {best.reference}, {what}.")
            show.say(f"`gradsmith optimizers pull {best.reference}` fetches it.")


def _next_step(job: Job) -> str | None:
    """What a person may want to do with it, in a sentence."""
    if not job.finished:
        return f"`gradsmith jobs watch {job.id[-8:]}` follows it, `gradsmith jobs cancel {job.id[-8:]}` ends it."
    if job.status != "succeeded":
        return f"`gradsmith jobs logs {job.id[-8:]}` says more, `gradsmith jobs retry {job.id[-8:]}` tries again."
    if job.kind == "meta_train" and job.evaluation is not None:
        return f"`gradsmith jobs show {job.evaluation[-8:]}` has its proof against tuned baselines."
    if job.kind == "meta_train" and job.optimizer is not None:
        return f"`gradsmith evaluate {job.optimizer[-8:]} --follow` measures it against tuned baselines."
    return None


def _facts(job: Job) -> dict[str, str]:
    return {
        "job": job.id,
        "kind": job.kind,
        "family": job.family,
        "status": " ".join(part for part in (job.status, show.progress(job)) if part),
        "reason": job.status_reason or "",
        "ran": show.took(job),
        "predicted": show.duration((job.price or {}).get("predicted_seconds")),
        "left": show.duration(job.progress.eta_seconds) if not job.finished else "",
        "sweep": f"{job.sweep}, trial {job.trial}" if job.sweep is not None else "",
        "attempt": str(job.attempt) if job.attempt > 1 else "",
        "optimizer": job.optimizer or "",
        "evaluation": job.evaluation or "",
        "labels": ", ".join(f"{name}={value}" for name, value in job.metadata.items()),
        "created": f"{show.age(job.created_at)} ago",
    }
