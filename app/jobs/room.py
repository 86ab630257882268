"""Whether a worker has the memory for a job."""

from __future__ import annotations

from functools import cache

from pydantic import ValidationError

from app.http.problems import Problem
from app.jobs.sweeps.children import runs_of
from models.families import FAMILIES
from models.machine import usable_memory_bytes
from models.memory import memory_estimate_bytes
from models.spec import JobSpec


@cache
def _own_memory_bytes() -> int:
    """This machine's: a container's limits do not change while its process runs, and reading them is no small part of
    a POST."""
    return usable_memory_bytes()


def refuse_too_large(spec: JobSpec, worker_memory_bytes: int | None) -> None:
    """Raises Problem `job_too_large` when a worker with this much memory (default: this machine's) cannot hold the job,
    or the one that follows it."""
    estimate = estimate_bytes(spec)
    limit = worker_memory_bytes if worker_memory_bytes is not None else _own_memory_bytes()
    if estimate <= limit:
        return
    *fields, last = [*_enlarging(spec, estimate), *spec.to_lower]
    raise Problem(
        "job_too_large",
        f"This job needs about {estimate / 2**30:,.1f} GiB of memory and a worker has {limit / 2**30:,.1f} GiB. "
        f"Lower {', '.join(fields)} or {last}.",
        memory_estimate_bytes=estimate,
        memory_limit_bytes=limit,
    )


def estimate_bytes(spec: JobSpec) -> int:
    """Memory of the job, or of the one that follows it, whichever needs more; of a sweep, that of its largest child."""
    return max(memory_estimate_bytes(each) for run in runs_of(spec) for each in (run, run.follow_up("")) if each)


def _enlarging(spec: JobSpec, estimate: int) -> list[str]:
    """The fields of `tasks` without whose change the job would need less than the estimate."""
    family, source = spec.family, FAMILIES.get(spec.family.name)
    if source is None:  # a declared one
        return []
    own, found = source.tasks.model_dump(), []
    for name in family.overrides:
        try:
            tasks = type(family.tasks).model_validate(family.tasks.model_dump() | {name: own[name]})
        except ValidationError:  # it does not fit the other changes
            continue
        without = spec.model_copy(update={"family": family.model_copy(update={"tasks": tasks})})
        if estimate_bytes(without) < estimate:
            found.append(f"tasks.{name}")
    return found
