"""schemathesis with every check against the whole API, stateful through the document's links, on both databases.

    ./run bench fuzz [--examples 100] [--seconds 600] [--seed 1] [--only sqlite]

Each gets a server of its own with something of everything in it, whose jobs end at once (their streams would not
otherwise); a third, on SQLite, asks for keys. Prints schemathesis' summary for each, and ends with status 1 when it
found anything.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from pydantic import SecretStr

import migrations
from app.settings import Settings
from workshop import services
from workshop.fuzzing import fuzzed_server

KINDS = ("sqlite", "postgres", "keyed")


@contextlib.contextmanager
def stores(kind: str) -> Iterator[Settings]:
    """Settings of a server of that kind, with a migrated database and a Redis of this run's own."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as opened:
        redis = services.ValkeyServer()
        opened.callback(redis.close)
        url = f"sqlite:///{folder}/gradsmith.db"
        if kind == "postgres":
            database = services.PostgresDatabase()
            opened.callback(database.close)
            url = database.url
        else:
            migrations.upgrade(url)
        yield Settings(
            data_dir=Path(folder),
            database_url=url,
            redis_url=SecretStr(redis.url),
            worker_memory_bytes=8 * 2**30,
            auth="on" if kind == "keyed" else "auto",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run bench fuzz", description="Fuzz the API by its OpenAPI document.")
    parser.add_argument("--examples", type=int, default=100, help="cases for each operation and phase")
    parser.add_argument("--seconds", type=int, help="fuzz on until these are spent, for each server")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=KINDS, help="one server instead of all three")
    options = parser.parse_args(arguments)
    failed = 0
    for kind in [options.only] if options.only else KINDS:
        with stores(kind) as settings, fuzzed_server(settings) as server:
            print(f"== {kind}, schemathesis {version('schemathesis')}, seed {options.seed}", flush=True)
            budget = ["--max-time", str(options.seconds)] if options.seconds else []
            done = server.schemathesis("-n", str(options.examples), "--seed", str(options.seed), *budget)
            print(done.stdout, flush=True)
            failed |= done.returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
