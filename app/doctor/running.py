"""The service that `serve` started on the data folder: as its server.json names it, and as it answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from app.commands import command
from app.doctor.findings import Finding, fail, ok, warn
from app.settings import Settings

if TYPE_CHECKING:
    from app.doctor import Patient

RECORD = "server.json"
PATIENCE_SECONDS = 3.0


@dataclass(frozen=True)
class Running:
    """`checks` are those of its /readyz, None where no Gradsmith answers at `url`; `keyed` is whether it asks for
    keys."""

    url: str
    process: int
    checks: dict[str, str] | None
    keyed: bool = field(default=False)


def found(settings: Settings) -> Running | None:
    """What server.json says, asked whether it is so; None where there is none. Raises ValueError when it is no such
    record."""
    path = settings.data_dir / RECORD
    try:
        told = json.loads(path.read_text())
        url, process = str(told["url"]), int(told["pid"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    _, ready = _asked(url, "/readyz")
    checks = ready.get("checks") if isinstance(ready, dict) else None
    if not isinstance(checks, dict):
        return Running(url, process, None)
    status, _ = _asked(url, "/jobs?limit=1")
    return Running(url, process, {str(name): str(said) for name, said in checks.items()}, status == 401)


def answers(patient: Patient) -> Running | None:
    """The service, if it answers."""
    try:
        running = patient.running
    except ValueError:
        return None
    return running if running is not None and running.checks is not None else None


def service(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    try:
        running = patient.running
    except ValueError as error:
        yield warn("service", str(error), f"delete it, and start the service: {command('serve', settings)}")
        return
    if running is None:
        yield _none(settings)
        return
    if running.checks is not None:
        yield _answering(running, running.checks)
        return
    place = f"{settings.data_dir / RECORD} names process {running.process} at {running.url}"
    if _is_there(running.process):
        yield fail(
            "service",
            f"{place}; a process of that number is there, and no Gradsmith answers within {PATIENCE_SECONDS:.0f} s",
            f"look at the end of {settings.data_dir / 'logs' / 'api.log'}; if that process is `serve`, stop it "
            f"(`kill {running.process}`) and start it again: {command('serve', settings)}",
        )
        return
    yield fail(
        "service",
        f"none runs: {place}, which is gone without having said so (killed, or the power failed)",
        f"start it again: {command('serve', settings)}; jobs go on when their leases have run out",
    )


def _none(settings: Settings) -> Finding:
    if settings.database_url is not None and settings.redis_url is not None:
        return ok("service", "none was started by `serve` on this data folder; parts started by hand leave no record")
    return warn("service", "none runs on this data folder", f"start it: {command('serve', settings)}")


def _answering(running: Running, checks: dict[str, str]) -> Finding:
    keys = "asks for keys" if running.keyed else "asks for no keys"
    place = f"answers at {running.url} (process {running.process}), {keys}"
    # without the advice to call the doctor
    away = "; ".join(f"{name} {said.partition(': `')[0]}" for name, said in checks.items() if said != "ok")
    if checks.get("database") != "ok":
        return fail("service", f"{place}, and is not ready: {away}", "the line of that store says what to do")
    if away:
        return warn("service", f"{place}, degraded: {away}", "the line of that store says what to do")
    return ok("service", place)


def _is_there(process: int) -> bool:
    with contextlib.suppress(OSError):  # no /proc, or no such process: asked below
        # of one that has ended and that nobody has waited for, only its number is left
        return not Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].startswith(" Z")
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _asked(url: str, path: str) -> tuple[int, Any]:
    """Status and JSON of a GET; (0, None) where nobody answers or not in JSON."""
    try:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_SECONDS)
    except (ValueError, http.client.InvalidURL):
        return 0, None
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read(100_000))
    except (OSError, http.client.HTTPException, ValueError):
        return 0, None
    finally:
        connection.close()
