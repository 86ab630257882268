"""What each kind of job is in a request, and what that is resolved to: a file a kind.

A kind has a row on each floor. `models.spec` has its spec, `models.memory` how much it holds, `workers.kinds` how it
runs. Wherever a kind decides there is a `match` that ends in `assert_never`: mypy names those that lack a new one.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias, assert_never

from pydantic import Field

from app.jobs.kinds import evaluating, training
from app.jobs.kinds.evaluating import EvaluateRequest
from app.jobs.kinds.training import MetaTrainRequest
from app.store.jobs import JobRepository
from app.store.registry import Registry
from models.spec import BackendName, EvaluateSpec, JobSpec, MetaTrainSpec

AnyRequest: TypeAlias = MetaTrainRequest | EvaluateRequest
JobRequest = Annotated[AnyRequest, Field(discriminator="kind")]


def resolved_alone(request: AnyRequest, backend: BackendName) -> JobSpec | None:
    """The spec of a request that says all by itself; None where the database must be asked (`resolved`).

    backend: what a job runs on that names none. Raises Problem.
    """
    match request:
        case MetaTrainRequest():
            return training.resolved(request, backend)
        case EvaluateRequest():
            return None
        case _:
            assert_never(request)


def resolved(request: AnyRequest, registry: Registry, jobs: JobRepository, backend: BackendName) -> JobSpec:
    """The spec of a request. Raises Problem when it names what does not exist, or asks for what does not fit."""
    match request:
        case MetaTrainRequest():
            return training.resolved(request, backend)
        case EvaluateRequest():
            return evaluating.resolved(request, registry, jobs, backend)
        case _:
            assert_never(request)


def to_lower(spec: JobSpec) -> list[str]:
    """Fields of a request that make a job smaller, when it needs more memory than there is."""
    match spec:
        case MetaTrainSpec():
            return training.to_lower(spec)
        case EvaluateSpec():
            return evaluating.to_lower(spec)
        case _:
            assert_never(spec)
