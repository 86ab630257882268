"""The parts together: do workers serve the queues, who has the port, is there a key where one is needed?"""

from __future__ import annotations

import errno
import http.client
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import redis
from sqlalchemy.exc import SQLAlchemyError

from app.auth import UnguardedAddress, is_loopback, keys_required, refuse_without_keys
from app.commands import command
from app.doctor.findings import Finding, fail, ok, warn
from app.doctor.running import answers
from app.doctor.stores import asked
from app.host.server import AddressError, bind
from app.metrics.collector import DEVICES, Fleet, fleet
from app.settings import Settings
from app.store import census
from app.store.census import Census
from app.store.errors import StoreError
from app.store.keys import any_usable
from app.store.sessions import Database

if TYPE_CHECKING:
    from app.doctor import Patient

STUCK_SECONDS = 60.0  # a doorbell that no dispatcher has rung for this long


def workers(patient: Patient) -> Iterator[Finding]:
    """Silent where a store is away: that has been said."""
    settings = patient.settings
    client = asked(settings)
    with client:
        try:
            found = fleet(client)
        except (redis.RedisError, OSError):
            return
    counted = _census(settings)
    for device in DEVICES:
        yield _of_queue(device, found, counted, settings)
    if counted is not None and counted.overdue:
        yield warn(
            "workers",
            f"running jobs whose worker is gone and that nobody has taken over: {counted.overdue}",
            "an API process does that within seconds: is one running?",
        )


def _of_queue(device: str, found: Fleet, counted: Census | None, settings: Settings) -> Finding:
    serving = sum(number for (queue, _), number in found.workers.items() if queue == device)
    busy = found.workers.get((device, "busy"), 0)
    queued = counted.jobs.get(("queued", device), 0) if counted is not None else 0
    start = f"start one: {command(f'worker --queues {device}', settings)}, or the service with `--workers N`"
    if not serving and queued:
        return fail("workers", f"{_jobs(queued, 'wait')} in the queue {device}, and no worker serves it", start)
    if not serving:
        if device == "gpu":
            return ok("workers", "none serves the queue gpu, and no job waits for one")
        return warn("workers", f"none serves the queue {device}; no job waits for one", start)
    waited = counted.waiting_seconds.get(device, 0.0) if counted is not None else 0.0
    if busy < serving and queued and waited > STUCK_SECONDS:
        return warn(
            "workers",
            f"{serving - busy} of {serving} workers of the queue {device} are idle while {_jobs(queued, 'wait')}, the "
            f"first for {waited:.0f} s",
            "the dispatcher runs in the API: is one running with this DATABASE_URL and REDIS_URL?",
        )
    return ok("workers", f"{serving} serve the queue {device}, {busy} busy; {_jobs(queued, 'wait')}")


def _jobs(number: int, verb: str) -> str:
    return f"1 job {verb}s" if number == 1 else f"{number} jobs {verb}"


def _census(settings: Settings) -> Census | None:
    try:
        with Database(settings.resolved_database_url) as database, database.read() as session:
            return census.take(session)
    except (StoreError, SQLAlchemyError):
        return None


def address(patient: Patient) -> Iterator[Finding]:
    if answers(patient) is not None:
        return  # its own line says where: that need not be what these settings say
    settings = patient.settings
    host, port = settings.host, settings.port
    shown = f"{host} port {port}"
    if _is_gradsmith(settings):
        yield ok("address", f"a Gradsmith server answers on {shown}")
        return
    try:
        bind(host, port).close()
    except AddressError as error:
        taken = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
        advice = f"another program has it (`ss -ltnp 'sport = :{port}'` shows which): `--port 0` takes any free port"
        yield fail(
            "address",
            str(error).partition(". ")[0],
            advice if taken else "name an address of this machine: GRADSMITH_HOST=127.0.0.1",
        )
        return
    yield ok("address", f"{shown} is free" if port else f"{host}, any free port")


def _is_gradsmith(settings: Settings) -> bool:
    if not settings.port:
        return False
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=3)
    try:
        connection.request("GET", "/healthz", headers={"Host": "localhost"})
        return bool(json.loads(connection.getresponse().read(1000)).get("status") == "ok")
    except (OSError, http.client.HTTPException, ValueError, AttributeError):
        return False
    finally:
        connection.close()


def keys(patient: Patient) -> Iterator[Finding]:
    """Checks the keys of the running service, else of the one that these settings would start."""
    settings = patient.settings
    service = answers(patient)
    if service is not None and service.keyed:
        yield from _of_a_keyed(settings)
        return
    if service is not None and is_loopback(urlsplit(service.url).hostname or "") and is_loopback(settings.host):
        yield ok("keys", "the running service asks for none")
        return
    if not keys_required(settings):
        if is_loopback(settings.host):
            yield ok("keys", f"none are asked for: {settings.host} is this machine alone")
        else:
            yield warn(
                "keys",
                f"none are asked for on {settings.host} (GRADSMITH_AUTH=off)",
                "be sure that something else guards that address, or remove GRADSMITH_AUTH",
            )
        return
    try:
        refuse_without_keys(settings)  # nor can there be one where there is no database yet
        with Database(settings.resolved_database_url) as database:
            refuse_without_keys(settings, database)
    except UnguardedAddress as error:
        yield fail("keys", *_first_sentence(str(error)))
    except (StoreError, SQLAlchemyError):
        return  # the database's own line says it
    else:
        yield ok("keys", "asked for, and there is one that is valid")


def _of_a_keyed(settings: Settings) -> Iterator[Finding]:
    try:
        with Database(settings.resolved_database_url) as database, database.read() as session:
            usable = any_usable(session)
    except (StoreError, SQLAlchemyError):
        return
    if usable:
        yield ok("keys", "the running service asks for them, and there is one that is valid")
    else:
        make = command("keys create --scope admin --name me", settings)
        yield fail("keys", "the running service asks for keys, and none is valid (any more)", f"make one: {make}")


def _first_sentence(text: str) -> tuple[str, str]:
    found, _, advice = text.partition(": ")
    return found, advice
