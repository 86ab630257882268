"""Two jobs beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradsmith import errors
from gradsmith.cli import show
from gradsmith.cli.given import LAST, job_id, optimizer_named
from gradsmith.cli.outcome import NOT_FOUND, refuse

if TYPE_CHECKING:
    from gradsmith.client import Client
    from gradsmith.types import Job


def job_of(client: Client, name: str) -> str:
    """The job that `name` means: one, or what made that optimizer. Ends with exit code 4 where there is none."""
    if not name.startswith("opt_") and ("@" not in name or name == LAST):
        return job_id(client, name)
    record = client.optimizers.get(optimizer_named(client, name))
    return record.job or refuse(f"{record.reference} was made by no job, so there are no settings of it", NOT_FOUND)


def compared(client: Client, first: str, second: str) -> list[tuple[str, str, str]]:
    """(field, of the first, of the second) where they differ, then what came out."""
    found = [client.jobs.get(name) for name in (first, second)]
    flat = [show.flat(job.spec) for job in found]
    names = list(dict.fromkeys((*flat[0], *flat[1])))
    rows = [(name, *(each.get(name, "") for each in flat)) for name in names if flat[0].get(name) != flat[1].get(name)]
    results = [_result(client, job) for job in found]
    rows += [(name, *(each.get(name, "") for each in results)) for name in dict.fromkeys((*results[0], *results[1]))]
    return [(name, one, other) for name, one, other in rows]


def _result(client: Client, job: Job) -> dict[str, str]:
    found = {"status": job.status, "ran": show.took(job)}
    if job.optimizer is not None and job.kind == "meta_train":
        record = client.optimizers.get(job.optimizer)
        found |= {"optimizer": record.reference, "validation": show.number(record.validation_score)}
    try:
        report = client.jobs.report(job)
    except (errors.Conflict, errors.NotFound):  # none was asked for, or it runs
        return found
    best = report.comparisons.get("best_baseline", {})
    for metric, verdict in report.verdict.items():
        found[f"verdict, {metric}"] = f"{verdict}, ratio {show.number(best.get(metric, {}).get('ratio_of_means'))}"
    return found
