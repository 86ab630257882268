from __future__ import annotations

import pytest

from app.store.sessions import Database
from tests.app.store.bench import Bench


@pytest.fixture
def bench(database: Database) -> Bench:
    """The store on both databases."""
    return Bench(database)
