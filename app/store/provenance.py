"""What an optimizer was made with: where its job's spec says it, and where its own record does."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from app.store.tables import JobRow, OptimizerRow


def made_with(session: Session, optimizer: OptimizerRow) -> dict[str, Any]:
    """Its family, recipe and seed, as they are stored.

    A tuned baseline has the recipe whose validation scored it, with its own rule, and a schedule that stands for an
    optimizer has that of its training: an evaluation made them. One that was uploaded has what its file said.
    """
    if optimizer.uploaded is not None:
        found: dict[str, Any] = optimizer.uploaded["made_with"]
        return found
    job = session.get_one(JobRow, optimizer.job)
    if not optimizer.tuned and optimizer.stands_for is None:
        return job.spec
    return {"family": job.spec["family"], "recipe": optimizer.card["recipe"], "seed": job.spec["seed"]}
