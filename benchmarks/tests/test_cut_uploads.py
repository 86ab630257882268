"""A few cuts on a real server; and what is left behind is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

import migrations
from app.settings import Settings
from app.store.sessions import Database
from benchmarks import cut_uploads
from workshop import services
from workshop.served import Service
from workshop.serving import serving


def test_ten_cuts_leave_nothing_and_a_file_that_stays_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        redis = services.ValkeyServer()
    except services.NoServer as error:
        pytest.skip(str(error))
    url = f"sqlite:///{tmp_path / 'gradsmith.db'}"
    migrations.upgrade(url)
    settings = Settings(data_dir=tmp_path, database_url=url, redis_url=SecretStr(redis.url))
    with serving(settings) as address, Database(url) as database:
        over = Service(address, settings, database)
        lines, clean = cut_uploads.measured(over, 10, seed=3)
        assert clean, "\n".join(lines)
        assert "10 uploads were cut, and nothing was left behind" in "\n".join(lines)
        monkeypatch.setattr(cut_uploads, "SETTLED_SECONDS", 0.1)
        said: list[str] = []
        _, clean = cut_uploads.measured(over, 1, seed=3, say=said.append)  # what was sent whole is still there
        assert not clean
        assert "datasets: 3" in said[0]
    redis.close()
