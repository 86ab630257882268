"""The API against its own OpenAPI document, by schemathesis with every check: no 5xx, and every answer as documented.

`./run bench fuzz` is the long form.
"""

from __future__ import annotations

from typing import Any

import pytest

from app.settings import Settings
from workshop.fuzzing import fuzzed_server


def answers_as_documented(settings: Settings, database_url: str, auth: Any, phases: str, examples: int) -> None:
    changes = {"database_url": database_url, "auth": auth, "worker_memory_bytes": 8 * 2**30}
    options = ("--phases", phases, "--max-examples", str(examples), "--seed", "1", "--generation-deterministic")
    with fuzzed_server(settings.model_copy(update=changes)) as server:
        done = server.schemathesis(*options)
    assert done.returncode == 0, done.stdout
    for phase in phases.split(","):
        assert f"✅ {phase.capitalize()}" in done.stdout, done.stdout  # none of them left out


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_examples_on_postgres_with_keys(settings: Settings, postgres_url: str) -> None:
    """The stricter of the two databases, and every operation with a key. test_links.py follows the links."""
    answers_as_documented(settings, postgres_url, "on", "examples", examples=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("auth", ["auto", "on"])
def test_every_bound_of_every_parameter(settings: Settings, database_url: str, auth: Any) -> None:
    answers_as_documented(settings, database_url, auth, "examples,coverage,fuzzing,stateful", examples=20)
