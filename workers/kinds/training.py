"""A `meta_train` job: resume from its checkpoint, stream its curve, write checkpoints, register the optimizer."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, assert_never

from sqlalchemy.orm import Session

from app.store import checkpoints, outcomes
from app.store.checkpoints import Checkpoint
from app.store.events import EventId, JobEvent
from models.backends import EMULATES
from models.errors import CheckpointMismatch
from models.meta_train import Event as TrainingEvent
from models.meta_train import (
    MetaStep,
    Restarted,
    RolledBack,
    StartEnded,
    StoppedEarly,
    TrainingResult,
    TrajectoryEnd,
    Turn,
    Validated,
    Working,
    meta_train,
)
from models.spec import MetaTrainSpec
from models.training.rule import untrained
from models.training.selection import shortfall
from workers.attempt import Attempt
from workers.facts import card_of
from workers.lifecycle import Preempted
from workers.ranks import train_in_ranks

logger = logging.getLogger("gradsmith.worker")


def run(attempt: Attempt, spec: MetaTrainSpec) -> None:
    """Raises as `workers.kinds.run` says."""
    attempt.settle(untrained(spec), spec)
    result: TrainingResult | None = None
    checkpointed = time.monotonic()
    with closing(_events(attempt, spec)) as stream:  # whatever ends it ends the job's ranks
        for happened in stream:
            match happened:
                case MetaStep():
                    attempt.recorder.point(**vars(happened))
                case Validated():
                    attempt.recorder.score(happened.step, happened.score)
                case Restarted() | RolledBack() | StartEnded() | StoppedEarly():
                    _tell(attempt, happened)
                case TrajectoryEnd():
                    stopping = attempt.preempted()  # asked once: no job is handed back without its checkpoint
                    if stopping or time.monotonic() - checkpointed >= attempt.settings.checkpoint_interval_seconds:
                        _write_checkpoint(attempt, happened)
                        checkpointed = time.monotonic()
                    if stopping:
                        raise Preempted
                case TrainingResult():
                    result = happened
                case Working():
                    pass  # in the middle of something long: only to look around
                case _:
                    assert_never(happened)
            attempt.look_around()
    assert result is not None, "meta_train ends with its result"
    _register(attempt, spec, result)


def _announce(attempt: Attempt, checkpoint: Checkpoint | None) -> None:
    attempt.announce(checkpoint)
    if EMULATES in attempt.runtime["backend"]:
        message = (
            "recipe.products is bfloat16, and no kernel of this worker multiplies bfloat16 numbers: its CPU lacks "
            "AVX512-BF16, or its compiler or GRADSMITH_NATIVE leaves that out. The products are made of float32 ones "
            "instead, more slowly than those of recipe.products float32."
        )
        attempt.recorder.say("log", {"level": "warning", "message": message})


def _events(attempt: Attempt, spec: MetaTrainSpec) -> Generator[TrainingEvent, None, None]:
    """What happens from the newest checkpoint on, if there is one that can be used."""
    checkpoint = attempt.claimed.checkpoint
    if checkpoint is not None:
        stream = _science(attempt, spec, checkpoint.content)
        try:
            first = next(stream)
        except CheckpointMismatch as error:
            logger.warning("job %s starts anew: %s", attempt.keeper.lease.job_id, error)
            attempt.recorder.say("log", {"level": "warning", "message": f"starting anew: {error}"})
        else:
            _announce(attempt, checkpoint)
            yield first
            yield from stream
            return
    _announce(attempt, None)
    yield from _science(attempt, spec, None)


def _science(attempt: Attempt, spec: MetaTrainSpec, resume: bytes | None) -> Iterator[TrainingEvent]:
    data_dir, threads = attempt.settings.data_dir, attempt.runtime["threads"]
    if spec.resources.processes > 1:
        return train_in_ranks(spec, data_dir=data_dir, resume=resume, threads=threads)
    return meta_train(spec, data_dir=data_dir, resume=resume, threads=threads)


def _tell(attempt: Attempt, turn: Turn) -> None:
    match turn:
        case Restarted():
            message = f"meta-step {turn.step}: {turn.reason}"
            attempt.recorder.say("log", {"level": "warning", "message": message})
        case RolledBack():
            attempt.recorder.say("rolled_back", _in_json(turn))
        case StartEnded():
            attempt.recorder.say("start_ended", _in_json(turn))
        case StoppedEarly():
            attempt.recorder.say("stopped_early", _in_json(turn))
        case _:
            assert_never(turn)


def _in_json(turn: Turn) -> dict[str, Any]:
    """Its fields; null for a score that is not finite."""
    finite = {name: not isinstance(value, float) or math.isfinite(value) for name, value in vars(turn).items()}
    return {name: value if finite[name] else None for name, value in vars(turn).items()}


def _write_checkpoint(attempt: Attempt, end: TrajectoryEnd) -> None:
    content, lease = end.checkpoint(), attempt.keeper.lease

    def put(session: Session, event: JobEvent) -> None:
        facts, identical = attempt.runtime, attempt.identical
        checkpoints.put(session, lease, end.step, event.id, content, runtime=facts, identical=identical)

    attempt.recorder.say_with("checkpoint", {"step": end.step}, put)


def _register(attempt: Attempt, spec: MetaTrainSpec, result: TrainingResult) -> None:
    card = card_of(spec, result.summary, attempt.runtime)
    poor = shortfall(result.validation_score, result.standing_still, spec.recipe)
    if poor is not None:
        attempt.recorder.say("log", {"level": "warning", "message": poor})

    def finish(session: Session, last_events: list[JobEvent], done_id: EventId) -> JobEvent:
        return outcomes.finish_training(
            session,
            attempt.keeper.lease,
            done_id,
            weights=result.weights,
            validation_score=result.validation_score,
            card=card,
            shortfall=poor,
            last_events=last_events,
        ).event

    attempt.recorder.finish(finish)
