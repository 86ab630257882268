"""An `evaluate` job: read the optimizer's weights, measure them, store the result. It is never resumed."""

from __future__ import annotations

from sqlalchemy.orm import Session

from app.store.registry import Registry
from gradsmith.rules import weights as rule_weights
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
    measure(attempt, evaluate(weights, spec, data_dir=data_dir, threads=threads))


def _weights(attempt: Attempt, spec: EvaluateSpec) -> bytes:
    def read(session: Session, _again: bool) -> bytes:
        registry = Registry(session, attempt.claimed.job.workspace)
        return registry.weights(registry.resolve(spec.optimizer))

    return attempt.keeper.write(read)
