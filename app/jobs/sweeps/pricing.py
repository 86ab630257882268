"""What all jobs of a sweep take: its trials, and the evaluation of the best."""

from __future__ import annotations

import random

from sqlalchemy.orm import Session

from app.jobs.sweeps.children import child
from app.jobs.sweeps.proposals import NothingFits, first_values
from app.store import prices
from models.price import Seconds
from models.spec import SweepSpec

_PRICED = 64
"""Trials whose seconds are looked up, at most, drawn at random; the others are taken for their mean."""


def predicted(session: Session, workspace: str, spec: SweepSpec) -> Seconds | None:
    """Seconds of one worker. None where no trial was measured here, or no evaluation like that of the best."""
    try:
        values = first_values(spec)
    except NothingFits:
        return None
    if len(values) > _PRICED:
        values = random.Random(spec.seed).sample(values, _PRICED)
    total = Seconds()
    for size, meta_steps in spec.rungs:
        trials = [child(spec, each, meta_steps) for each in values]
        found = [each for trial in trials if (each := prices.predicted(session, workspace, trial)) is not None]
        if not found:
            return None
        total += sum(found, Seconds()).times(size / len(found))
    if not spec.evaluate:
        return total
    measured = []
    for drawn in values:
        follow_up = child(spec, drawn).model_copy(update={"evaluate": True}).follow_up("")
        assert follow_up is not None
        if (seconds := prices.predicted(session, workspace, follow_up)) is not None:
            measured.append(seconds)
        if not any({"rule", "rules"} & {*axis.path} for axis in spec.space):
            break  # it takes as long for each
    return total + sum(measured, Seconds()).times(1 / len(measured)) if measured else None
