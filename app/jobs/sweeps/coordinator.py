"""The thread that advances sweeps, one in each API process: it queues their next children, and ends them.

It looks at the database alone, and does what is to be done there, whoever did what was done before. Two of these
threads, or one that was killed anywhere, make no trial twice and forget none: `proposals.plan` says the same to both,
and each write begins with the sweep's row locked and its children unchanged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import IntegrityError

from app.jobs.rounds import Rounds, tell
from app.jobs.sweeps.children import child
from app.jobs.sweeps.proposals import Plan, plan
from app.settings import Settings
from app.store import sweeps
from app.store.events import JobEvent
from app.store.jobs import Place, end, spec_of
from app.store.sessions import Database
from app.store.sweeps import Trial
from app.store.tables import JobRow
from models.errors import ModelsError
from models.spec import SweepSpec

logger = logging.getLogger("gradsmith.sweeps")


@dataclass
class Coordinator:
    """`start()` and `stop()` it with the process. `wake()` saves a new sweep the wait for a round."""

    settings: Settings
    database: Database
    queued: Callable[[], None] = lambda: None
    """Called when children were queued."""
    _rounds: Rounds = field(init=False)

    def __post_init__(self) -> None:
        self._rounds = Rounds("sweeps", logger, self._round)

    def start(self) -> None:
        self._rounds.start()

    def stop(self) -> None:
        """End the thread after its round."""
        self._rounds.stop()

    def wake(self) -> None:
        """Begin the next round now. Safe from any thread."""
        self._rounds.wake()

    def advance(self) -> int:
        """One round over all sweeps: queue what is to be queued, end what has ended. Returns how many were changed.

        Raises StoreError or SQLAlchemyError when the database is away; nothing is lost then.
        """
        with self.database.read() as session:
            found = sweeps.unfinished(session)
        return sum(self._advance(sweep) for sweep in found)

    def _advance(self, sweep: str) -> bool:
        with self.database.snapshot() as session:
            row = session.get(JobRow, sweep)
            trials = sweeps.trials(session, sweep)
        if row is None:
            return False
        try:
            spec = spec_of(row)
            assert isinstance(spec, SweepSpec)
            wanted = plan(spec, trials)
        except ModelsError as error:
            return self._fail(sweep, str(error))
        except Exception as error:
            logger.exception("sweep %s failed", sweep)
            return self._fail(sweep, f"internal_error: {type(error).__name__}: {error}")
        done = sum(trial.ended for trial in trials)
        stopping = row.status == "cancelling"
        over = done == len(trials) if stopping else wanted.ended
        if not over and (stopping or not wanted.proposals) and (row.step, row.total) == (done, wanted.total):
            return False
        try:
            event = self._write(sweep, spec, trials, wanted)
        except IntegrityError:  # the index is the last guard, should anyone write without the lock
            logger.warning("another process made the same trials of sweep %s", sweep)
            return False
        if event is not None:
            tell(self.settings, sweep, event)
        elif wanted.proposals:
            self.queued()
        return True

    def _write(self, sweep: str, spec: SweepSpec, trials: Sequence[Trial], wanted: Plan) -> JobEvent | None:
        """Do what is wanted, unless something has changed since: the next round sees it. The event of its end."""
        with self.database.write() as session:
            row = sweeps.locked(session, sweep)
            if row is None or sweeps.statuses(session, sweep) != [trial.status for trial in trials]:
                return None
            row.step, row.total = sum(trial.ended for trial in trials), wanted.total
            if row.status == "cancelling":
                return end(session, row, "cancelled", None, None) if row.step == len(trials) else None
            if not wanted.ended:
                children = [
                    (each.training, Place(sweep, each.number, each.rung, each.values)) for each in wanted.proposals
                ]
                sweeps.add(session, row, children)
                return None
            best = min(
                (trial for trial in trials if trial.score is not None), key=lambda trial: trial.rank, default=None
            )
            if best is None or best.optimizer is None:
                return sweeps.finish(session, row, None, _none_succeeded(trials), None)
            steps = spec.rungs[best.rung][1]
            training = child(spec, best.values, steps).model_copy(update={"evaluate": spec.evaluate})
            follow_up = training.follow_up(best.optimizer)
            if follow_up is not None:
                self.queued()
            return sweeps.finish(session, row, best.optimizer, _shortcomings(trials, best), follow_up)

    def _fail(self, sweep: str, reason: str) -> bool:
        with self.database.write() as session:
            row = sweeps.locked(session, sweep)
            event = None if row is None else sweeps.fail(session, row, reason)
        if event is not None:
            tell(self.settings, sweep, event)
        return event is not None

    def _round(self) -> None:
        self._rounds.woken.clear()
        self._rounds.attempt("advancing the sweeps", self.advance)
        self._rounds.woken.wait(self.settings.dispatch_interval_seconds)


def _none_succeeded(trials: Sequence[Trial]) -> str:
    first = next((trial for trial in trials if trial.reason), None)
    why = f"; trial {first.number}: {first.reason}" if first is not None else ""
    return f"none of its {len(trials)} children has a validation score{why}"


def _shortcomings(trials: Sequence[Trial], best: Trial) -> str | None:
    """What is to be said of a sweep that succeeded, if anything is."""
    without = [trial.number for trial in trials if trial.score is None]
    said = []
    if without:
        numbers = ", ".join(map(str, without[:10])) + (" and more" if len(without) > 10 else "")
        said.append(f"{len(without)} of its {len(trials)} children have no validation score: trials {numbers}")
    if not best.automatic:
        said.append(f"its best child (trial {best.number}) is {best.reason}")
    return "; ".join(said) or None
