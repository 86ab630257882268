"""What an optimizer was made with: where its job's spec says it, and where its own record does."""

from __future__ import annotations

from typing import Any

from app.store.tables import JobRow, OptimizerRow


def made_with(optimizer: OptimizerRow, job: JobRow) -> dict[str, Any]:
    """Its family, recipe and seed, as they are stored. job: that of the optimizer

    A tuned baseline has the recipe whose validation scored it, with its own rule, and a schedule that stands for an
    optimizer has that of its training: an evaluation made them.
    """
    if not optimizer.tuned and optimizer.stands_for is None:
        return job.spec
    return {"family": job.spec["family"], "recipe": optimizer.card["recipe"], "seed": job.spec["seed"]}
