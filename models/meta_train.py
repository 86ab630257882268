"""Meta-training: a generator of what happened, meta-step by meta-step.

    for event in meta_train(spec):
        match event:
            case MetaStep(step=step, loss=loss): ...
            case TrainingResult(weights=weights): ...

A meta-step is one window of `unroll_steps` inner steps on `tasks` tasks side by side and one step of Adam on the
rule's weights; `horizon / unroll_steps` windows make a trajectory, after which fresh tasks are drawn. The run is a
pure function of its spec: it reads no clock (but to report its cost and to say now and then that it still works), no
environment and no global generator. `models.training` has its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from models.parallel import Alone, Team
from models.runtime import device_of
from models.spec import MetaTrainSpec
from models.tasks.catalogue import open_for_training
from models.training import checkpoint
from models.training.events import (
    Event,
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
)
from models.training.progress import TrainingProgress
from models.training.trainer import Trainer

__all__ = [
    "Event",
    "MetaStep",
    "Restarted",
    "RolledBack",
    "StartEnded",
    "StoppedEarly",
    "TrainingResult",
    "TrajectoryEnd",
    "Turn",
    "Validated",
    "Working",
    "meta_train",
]


def meta_train(
    spec: MetaTrainSpec,
    *,
    data_dir: Path | None = None,
    resume: bytes | None = None,
    threads: int | None = None,
    team: Team | None = None,
) -> Iterator[Event]:
    """Train a rule as `spec` says; the last event is the TrainingResult.

    resume: the bytes of a TrajectoryEnd of the SAME spec. The events that follow, and the weights, are then those of
        the uninterrupted run, bit for bit, on the same machine and torch version.
    threads: of the backend, in place of those of the spec, for a caller who has settled what "auto" means
    team: the ranks that share this run (models.parallel), each of which calls this with equal arguments and gets equal
        events, but for the seconds that they name; default: this process does it all, whatever the spec asks for.
        Another number of ranks gives another rounding of the same sums: a checkpoint goes on with any.

    Raises DatasetMissing, DatasetCorrupt, DeviceUnavailable, BackendUnavailable, CheckpointMismatch, RankLost, and
    TrainingDiverged when MAX_SKIPPED_IN_A_ROW meta-steps in a row gave non-finite numbers, or all of a shorter run, or
    every validation.
    """
    device = device_of(spec.resources)
    # Opened without the test split: nothing below can draw a task that the result will be measured on.
    families = [open_for_training(component.tasks, data_dir) for component in spec.components]
    threads = spec.resources.threads_or(1) if threads is None else threads
    trainer = Trainer(spec, families, device, threads, team or Alone())
    if resume is None:
        progress = trainer.fresh()
    else:
        progress = checkpoint.loads(resume, spec, device)
        progress = progress.but(live=trainer.pool.restored(progress.live))
    while not trainer.over(progress):
        progress, ended = yield from trainer.meta_step(progress)
        over = trainer.over(progress)
        if ended or over:
            trainer.agree(progress)
        if ended and not over:
            yield TrajectoryEnd(progress.step, _frozen_checkpoint(progress, spec))
    yield trainer.result(progress)


def _frozen_checkpoint(progress: TrainingProgress, spec: MetaTrainSpec) -> Callable[[], bytes]:
    return lambda: checkpoint.dumps(progress, spec)
