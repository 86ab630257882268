"""The API against its own OpenAPI document, by schemathesis with every check: no 5xx, and every answer as documented.

A few cases of each kind, always the same; `./run bench fuzz` is the long form.
"""

from __future__ import annotations

from typing import Any

import pytest

from app.settings import Settings
from tests.app.api.fuzzing import fuzzed_server

FEW = ("--phases", "examples,fuzzing,stateful", "--max-examples", "3", "--seed", "1", "--generation-deterministic")


@pytest.mark.parametrize(("store", "auth"), [("sqlite", "auto"), ("postgres", "on")])
def test_every_answer_is_as_documented(
    settings: Settings, request: pytest.FixtureRequest, store: str, auth: Any
) -> None:
    url = request.getfixturevalue(f"{store}_url")
    fuzzed = settings.model_copy(update={"database_url": url, "auth": auth, "worker_memory_bytes": 8 * 2**30})
    with fuzzed_server(fuzzed) as server:
        done = server.schemathesis(*FEW)
    assert done.returncode == 0, done.stdout
    for phase in ("Examples", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in done.stdout, done.stdout  # none of them left out
