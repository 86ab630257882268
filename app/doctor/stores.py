"""The database and Redis: reached, right, and able to keep what they are given."""

from __future__ import annotations

import shlex
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.commands import command
from app.doctor.findings import Finding, fail, ok, warn
from app.doctor.running import answers
from app.host.embedded import EmbeddedStoreError, find_binary
from app.logs import scrub
from app.metrics.writable import refusal, try_write
from app.settings import Settings, embedded_socket
from app.store import integrity, sqlite
from app.store.errors import DatabaseBusy, DatabaseUnavailable, SchemaIncomplete, SchemaMismatch, StoreError
from app.store.sessions import Database
from app.store.sqlite import file_of, missing_file
from app.store.tables import SCHEMA_REVISION

if TYPE_CHECKING:
    from app.doctor import Patient

OLDEST_REDIS = (6, 2)  # RQ takes its jobs by LMOVE
LARGEST_CHECKED_BYTES = 2 * 2**30  # reading every page of a larger file takes more than seconds
SLOW_SECONDS = 0.5
PATIENCE_SECONDS = 3.0  # for an answer, and for another writer


def asked(settings: Settings) -> redis.Redis:
    """A client that answers or gives up within the doctor's patience."""
    return redis.Redis.from_url(
        settings.resolved_redis_url,
        socket_timeout=PATIENCE_SECONDS,
        socket_connect_timeout=PATIENCE_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


def database(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    try:
        opened = Database(settings.resolved_database_url) if _is_there(settings) else None
    except DatabaseUnavailable as error:
        yield fail("database", _one_line(error), "see docs/operations.md, Settings: DATABASE_URL")
        return
    if opened is None:
        yield warn(
            "database",
            f"there is none yet at {file_of(settings.resolved_database_url)}",
            f"{command('serve', settings)} or {command('migrate', settings)} makes it",
        )
        return
    with opened:
        yield _opened(opened, settings)


def _opened(found: Database, settings: Settings) -> Finding:
    try:
        found.check()  # connects
        began = time.monotonic()
        found.check()
        took = time.monotonic() - began
        with found.write(wait_seconds=PATIENCE_SECONDS) as session:
            # undone below: that it would be written is all we want to know
            session.execute(text("UPDATE workspaces SET id = id"))
            session.rollback()
        version = _version_and_pages(found)
    except SchemaIncomplete as error:
        return fail(
            "database",
            f"{found.shown} is at schema {SCHEMA_REVISION} and lacks {error.lacks}: migrating does not bring that back",
            _restore(found, settings),
        )
    except SchemaMismatch:
        return _of_another_schema(found, settings)
    except DatabaseBusy:
        return fail(
            "database",
            f"{found.shown} answers, but another process keeps its write lock",
            f"find it with `fuser -v {shlex.quote(found.url.database or '')}`: a `sqlite3` shell, a stuck process"
            if found.is_sqlite
            else "look for long transactions in pg_stat_activity",
        )
    except (DatabaseUnavailable, SQLAlchemyError) as error:
        return fail("database", _one_line(error), _advice(found, settings, str(error)))
    if took > SLOW_SECONDS:
        return warn(
            "database", f"{found.shown} took {1000 * took:.0f} ms to answer", "look at its load and its network"
        )
    return ok("database", f"{found.shown}, {version}, schema {SCHEMA_REVISION}, writable")


_BLOBS: dict[integrity.Kind, str] = {"weights": "weights", "checkpoint": "checkpoints", "curve": "pieces of curves"}


def stored_data(patient: Patient) -> Iterator[Finding]:
    """Reads every stored blob. Silent where the database cannot be read: its own line says so."""
    settings = patient.settings
    try:
        if not _is_there(settings):
            return
        with Database(settings.resolved_database_url) as found, found.read() as session:
            checked = integrity.check(session)
            restore = _restore(found, settings)
    except (StoreError, SQLAlchemyError):
        return
    for damage in checked.damaged:
        yield _of_damage(damage, restore)
    if not checked.damaged:
        counts = ", ".join(f"{number} {_BLOBS[kind]}" for kind, number in checked.counts.items())
        yield ok("stored data", f"as it was written: {counts}")


def _of_damage(damage: integrity.Damage, restore: str) -> Finding:
    match damage.kind:
        case "weights":
            again = "train it again with its recipe and seed on the same type of machine: equal bytes replace these"
            return fail(
                "stored data", f"the weights of {damage.owner} are damaged and not served", f"{restore}; or {again}"
            )
        case "checkpoint":
            found = f"the checkpoint of job {damage.owner} is damaged: if the job resumes, it starts again from step 0"
        case "curve":
            found = f"the loss curve of job {damage.owner} is damaged and cannot be read"
    return warn("stored data", found, f"to have it back, {restore}")


def _version_and_pages(found: Database) -> str:
    """Raises DatabaseUnavailable when SQLite's pages are damaged."""
    with found.read() as session:
        if not found.is_sqlite:
            return f"PostgreSQL {session.scalar(text('SHOW server_version'))}"
        path = Path(found.url.database or "")
        if path.stat().st_size <= LARGEST_CHECKED_BYTES:
            said = session.scalar(text("PRAGMA quick_check(1)"))
            if said != "ok":
                raise DatabaseUnavailable(f"The database {found.shown} is damaged: {said}")
        return f"SQLite {session.scalar(text('SELECT sqlite_version()'))}"


def _of_another_schema(found: Database, settings: Settings) -> Finding:
    import migrations

    revision = found.revision()
    if revision is not None and revision not in migrations.revisions():
        return fail(
            "database",
            f"{found.shown} is at schema {revision}, which this version ({SCHEMA_REVISION}) does not know: it is newer",
            f"run the newer version of Gradsmith, or go back to before its upgrade: {_restore(found, settings)}",
        )
    state = f"is at schema {revision}, and {SCHEMA_REVISION} is needed" if revision else "is empty"
    return fail(
        "database", f"{found.shown} {state}", f"run {command('migrate', settings)} (`serve` does it when it starts)"
    )


def _restore(found: Database, settings: Settings) -> str:
    if found.is_sqlite:
        return f"stop the service and put a backup in its place: {command('restore BACKUP --replace', settings)}"
    return "stop the service and put the last dump back: docs/operations.md, Backups (`pg_restore --clean ...`)"


def _advice(found: Database, settings: Settings, said: str) -> str:
    if found.is_sqlite:
        return sqlite.advice(said) or _restore(found, settings)
    said = said.lower()
    for words, advice in _POSTGRES_ADVICE:
        if any(word in said for word in words):
            return advice
    return "is the server running, and are the host and port in DATABASE_URL right?"


_POSTGRES_ADVICE = (
    (
        ("no such file", "refused", "timeout", "resolve"),
        "is the server running, and are host and port in DATABASE_URL right?",
    ),
    (("read-only",), "this server takes no writes: name its primary in DATABASE_URL"),
    (("full", "no space"), "make room on that server's disk"),
    (("role", "password", "authentication", "permission"), "correct the user or the password in DATABASE_URL"),
    (("does not exist",), "make the database (`createdb NAME`), or correct its name in DATABASE_URL"),
)


def _is_there(settings: Settings) -> bool:
    """Whether there is something to open: opening a SQLite file that does not exist would make it."""
    return missing_file(settings.resolved_database_url) is None


def redis_server(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    bundled = settings.redis_url is None
    if bundled:
        try:
            binary = find_binary()
        except EmbeddedStoreError as error:
            yield fail("redis", str(error), "or set REDIS_URL")
            return
        if not embedded_socket(settings.data_dir).exists() or (not answers(patient) and not _accepts(settings)):
            yield ok("redis", f"the bundled server ({binary.name}) is not running; `serve` starts it with the service")
            return
    client = asked(settings)
    with client:
        try:
            info: dict[str, Any] = dict(client.info())
            policy = dict(client.config_get("maxmemory-policy")) if _may_configure(client) else {}
            refused = _refused(client)
        except (redis.RedisError, OSError) as error:
            yield fail(
                "redis", f"{_shown(settings)} does not answer: {_one_line(error)}", _redis_advice(error, settings)
            )
            return
    if refused is not None:
        yield fail("redis", f"{_shown(settings)} {refused[0]}", refused[1])
        return
    yield _of_redis(_shown(settings), info, str(policy.get("maxmemory-policy", "noeviction")))


def _refused(client: redis.Redis) -> tuple[str, str] | None:
    """Why it accepts no writes, and what to do; None where it accepts them. Raises RedisError, OSError."""
    try:
        try_write(client)
    except redis.ResponseError as error:
        reason = refusal(error)
        advice = next((advice for words, advice in _REFUSAL_ADVICE if words in reason), "see its log")
        return f"{reason}: {_one_line(error)}", advice
    return None


_REFUSAL_ADVICE = (
    ("is full", "raise maxmemory, or delete what is not Gradsmith's"),
    ("is a replica", "name its primary in REDIS_URL"),
    ("its disk", "make room on its disk, or give it the rights to its folder"),
    ("this user", "give the user of REDIS_URL all commands on gradsmith:* and rq:*"),
)


def _accepts(settings: Settings) -> bool:
    """Whether anybody listens on the bundled server's socket: one that was killed leaves the file."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_SECONDS)
            connection.connect(str(embedded_socket(settings.data_dir)))
    except OSError:
        return False
    return True


def _of_redis(shown: str, info: dict[str, Any], policy: str) -> Finding:
    server = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if version < OLDEST_REDIS:
        return fail("redis", f"{shown} is {server}, too old", "use Redis 6.2 or newer, or Valkey")
    if info.get("loading"):
        return warn("redis", f"{shown} is still reading its file", "wait; jobs start when it is done")
    for name, what in (("aof_last_write_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")):
        if info.get(name, "ok") != "ok":
            return warn("redis", f"{shown} could not write its {what}", "look at its log and its disk")
    if info.get("maxmemory") and info["used_memory"] > 0.9 * info["maxmemory"]:
        return warn("redis", f"{shown} has used 90 % of its maxmemory", "raise maxmemory")
    if info.get("maxmemory") and policy != "noeviction":
        return warn("redis", f"{shown} may evict keys ({policy}): streams and doorbells among them", "set noeviction")
    kept = "append-only file" if info.get("aof_enabled") else "no append-only file (none is needed: the database is)"
    return ok("redis", f"{shown}, {server}, {kept}")


def _may_configure(client: redis.Redis) -> bool:
    try:
        client.config_get("maxmemory-policy")
    except redis.ResponseError:  # hosted servers forbid CONFIG
        return False
    return True


def _redis_advice(error: Exception, settings: Settings) -> str:
    if isinstance(error, redis.AuthenticationError) or "NOAUTH" in str(error):
        return "correct the user or the password in REDIS_URL"
    if settings.redis_url is None:
        log = settings.data_dir / "logs" / "valkey.log"
        return f"start the service again: {command('serve', settings)}; the end of {log} may say why it ended"
    return "is it running, and are the host and port in REDIS_URL right? Jobs are taken, but none runs without it"


def _shown(settings: Settings) -> str:
    """The URL without its password."""
    parts = urlsplit(settings.resolved_redis_url)
    place = parts.hostname or ""
    return f"{parts.scheme}://{place}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _one_line(error: Exception) -> str:
    said = str(error).split("\n(Background", 1)[0].split("\n\tIs the server running", 1)[0]  # our advice asks that
    return scrub(" ".join(said.split()))
