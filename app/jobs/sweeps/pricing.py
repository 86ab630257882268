"""What all jobs of a sweep take: its trials, and the evaluation of the best."""

from __future__ import annotations

from sqlalchemy.orm import Session

from app.jobs.sweeps.children import corners
from app.store import prices
from models.price import Seconds
from models.spec import SweepSpec

_PRICED = 16
"""Trials of a rung whose seconds are looked up, at most; the others are taken for their mean."""


def predicted(session: Session, workspace: str, spec: SweepSpec) -> Seconds | None:
    """Seconds of one worker. None where no trial was measured here, or no evaluation like that of the best."""
    total = Seconds()
    for size, meta_steps in spec.rungs:
        trials = list(corners(spec, meta_steps))
        stands = trials[:: -(-len(trials) // _PRICED)]
        found = [each for trial in stands if (each := prices.predicted(session, workspace, trial)) is not None]
        if not found:
            return None
        total += sum(found, Seconds()).times(size / len(found))
    best = stands[0].model_copy(update={"evaluate": spec.evaluate}).follow_up("")
    after = Seconds() if best is None else prices.predicted(session, workspace, best)
    return None if after is None else total + after
