"""What every kind of job that measures does alike: tell of its runs, look around between them, store the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, assert_never

from sqlalchemy.orm import Session

from app.store import baseline_runs, outcomes
from app.store.events import EventId, JobEvent
from models.evaluation.baseline_runs import Stored
from models.evaluation.sharing import helpers_for
from models.machine import usable_memory_bytes
from models.measured import BestSchedule, BestTuned, MeasuringProgress, MeasuringResult, OwnScore
from models.memory import helper_bytes, memory_estimate_bytes
from models.runtime import device_of
from models.spec import EvaluateSpec
from workers.attempt import Attempt
from workers.lifecycle import Preempted


class BaselineRuns:
    """The database's runs of baselines, each read and written in a short transaction of the job."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def get(self, key: str) -> Stored | None:
        workspace = self._attempt.claimed.job.workspace
        found = self._attempt.keeper.write(lambda session, _again: baseline_runs.get(session, workspace, key))
        return None if found is None else Stored(found.content, found.job)

    def put(self, key: str, baseline: str, content: bytes) -> None:
        keeper = self._attempt.keeper
        keeper.write(lambda session, _again: baseline_runs.put(session, keeper.lease, key, baseline, content))


def helpers_within(cores: int, memory_bytes: int | None, spec: EvaluateSpec) -> int:
    """How many processes help an evaluation with its baselines: as many as there are cores and memory for.

    memory_bytes: that a job may use; None: that of this machine
    """
    left = (usable_memory_bytes() if memory_bytes is None else memory_bytes) - memory_estimate_bytes(spec)
    return max(0, min(helpers_for(cores, device_of(spec.resources)), left // helper_bytes(spec)))


def measure(
    attempt: Attempt,
    science: Iterator[MeasuringProgress | MeasuringResult],
    registered: Callable[[BestTuned | BestSchedule], outcomes.Found] | None = None,
    scored: Callable[[OwnScore], outcomes.Own] | None = None,
) -> None:
    """Run it to its end and store its result. It is never resumed: another attempt starts anew.

    registered: how what it found goes into the registry, where `best` may name it
    scored: how the score of an optimizer that had none does

    Raises as `workers.kinds.run` says.
    """
    result: MeasuringResult | None = None
    message = None
    for happened in science:
        match happened:
            case MeasuringProgress():
                if happened.message != message:
                    message = happened.message
                    attempt.recorder.say("log", {"level": "info", "message": message})
                attempt.recorder.progress(happened.step, happened.total)
            case MeasuringResult():
                result = happened
            case _:
                assert_never(happened)
        attempt.look_around()
        if attempt.preempted():
            raise Preempted
    assert result is not None, "what measures ends with its result"
    found = result.found
    made = registered(found) if registered is not None and found is not None else None
    own = scored(result.own) if scored is not None and result.own is not None else None
    _store(attempt, result.result, made, own)


def _store(attempt: Attempt, result: dict[str, Any], found: outcomes.Found | None, own: outcomes.Own | None) -> None:
    def finish(session: Session, last_events: list[JobEvent], done_id: EventId) -> JobEvent:
        lease = attempt.keeper.lease
        return outcomes.finish_with_result(
            session, lease, done_id, result=result, found=found, own=own, last_events=last_events
        ).event

    attempt.recorder.finish(finish)
