"""Our service as `gradsmith-server serve` starts it, and its database from the side of a worker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.host.tether import tethered
from app.settings import Settings
from app.store.sessions import Database

ROOT = Path(__file__).parents[1]
START_SECONDS = 300.0  # on a machine that does much else; one that ended is noticed at once
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Service:
    """A running service. `settings` and `database` are what a worker of it would have."""

    url: str
    settings: Settings
    database: Database


@contextmanager
def service(
    database_url: str | None,
    *,
    api_processes: int = 1,
    workers: int = 0,
    changes: Mapping[str, str] | None = None,
    data: Path | None = None,
    checkout: Path = ROOT,
) -> Iterator[Service]:
    """Runs a service until the block ends.

    database_url: None for SQLite; changes: environment variables; data: its folder, which stays; None for a temporary
    one; checkout: the version of the project that serves. Raises RuntimeError with the server's own words when it does
    not start.
    """
    kept, data = data is not None, data or Path(tempfile.mkdtemp(prefix="gs-bench-"))
    data.mkdir(parents=True, exist_ok=True)
    log, record = data / "serve.log", data / "server.json"
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    environment |= {"PYTHONPATH": f"{checkout}{os.pathsep}{checkout / 'sdk'}", **(changes or {})}
    if database_url is not None:
        environment["DATABASE_URL"] = database_url
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--data", str(data)]
    command += ["--workers", str(workers), "--api-processes", str(api_processes)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            tethered(command),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=checkout,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_SECONDS
        while not record.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the service did not start. It said:\n{log.read_text(errors='replace')[-1000:]}")
            time.sleep(0.05)
        settings = Settings(data_dir=data, database_url=database_url, redis_url=None)
        with Database(settings.resolved_database_url) as database:
            yield Service(json.loads(record.read_text())["url"], settings, database)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()  # everything below dies with it
            process.wait()
        if not kept:
            shutil.rmtree(data, ignore_errors=True)
