"""One process's metrics as the text that Prometheus reads."""

from __future__ import annotations

import os
import re
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    multiprocess,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from app.metrics.collector import ServiceCollector
from app.metrics.instruments import SHARED_FOLDER, Instruments
from app.settings import Settings
from app.store.sessions import Database

MEDIA_TYPE = CONTENT_TYPE_LATEST

disable_created_metrics()  # type: ignore[no-untyped-call]  # a third of the text, and no operator's question


class Metrics:
    """`instruments` count what this process does; `render` tells all. `open` and `close` it with the stores."""

    def __init__(self, settings: Settings, version: str) -> None:
        self._settings, self._version = settings, version
        folder = os.environ.get(SHARED_FOLDER)
        self._folder = Path(folder) if folder else None
        own = CollectorRegistry()
        self.instruments = Instruments(own)
        if self._folder is None:
            ProcessCollector(registry=own)
            PlatformCollector(registry=own)
            GCCollector(registry=own)
            self._shown = own
        else:  # what all the processes of this address have counted
            self._shown = CollectorRegistry()
            multiprocess.MultiProcessCollector(self._shown, path=str(self._folder))  # type: ignore[no-untyped-call]
        self._service: ServiceCollector | None = None

    def open(self, database: Database) -> None:
        self._service = ServiceCollector(self._settings, database, self._version)
        self._shown.register(self._service)

    def close(self) -> None:
        if self._service is not None:
            self._shown.unregister(self._service)
            self._service.close()
            self._service = None

    def render(self) -> bytes:
        """The text; asks the stores at most once a second."""
        if self._folder is not None:
            _forget_the_dead(self._folder)
        return generate_latest(self._shown)


def _forget_the_dead(folder: Path) -> None:
    """A process that was killed no longer has clients or requests; what it counted before stays counted."""
    for path in folder.glob("gauge_live*.db"):
        found = re.search(r"_(\d+)\.db$", path.name)
        if found and not Path(f"/proc/{found[1]}").exists() and Path("/proc/self").exists():
            path.unlink(missing_ok=True)
