"""A small table of a user's, brought into a data folder."""

from __future__ import annotations

import random
from pathlib import Path

from models.datasets.blobs import blobs_of
from models.datasets.inspection import inspected, table
from models.table_spec import Table

GROUPS = 30


def rows() -> list[tuple[str, float, float, float | None, float, int, str]]:
    """group, three inputs of which some are missing, a number, a count and one of three classes"""
    drawn = random.Random(3)
    found = []
    for group in range(GROUPS):
        for _ in range(2 if group == 7 else drawn.randint(4, 20)):
            a, b, c = (drawn.gauss(group % 3, 2) for _ in range(3))
            y = 50 + 10 * (a - b) + drawn.gauss(0, 3)
            label = "low" if y < 40 else "high" if y > 60 else "mid"
            found.append((f"g{group}", a, b, None if drawn.random() < 0.1 else c, y, max(0, int(a)), label))
    return found


ROWS = rows()


def brought(data_dir: Path) -> dict[str, Table]:
    """The table with each target, with its groups and without: `y by group`, `y by None` ..."""
    lines = ["group,a,b,c,y,n,k,two"]
    for group, a, b, c, y, n, label in ROWS:
        lines.append(f"{group},{a!r},{b!r},{'' if c is None else repr(c)},{y!r},{n},{label},{int(y > 50)}")
    blobs = blobs_of(data_dir)
    found = {}
    for target in ("y", "n", "k", "two"):
        for by in ("group", None):
            with blobs.arriving() as arrival:
                arrival.write("\n".join(lines).encode())
                arrival.flush()
                seen = inspected(arrival.path, inputs=["a", "b", "c"], target=target, group=by)
                found[f"{target} by {by}"] = table("rows", arrival.sha256, seen)
                blobs.keep(arrival)
    return found
