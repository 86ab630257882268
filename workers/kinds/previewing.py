"""A `preview` job: tune baselines, store how they do. It is never resumed, and makes no optimizer."""

from __future__ import annotations

from models.preview import preview
from models.spec import PreviewSpec
from workers.attempt import Attempt
from workers.measuring import BaselineRuns, measure


def run(attempt: Attempt, spec: PreviewSpec) -> None:
    """Raises as `workers.kinds.run` says."""
    attempt.settle(None, spec)
    attempt.announce(None)
    data_dir, threads = attempt.settings.data_dir, attempt.runtime["threads"]
    measure(attempt, preview(spec, data_dir=data_dir, store=BaselineRuns(attempt), threads=threads))
