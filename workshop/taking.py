"""What becomes of a spec that somebody sends: it is refused with a pointer, or it trains a step.

python -m workshop.taking COUNT SEED [expressions]    # prints how many of each outcome there were, as JSON
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck
from hypothesis import strategies as st
from pydantic import ValidationError

import migrations
from app.http.problems import Problem
from app.jobs.declared_tasks import Workspace
from app.jobs.declaring import FamilyRequest, declared_family
from app.store.datasets import Datasets, keep
from app.store.families import DeclaredFamilies
from app.store.sessions import Database
from models.datasets.blobs import blobs_of
from models.datasets.inspection import inspected
from models.errors import DatasetMissing, ModelsError
from models.families import lacking_data
from models.memory import memory_estimate_bytes
from models.meta_train import TrainingResult, meta_train
from models.spec import MetaTrainSpec, Resources
from workshop.made_expressions import expression_specs
from workshop.made_specs import TABLE, specs

STEP: dict[str, Any] = {
    "meta_steps": 1, "horizon": 2, "unroll_steps": 2, "tasks": 1, "pool": 1, "validation_tasks": 1, "starts": 1,
    "validation_interval": 1, "shortest_horizon": None, "validation_horizons": [], "rollback": None, "patience": None,
}  # fmt: skip
"""A recipe of one meta-step of two inner steps."""
ROOM_BYTES = 2**30


@contextmanager
def workspace(folder: Path) -> Iterator[Workspace]:
    """One with a table of 12 groups, in a data folder and a database of its own."""
    url = f"sqlite:///{folder}/specs.db"
    migrations.upgrade(url)
    database = Database(url)
    drawn = random.Random(0)
    lines = ["who,a,b,bought"]
    lines += [f"w{n % 12},{drawn.gauss(0, 1):.3f},{drawn.gauss(0, 1):.3f},{drawn.randrange(2)}" for n in range(120)]
    blobs = blobs_of(folder)
    with blobs.arriving() as arrival:
        arrival.write("\n".join(lines).encode())
        arrival.flush()
        found = inspected(arrival.path, inputs=["a", "b"], target="bought", group="who")
        keep(database, blobs, arrival, found, TABLE, "default")
    try:
        with database.read() as session:
            yield Workspace(Datasets(session), DeclaredFamilies(session))
    finally:
        database.close()


def outcome(tasks: dict[str, Any], there: Workspace, data_dir: Path) -> str:
    """`refused`, `too large`, `without its data`, `diverged` or `trained`. Raises AssertionError where it is refused
    without saying where, and whatever else a training raises that it should not."""
    try:
        request = FamilyRequest(name="made", tasks=tasks, recipe=STEP)
        family = declared_family(request, there.datasets, there.families)
    except Problem as refused:
        place = refused.errors[0].pointer if refused.errors else ""
        if not place.startswith("/tasks"):
            raise AssertionError(f"refused without its place ({place!r}): {refused.detail}") from refused
        if refused.errors[0].code == "expression" and not _has_column(tasks, refused.errors[0].message):
            raise AssertionError(f"refused without a column of its text: {refused.detail}") from refused
        return "refused"
    seed = int(hashlib.sha256(family.model_dump_json().encode()).hexdigest()[:8], 16)
    try:
        spec = MetaTrainSpec(
            family=family,
            seed=seed,
            recipe=family.recipe,
            evaluate=False,
            evaluation=family.evaluation,
            resources=Resources(backend="torch"),
        )
    except ValidationError as error:
        raise AssertionError(f"declared, but no job can train on it: {error}") from error
    if lacking_data(family.tasks, data_dir) is not None:
        return "without its data"
    if memory_estimate_bytes(spec) > ROOM_BYTES:
        return "too large"
    try:
        *_, last = meta_train(spec, data_dir=data_dir, threads=1)
    except DatasetMissing:
        return "without its data"  # which a worker would fetch, and cannot here
    except ModelsError as told:  # which a job's status says, such as that all losses were infinite
        return f"failed: {type(told).__name__}"
    assert isinstance(last, TrainingResult)
    return "trained"


def _has_column(tasks: dict[str, Any], message: str) -> bool:
    """Whether the message names a column of the loss or of a definition, the one after its end included."""
    found = re.match(r"(?:loss|definition (\d+)), column (\d+): ", message)
    if found is None:
        return False
    text = tasks["definitions"][int(found[1]) - 1] if found[1] else tasks["loss"]
    return 1 <= int(found[2]) <= len(text) + 1


def outcomes(
    count: int, seed: int, folder: Path, made_by: st.SearchStrategy[dict[str, Any]] | None = None
) -> Counter[str]:
    """What became of so many specs. Raises what `outcome` does, with the smallest spec that does it.

    made_by: default: of any kind
    """
    seen: Counter[str] = Counter()
    told = hypothesis.settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    with workspace(folder) as there:

        @hypothesis.seed(seed)
        @told
        @hypothesis.given(specs() if made_by is None else made_by)
        def each(made: dict[str, Any]) -> None:
            seen[outcome(made, there, folder)] += 1

        each()
    return seen


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made_in:
        made_by = expression_specs() if "expressions" in sys.argv[3:] else None
        print(json.dumps(outcomes(int(sys.argv[1]), int(sys.argv[2]), Path(made_in), made_by)))
