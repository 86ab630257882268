"""`gradsmith-server doctor`: looks at everything that the service needs, changes nothing, and says what to do.

It never imports torch; what only torch can tell (kernel, GPU, data sets) a program of the workers tells it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from app.doctor import running
from app.doctor.findings import Finding, Outcome, document, exit_code, fail, line, ok, summary, warn
from app.doctor.running import Running
from app.settings import Settings, misspelt

__all__ = ["Finding", "Outcome", "Patient", "document", "examine", "exit_code", "fail", "line", "summary"]


@dataclass(frozen=True)
class Patient:
    """What is looked at. `free_bytes` is how much of a disk should be free."""

    settings: Settings
    free_bytes: int = 500 * 2**20

    @cached_property
    def running(self) -> Running | None:
        """The service on the data folder, asked once. Raises ValueError when its record cannot be read."""
        return running.found(self.settings)


def examine(patient: Patient, environment: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Every check in turn, as soon as it is known. Takes some seconds: torch is imported once, elsewhere."""
    from app.doctor import machine, service, stores, tables  # what they import would delay the first line

    yield from _of_settings(patient.settings, os.environ if environment is None else environment)
    checks: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
        machine.data_folder,
        machine.disk,
        running.service,
        stores.database,
        stores.stored_data,
        tables.users_tables,
        stores.redis_server,
        service.workers,
        service.address,
        service.keys,
        machine.what_workers_have,
    )
    for check in checks:
        yield from check(patient)


def _of_settings(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    unknown = misspelt(environment)
    for sentence in unknown:
        yield warn("settings", sentence.partition(": ")[0], sentence.partition(": ")[2])
    if settings.lease_renewal_seconds * 2 > settings.lease_seconds:
        yield warn(
            "settings",
            f"GRADSMITH_LEASE_RENEWAL_SECONDS={settings.lease_renewal_seconds:g} leaves no room in "
            f"GRADSMITH_LEASE_SECONDS={settings.lease_seconds:g}: one slow renewal loses a job",
            "set the lease to four times its renewal",
        )
    elif not unknown:
        changed = sorted(settings.model_fields_set)
        yield ok("settings", f"valid; set: {', '.join(changed) if changed else 'none, all defaults'}")
