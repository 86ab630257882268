"""A `preview` job: tune baselines, store how they do. It is never resumed, and makes no optimizer."""

from __future__ import annotations

from models.preview import preview
from models.spec import PreviewSpec
from workers.attempt import Attempt
from workers.measuring import BaselineRuns, helpers_within, measure


def run(attempt: Attempt, spec: PreviewSpec) -> None:
    """Raises as `workers.kinds.run` says."""
    attempt.settle(None, spec)
    attempt.announce(None)
    memory_bytes = attempt.settings.worker_memory_bytes
    asked = None if spec.training is None else spec.training.follow_up("")
    science = preview(
        spec,
        data_dir=attempt.settings.data_dir,
        store=BaselineRuns(attempt),
        threads=attempt.runtime["threads"],
        processes=1 if asked is None else 1 + helpers_within(attempt.cores, memory_bytes, asked),
    )
    measure(attempt, science)
