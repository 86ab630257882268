"""A `preview` job: tune baselines, store how they do. It is never resumed, and makes no optimizer."""

from __future__ import annotations

from models.evaluation.sharing import helpers_for
from models.preview import preview
from models.runtime import device_of
from models.spec import PreviewSpec
from workers.attempt import Attempt
from workers.measuring import BaselineRuns, measure


def run(attempt: Attempt, spec: PreviewSpec) -> None:
    """Raises as `workers.kinds.run` says."""
    attempt.settle(None, spec)
    attempt.announce(None)
    science = preview(
        spec,
        data_dir=attempt.settings.data_dir,
        store=BaselineRuns(attempt),
        threads=attempt.runtime["threads"],
        processes=1 + helpers_for(attempt.cores, device_of(spec.resources)),
    )
    measure(attempt, science)
