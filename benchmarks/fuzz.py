"""schemathesis with every check against the whole API, stateful through the document's links, on both databases.

    ./run bench fuzz [--examples 100] [--seconds 600] [--seed 1] [--only sqlite] [--specs 1000]

Each gets a server of its own with something of everything in it, whose jobs end at once (their streams would not
otherwise); a third, on SQLite, asks for keys. Prints schemathesis' summary for each, and ends with status 1 when it
found anything.

`specs`, the fourth, makes tasks of every kind from the kinds' JSON schemas, declares each as POST /families does, and
trains a step on what is accepted, in processes of 50. It prints how many were refused, each with a pointer to the
field, and how many trained.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from pydantic import SecretStr

import migrations
from app.settings import Settings
from workshop import services
from workshop.fuzzing import fuzzed_server

SERVERS = ("sqlite", "postgres", "keyed")
IN_A_PROCESS = 50


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


def made_specs(count: int, seed: int) -> int:
    """Makes so many, and prints what became of them. The exit status: 1 where a process died or refused one without
    saying where."""
    print(f"== {count} specs of all kinds, hypothesis {version('hypothesis')}, seed {seed}", flush=True)
    seen: Counter[str] = Counter()
    failed = 0
    for first in range(0, count, IN_A_PROCESS):
        many = str(min(IN_A_PROCESS, count - first))
        command = [sys.executable, "-m", "workshop.taking", many, str(seed + first)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seen.update(json.loads(done.stdout.splitlines()[-1]) if done.stdout else {})
        if done.returncode:
            failed = 1
            print(f"the process from spec {first} on ended with {done.returncode}:\n{done.stderr}")
        print(f"{sum(seen.values()):>5}  {', '.join(f'{name} {n}' for name, n in seen.most_common())}", flush=True)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run bench fuzz", description="Fuzz the API by its OpenAPI document.")
    parser.add_argument("--examples", type=int, default=100, help="cases for each operation and phase")
    parser.add_argument("--seconds", type=int, help="fuzz on until these are spent, for each server")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=(*SERVERS, "specs"), help="one of the four")
    parser.add_argument("--specs", type=int, default=1000, help="how many specs are made")
    options = parser.parse_args(arguments)
    failed = 0
    if options.only in (None, "specs"):
        failed |= made_specs(options.specs, options.seed)
    for kind in [options.only] if options.only else SERVERS:
        if kind == "specs":
            continue
        with stores(kind) as settings, fuzzed_server(settings) as server:
            print(f"== {kind}, schemathesis {version('schemathesis')}, seed {options.seed}", flush=True)
            budget = ["--max-time", str(options.seconds)] if options.seconds else []
            done = server.schemathesis("-n", str(options.examples), "--seed", str(options.seed), *budget)
            print(done.stdout, flush=True)
            failed |= done.returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
