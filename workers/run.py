"""From a job's id to its result: claim it, run the science, stream, checkpoint, register.

The science is a generator (`models.meta_train`, `models.evaluate`) that knows nothing of this; between two of its
events this module looks for a cancel, a preemption and a lost lease.
"""

from __future__ import annotations

import logging
import socket
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from sqlalchemy.orm import Session

from app.settings import Settings
from app.store import checkpoints, leases, outcomes
from app.store.checkpoints import Checkpoint
from app.store.errors import DamagedData, DatabaseUnavailable, LeaseLost, OptimizerNotFound
from app.store.events import Event, EventId
from app.store.leases import Lease
from app.store.registry import Registry
from app.store.sessions import Database
from app.streams import Publisher
from gradsmith.errors import GradsmithError
from gradsmith.rules import LSTMRule, Rule, build
from gradsmith.rules import weights as rule_weights
from models.backends import backend_for
from models.errors import CheckpointMismatch, ModelsError, RankLost
from models.evaluate import EvaluationProgress, EvaluationResult, evaluate
from models.machine import usable_cpus
from models.meta_train import MetaStep, Restarted, TrainingResult, TrajectoryEnd, Validated, Working, meta_train
from models.spec import EvaluateSpec, MetaTrainSpec
from workers.facts import machine_facts, measured_facts, refuse_too_large, runtime_facts, same_bits
from workers.lifecycle import Cancelled, Claimed, Keeper, Preempted, claim, leave, new_owner
from workers.ranks import train_in_ranks
from workers.recorder import Recorder

logger = logging.getLogger("gradsmith.worker")

# A preempted job may go on to the next place where it can be resumed, for this long.
PREEMPTION_SECONDS = 5.0


def warm_up() -> None:
    """Touch what is slow at its first use, so that a spare has it behind it."""
    torch.set_num_threads(1)
    torch.nn.functional.linear(torch.ones(1, 2), torch.ones(2, 2)).tanh()
    # Compiles the usual rule's kernel on this machine's first start, and loads it on every other.
    backend_for(LSTMRule(), torch.float32, torch.device("cpu"))


def run_job(
    job_id: str,
    attempt: int,
    *,
    owner: str | None = None,
    preempted: Callable[[], bool] = lambda: False,
    settings: Settings | None = None,
    on_lost: Callable[[Lease], None] = leave,
    on_renewed: Callable[[], None] = lambda: None,
) -> None:
    """Run one attempt of a job to its end; what became of it is in the database.

    Returns at once when the attempt is not to be had (a doorbell that rang twice, a job cancelled meanwhile), and
    when the lease is lost on the way. `owner` names this process in the lease, and nobody else. `preempted()` turns
    true when this process should stop. `on_renewed` is called, in another thread, whenever the lease has been renewed.
    """
    settings = settings or Settings()
    database = Database(settings.resolved_database_url)
    lease = Lease(job_id, attempt, owner or new_owner(socket.gethostname()))
    try:
        claimed_at = time.monotonic()
        claimed = claim(database, settings, lease, machine_facts())
        if claimed is None:
            return
        with (
            closing(Publisher(settings, job_id)) as publisher,
            Keeper(database, settings, lease, claimed_at, on_lost, on_renewed=on_renewed) as keeper,
        ):
            recorder = Recorder(keeper, publisher, settings, claimed.next_id, claimed.job.total)
            _Run(settings, database, claimed, keeper, recorder, preempted).run()
    except LeaseLost as error:
        logger.warning("%s", error)
    finally:
        database.close()


@dataclass
class _Run:
    """One claimed attempt."""

    settings: Settings
    database: Database
    claimed: Claimed
    keeper: Keeper
    recorder: Recorder
    preempted: Callable[[], bool]
    _preempted_at: float | None = field(default=None, init=False)
    _runtime: dict[str, Any] = field(default_factory=dict, init=False)
    _identical: bool = field(default=True, init=False)  # so far, to an uninterrupted run with this runtime

    def run(self) -> None:
        """Raises LeaseLost, and what the database raises when it is away for longer than the lease."""
        lease, spec = self.keeper.lease, self.claimed.spec
        try:
            if isinstance(spec, ModelsError):
                raise spec
            if isinstance(spec, MetaTrainSpec):
                self._train(spec)
            else:
                self._evaluate(spec)
        except Cancelled:
            self.recorder.finish(self._after_events(lambda session, id_: leases.cancelled(session, lease, id_)))
        except Preempted:
            self.recorder.finish(self._after_events(lambda session, _id: leases.release(session, lease)))
        except RankLost as error:
            # A SIGTERM to all of a container's processes reaches the ranks too.
            self._retry(f"worker_lost: {error}", release=self.preempted())
        except (LeaseLost, DatabaseUnavailable):
            raise  # nothing can be written any more
        except (ModelsError, GradsmithError, OptimizerNotFound, DamagedData) as error:
            self._fail(str(error))
        except (MemoryError, torch.OutOfMemoryError) as error:
            self._fail(f"out_of_memory: {error}; use fewer tasks, a shorter unroll_steps or a larger worker")
        except Exception as error:
            logger.exception("job %s attempt %d failed", lease.job_id, lease.attempt)
            self.recorder.say("log", {"level": "error", "message": traceback.format_exc()})
            self._fail(f"internal_error: {type(error).__name__}: {error}")

    # --- meta_train ----------------------------------------------------------------------------------------------

    def _train(self, spec: MetaTrainSpec) -> None:
        self._note_runtime(build(spec.recipe.rule.model_dump()), spec)
        result: TrainingResult | None = None
        checkpointed = time.monotonic()
        with closing(self._begin_training(spec)) as stream:  # whatever ends it ends the job's ranks
            for happened in stream:
                match happened:
                    case MetaStep():
                        self.recorder.point(happened.step, happened.loss, happened.gradient_norm)
                    case Validated():
                        self.recorder.score(happened.step, happened.score)
                    case Restarted():
                        message = f"meta-step {happened.step}: {happened.reason}"
                        self.recorder.say("log", {"level": "warning", "message": message})
                    case TrajectoryEnd():
                        interval = self.settings.checkpoint_interval_seconds
                        stopping = self.preempted()  # asked once: no job is handed back without its checkpoint
                        if stopping or time.monotonic() - checkpointed >= interval:
                            self._write_checkpoint(happened)
                            checkpointed = time.monotonic()
                        if stopping:
                            raise Preempted
                    case TrainingResult():
                        result = happened
                    case Working():
                        pass  # in the middle of something long: only to look around
                self._look_around()
        assert result is not None, "meta_train ends with its result"
        self._register(spec, result)

    def _begin_training(self, spec: MetaTrainSpec) -> Generator[Any, None, None]:
        """The stream of events from the newest checkpoint, if there is one that can be used."""
        checkpoint = self.claimed.checkpoint
        if checkpoint is not None:
            stream = self._science(spec, checkpoint.content)
            try:
                first = next(stream)
            except CheckpointMismatch as error:
                logger.warning("job %s starts anew: %s", self.keeper.lease.job_id, error)
                self.recorder.say("log", {"level": "warning", "message": f"starting anew: {error}"})
            else:
                self._announce(checkpoint)
                yield first
                yield from stream
                return
        self._announce(None)
        yield from self._science(spec, None)

    def _science(self, spec: MetaTrainSpec, resume: bytes | None) -> Iterator[Any]:
        data_dir, threads = self.settings.data_dir, self._runtime["threads"]
        if spec.resources.processes > 1:
            return train_in_ranks(spec, data_dir=data_dir, resume=resume, threads=threads)
        return meta_train(spec, data_dir=data_dir, resume=resume, threads=threads)

    def _write_checkpoint(self, end: TrajectoryEnd) -> None:
        content = end.checkpoint()

        def put(session: Session, event: Event) -> None:
            checkpoints.put(
                session,
                self.keeper.lease,
                end.step,
                event.id,
                content,
                runtime=self._runtime,
                identical=self._identical,
            )

        self.recorder.say_with("checkpoint", {"step": end.step}, put)

    def _register(self, spec: MetaTrainSpec, result: TrainingResult) -> None:
        card = {
            "family": spec.family.name,
            "tasks": spec.family.tasks.model_dump(mode="json"),
            "overrides": spec.family.overrides,
            "seed": spec.seed,
            "horizon": spec.recipe.horizon,
            "recipe": spec.recipe.model_dump(mode="json"),
            "training": result.summary | measured_facts(spec),
            "runtime": self._runtime,
        }

        def finish(session: Session, last_events: list[Event], done_id: EventId) -> Event:
            return outcomes.finish_training(
                session,
                self.keeper.lease,
                done_id,
                weights=result.weights,
                validation_score=result.validation_score,
                card=card,
                last_events=last_events,
            ).event

        self.recorder.finish(finish)

    # --- evaluate ------------------------------------------------------------------------------------------------

    def _evaluate(self, spec: EvaluateSpec) -> None:
        def read(session: Session, _again: bool) -> bytes:
            registry = Registry(session, self.claimed.job.workspace)
            return registry.weights(registry.resolve(spec.optimizer))

        weights = self.keeper.write(read)
        self._note_runtime(rule_weights.loads(weights), spec)
        self._announce(None)
        result: dict[str, Any] | None = None
        message = None
        for happened in evaluate(weights, spec, data_dir=self.settings.data_dir, threads=self._runtime["threads"]):
            match happened:
                case EvaluationProgress():
                    if happened.message != message:
                        message = happened.message
                        self.recorder.say("log", {"level": "info", "message": message})
                    self.recorder.progress(happened.step, happened.total)
                case EvaluationResult():
                    result = happened.result
            self._look_around()
            if self.preempted():
                raise Preempted  # an evaluation starts anew
        assert result is not None, "evaluate ends with its result"
        final: dict[str, Any] = result

        def finish(session: Session, last_events: list[Event], done_id: EventId) -> Event:
            return outcomes.finish_evaluation(
                session, self.keeper.lease, done_id, result=final, last_events=last_events
            ).event

        self.recorder.finish(finish)

    # --- both ----------------------------------------------------------------------------------------------------

    def _note_runtime(self, rule: Rule, spec: MetaTrainSpec | EvaluateSpec) -> None:
        """Find out what will compute this job, and write it down; then refuse what this worker cannot hold.

        Raises DeviceUnavailable, BackendUnavailable and TooLittleMemory.
        """
        most_threads = max(1, (self.settings.worker_threads or usable_cpus()) // spec.resources.processes)
        self._runtime = runtime = runtime_facts(rule, spec, most_threads)
        lease = self.keeper.lease
        self.keeper.note(self.keeper.write(lambda session, _again: leases.ran_on(session, lease, runtime)))
        refuse_too_large(runtime, self.settings.worker_memory_bytes)

    def _announce(self, resume: Checkpoint | None) -> None:
        """The first events of an attempt. `resumed` tells clients which points of earlier attempts still stand."""
        attempt = self.keeper.lease.attempt
        self._identical = resume is None or (resume.identical and same_bits(resume.runtime, self._runtime))
        self.recorder.begin(resume.step if resume else 0)
        if attempt > 1:
            data: dict[str, Any] = {"from_step": resume.step if resume else 0}
            if resume is not None:
                data["identical"] = self._identical
            self.recorder.say("resumed", data)
        self.recorder.say("status", {"status": "running", "attempt": attempt, "reason": None}, at_once=True)

    def _look_around(self) -> None:
        """Between two events: is the job still wanted, and this process still ours?"""
        if self.keeper.cancelling:
            raise Cancelled
        if self.preempted():
            now = time.monotonic()
            self._preempted_at = self._preempted_at or now
            if now - self._preempted_at > PREEMPTION_SECONDS:
                raise Preempted  # the next attempt goes on from the checkpoint before

    def _retry(self, reason: str, *, release: bool) -> None:
        """The next attempt goes on from the last checkpoint. It counts as a lost worker, unless it is a release."""
        lease, most, backoff = self.keeper.lease, self.settings.max_lost_workers, self.settings.retry_backoff_seconds
        logger.warning("job %s attempt %d: %s", lease.job_id, lease.attempt, reason)

        def end(session: Session, id_: EventId) -> Event:
            if release:
                return leases.release(session, lease)
            return leases.lost_part(session, lease, reason, most, backoff, id_)

        self.recorder.finish(self._after_events(end))

    def _fail(self, reason: str) -> None:
        lease = self.keeper.lease
        self.recorder.finish(self._after_events(lambda session, id_: leases.fail(session, lease, reason, id_)))

    def _after_events(
        self, end: Callable[[Session, EventId], Event]
    ) -> Callable[[Session, list[Event], EventId], Event]:
        """`end`, with the job's last events stored before it in the same transaction."""

        def finish(session: Session, last_events: list[Event], done_id: EventId) -> Event:
            leases.record(session, self.keeper.lease, last_events)
            return end(session, done_id)

        return finish
