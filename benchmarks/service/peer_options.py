"""How MLflow is run beside ours, and how else it could be: what it does with the same loads under other options. Only
when asked for (`--only mlflow`); it says whether `peer.OPTIONS` is MLflow at its best on this machine."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.service import aliases, peer, posts
from benchmarks.service.bench import Bench
from benchmarks.service.load import Load, run
from benchmarks.service.rounds import interleaved

_GUNICORN = "--threads 8 --keep-alive 60 --log-level error"
OPTIONS = {
    "as it is measured": peer.OPTIONS,
    "gunicorn, four workers": ["--workers", "4", "--no-serve-artifacts", "--gunicorn-opts", _GUNICORN],
    "uvicorn (its default), two workers": ["--workers", "2", "--no-serve-artifacts"],
    "uvicorn, four workers": ["--workers", "4", "--no-serve-artifacts"],
}


def measure(bench: Bench, rounds: int, seconds: float) -> dict[str, Any]:
    """{"posts": {options: [summary of a round]}, "aliases": the same}; all servers run, idle ones take no core.

    Raises PeersUnavailable or MlflowError.
    """
    with ExitStack() as stack:
        loads: dict[str, dict[str, Load]] = {"posts": {}, "aliases": {}}
        for number, (name, options) in enumerate(OPTIONS.items()):
            url = bench.postgres.url(f"mlflow-{number}", "psycopg2")
            server = stack.enter_context(peer.mlflow(url, options))
            aliases.register(server)
            loads["posts"][name] = Load(server.url, [posts.new_run(server)], posts.CLIENTS, seconds)
            loads["aliases"][name] = Load(server.url, [aliases.LOOKUP], aliases.CLIENTS, seconds)
        return {
            what: interleaved(rounds, {name: partial(_once, load) for name, load in of_call.items()})
            for what, of_call in loads.items()
        }


def _once(load: Load) -> dict[str, Any]:
    return run(load).summary([200])
