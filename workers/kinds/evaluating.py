"""An `evaluate` job: read the optimizer's weights, measure them, store the result. It is never resumed."""

from __future__ import annotations

from typing import Any, assert_never

from sqlalchemy.orm import Session

from app.store import outcomes
from app.store.events import EventId, JobEvent
from app.store.registry import Registry
from gradsmith.rules import weights as rule_weights
from models.evaluate import EvaluationProgress, EvaluationResult, evaluate
from models.spec import EvaluateSpec
from workers.attempt import Attempt
from workers.lifecycle import Preempted


def run(attempt: Attempt, spec: EvaluateSpec) -> None:
    """Raises as `workers.kinds.run` says."""
    weights = _weights(attempt, spec)
    attempt.settle(rule_weights.loads(weights), spec)
    attempt.announce(None)
    result: dict[str, Any] | None = None
    message = None
    data_dir, threads = attempt.settings.data_dir, attempt.runtime["threads"]
    for happened in evaluate(weights, spec, data_dir=data_dir, threads=threads):
        match happened:
            case EvaluationProgress():
                if happened.message != message:
                    message = happened.message
                    attempt.recorder.say("log", {"level": "info", "message": message})
                attempt.recorder.progress(happened.step, happened.total)
            case EvaluationResult():
                result = happened.result
            case _:
                assert_never(happened)
        attempt.look_around()
        if attempt.preempted():
            raise Preempted  # an evaluation starts anew
    assert result is not None, "evaluate ends with its result"
    _store(attempt, result)


def _weights(attempt: Attempt, spec: EvaluateSpec) -> bytes:
    def read(session: Session, _again: bool) -> bytes:
        registry = Registry(session, attempt.claimed.job.workspace)
        return registry.weights(registry.resolve(spec.optimizer))

    return attempt.keeper.write(read)


def _store(attempt: Attempt, result: dict[str, Any]) -> None:
    def finish(session: Session, last_events: list[JobEvent], done_id: EventId) -> JobEvent:
        lease = attempt.keeper.lease
        return outcomes.finish_evaluation(session, lease, done_id, result=result, last_events=last_events).event

    attempt.recorder.finish(finish)
