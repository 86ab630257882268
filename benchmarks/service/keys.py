"""What API keys cost: the same calls on a server without keys, on one with keys by one key, and by a hundred in turn;
and POST /jobs with an Idempotency-Key, another for each.

Both servers are new and over Postgres, with two API processes. A call with a key is verified, counted against a rate
that nobody reaches, and a POST /jobs is counted against the quota of its key. Keys are new in each
round: no key has more jobs in the queue than it may have by default, give or take.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import uuid4

import migrations
from app.auth.issue import issue
from app.settings import Settings
from app.store.sessions import Database
from benchmarks.service.aliases import DOWNLOAD, set_alias
from benchmarks.service.bench import API_PROCESSES, Bench
from benchmarks.service.load import Load, Request, run
from benchmarks.service.posts import new_job
from benchmarks.service.rounds import interleaved
from workshop.served import Service, service

CLIENTS = 16
NONE, ONE, MANY = "no keys", "one key", "100 keys"
KEYS = {ONE: 1, MANY: 100}
ONCE = "once"
MOST_RATE = 1000  # posts a second for which there are Idempotency-Keys enough
SETTINGS = {"GRADSMITH_AUTH": "on", "GRADSMITH_RATE_LIMIT": "10000000/minute"}
QUOTA = 1_000_000  # jobs: counted at each POST, never reached


def measure(bench: Bench, rounds: int, seconds: float) -> dict[str, Any]:
    """{"posts": {who: [summary of a round]}, "once": the same, "aliases": the same}; who: NONE, ONE, MANY"""
    url = bench.postgres.url("keyed", "")
    _prepare(url)
    with (
        service(bench.postgres.url("unkeyed", ""), api_processes=API_PROCESSES) as free,
        service(url, api_processes=API_PROCESSES, changes=SETTINGS) as keyed,
    ):
        servers = {NONE: free, ONE: keyed, MANY: keyed}
        for each in (free, keyed):
            set_alias(each)
        calls = {"posts": (new_job(), [202]), ONCE: (new_job(), [202]), "aliases": (DOWNLOAD, [200])}
        return {
            what: interleaved(
                rounds, {who: partial(_measured, servers[who], who, what, *call, seconds) for who in servers}
            )
            for what, call in calls.items()
        }


def _prepare(url: str) -> None:
    """Tables and a first key: a server that needs keys and finds none does not start."""
    resolved = Settings(database_url=url).resolved_database_url
    migrations.upgrade(resolved)
    with Database(resolved) as database:
        _tokens(database, 1)


def _tokens(database: Database, count: int) -> list[str]:
    with database.write() as session:
        return [issue(session, name="bench", scopes=["submit"], max_active_jobs=QUOTA)[1] for _ in range(count)]


def _measured(
    over: Service, who: str, what: str, request: Request, accepted: list[int], seconds: float
) -> dict[str, Any]:
    tokens = _tokens(over.database, KEYS[who]) if who != NONE else [""]
    count = int(MOST_RATE * (seconds + 1)) if what == ONCE else len(tokens)
    requests = []
    for index in range(count):
        token = tokens[index % len(tokens)]
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Idempotency-Key": str(uuid4())} if what == ONCE else {}
        requests.append(Request(request.method, request.path, headers, request.body))
    return run(Load(over.url, requests, CLIENTS, seconds)).summary(accepted)
