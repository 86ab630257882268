from __future__ import annotations

import pytest

from app.settings import Settings
from app.store.sessions import Database
from tests.workers.harness import QUICK


@pytest.fixture
def quick(settings: Settings, database_url: str) -> Settings:
    """Settings with short leases, on each of the two databases."""
    return settings.model_copy(update={**QUICK, "database_url": database_url})


@pytest.fixture
def quick_sqlite(settings: Settings) -> Settings:
    return settings.model_copy(update=QUICK)


@pytest.fixture
def jobs(database: Database) -> Database:
    """The database that `quick` names."""
    return database
