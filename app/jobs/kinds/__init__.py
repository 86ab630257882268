"""What each kind of job is in a request, and what that is resolved to: a file a kind.

A kind has a row on each floor. `models.spec` has its spec, `models.memory` how much it holds, `workers.kinds` how it
runs. Wherever a kind decides there is a `match` that ends in `assert_never`: mypy names those that lack a new one.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias, assert_never

from pydantic import Field

from app.jobs.kinds import evaluating, previewing, sweeping, training
from app.jobs.kinds.evaluating import EvaluateRequest
from app.jobs.kinds.previewing import PreviewRequest
from app.jobs.kinds.sweeping import SweepRequest
from app.jobs.kinds.training import MetaTrainRequest
from app.store.families import DeclaredFamilies
from app.store.registry import Registry
from models.families import FAMILIES
from models.spec import BackendName, JobSpec

AnyRequest: TypeAlias = MetaTrainRequest | EvaluateRequest | PreviewRequest | SweepRequest
JobRequest = Annotated[AnyRequest, Field(discriminator="kind")]


def resolved_alone(request: AnyRequest, backend: BackendName) -> JobSpec | None:
    """The spec of a request that says all by itself; None where the database must be asked (`resolved`).

    backend: what a job runs on that names none. Raises Problem.
    """
    match request:
        case MetaTrainRequest():
            known = training.families_of(request) <= FAMILIES.keys()
            return training.resolved(request, None, backend) if known else None
        case EvaluateRequest():
            return None
        case PreviewRequest():
            calibrated = previewing.training_of(request)
            names = {request.family} if calibrated is None else training.families_of(calibrated)
            return previewing.resolved(request, None, backend) if names <= FAMILIES.keys() else None
        case SweepRequest():
            known = sweeping.families_of(request) <= FAMILIES.keys()
            return sweeping.resolved(request, None, backend) if known else None
        case _:
            assert_never(request)


def resolved(
    request: AnyRequest,
    registry: Registry,
    declared: DeclaredFamilies,
    backend: BackendName,
) -> JobSpec:
    """The spec of a request. Raises Problem when it names what does not exist, or asks for what does not fit."""
    match request:
        case MetaTrainRequest():
            return training.resolved(request, declared, backend)
        case EvaluateRequest():
            return evaluating.resolved(request, registry, declared, backend)
        case PreviewRequest():
            return previewing.resolved(request, declared, backend)
        case SweepRequest():
            return sweeping.resolved(request, declared, backend)
        case _:
            assert_never(request)
