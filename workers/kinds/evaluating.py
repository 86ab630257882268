"""An `evaluate` job: read the optimizer's weights, measure them, store the result. It is never resumed."""

from __future__ import annotations

from sqlalchemy.orm import Session

from app.store import baseline_runs
from app.store.registry import Registry
from gradsmith.rules import weights as rule_weights
from models.evaluation.baseline_runs import Stored
from models.evaluation.evaluate import evaluate
from models.spec import EvaluateSpec
from workers.attempt import Attempt
from workers.measuring import measure


def run(attempt: Attempt, spec: EvaluateSpec) -> None:
    """Raises as `workers.kinds.run` says."""
    weights = _weights(attempt, spec)
    attempt.settle(rule_weights.loads(weights), spec)
    attempt.announce(None)
    data_dir, threads = attempt.settings.data_dir, attempt.runtime["threads"]
    measure(attempt, evaluate(weights, spec, data_dir=data_dir, threads=threads, store=_BaselineRuns(attempt)))


class _BaselineRuns:
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


def _weights(attempt: Attempt, spec: EvaluateSpec) -> bytes:
    def read(session: Session, _again: bool) -> bytes:
        registry = Registry(session, attempt.claimed.job.workspace)
        return registry.weights(registry.resolve(spec.optimizer))

    return attempt.keeper.write(read)
