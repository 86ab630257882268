"""Whether a worker has the memory for a job."""

from __future__ import annotations

from functools import cache

from app.http.problems import Problem
from app.jobs import kinds
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
    estimate = max(memory_estimate_bytes(each) for each in (spec, spec.follow_up("")) if each is not None)
    limit = worker_memory_bytes if worker_memory_bytes is not None else _own_memory_bytes()
    if estimate <= limit:
        return
    *fields, last = kinds.to_lower(spec)
    raise Problem(
        "job_too_large",
        f"This job needs about {estimate / 2**30:,.1f} GiB of memory and a worker has {limit / 2**30:,.1f} GiB. "
        f"Lower {', '.join(fields)} or {last}.",
        memory_estimate_bytes=estimate,
        memory_limit_bytes=limit,
    )
