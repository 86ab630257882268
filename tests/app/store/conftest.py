from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.store.sessions import Database
from tests.app.store.bench import Bench


@pytest.fixture
def bench(database: Database) -> Bench:
    """The store on both databases."""
    return Bench(database)


@pytest.fixture
def postgres_bench(postgres_url: str) -> Iterator[Bench]:
    """On Postgres alone: what needs two transactions that write at once."""
    with Database(postgres_url) as database:
        yield Bench(database)
