"""How a worker runs each kind of job: a file a kind."""

from __future__ import annotations

from typing import assert_never

from models.spec import EvaluateSpec, JobSpec, MetaTrainSpec, PreviewSpec, SweepSpec
from workers.attempt import Attempt
from workers.kinds import evaluating, previewing, training


def run(attempt: Attempt, spec: JobSpec) -> None:
    """Run a job to its end, and register what it made.

    Raises Cancelled, Preempted, LeaseLost and whatever the science and the store raise; the attempt has not ended then.
    """
    match spec:
        case MetaTrainSpec():
            training.run(attempt, spec)
        case EvaluateSpec():
            evaluating.run(attempt, spec)
        case PreviewSpec():
            previewing.run(attempt, spec)
        case SweepSpec():
            raise AssertionError("a sweep is never queued: the API process makes its children and ends it")
        case _:
            assert_never(spec)
