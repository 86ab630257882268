"""`./run bench dashboard` looks at every view that the dashboard has."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.dashboard.browsing import routes

MAIN = Path(__file__).parents[2] / "app" / "static" / "dashboard" / "main.js"


def test_every_view_is_looked_at() -> None:
    stage: Any = SimpleNamespace(jobs=defaultdict(lambda: "job_1"))
    looked_at = {tuple(route.partition("?")[0].split("/")) for route in routes(stage).values()}
    views = dict(re.findall(r"^  (\w+): \{ title.* load: async (.*) \},$", MAIN.read_text(), re.MULTILINE))
    assert set(views) >= {"jobs", "optimizers", "families", "datasets", "compare", "system"}
    for view, loads in views.items():
        assert (view,) in looked_at
        if '=== "new"' in loads:
            assert (view, "new") in looked_at
        if loads.startswith("([id])"):
            assert any(route[0] == view and len(route) == 2 and route[1] != "new" for route in looked_at), view
