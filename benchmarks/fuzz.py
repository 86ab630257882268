"""schemathesis with every check against the whole API, stateful through the document's links, on both databases.

    ./run bench fuzz [--examples 100] [--seconds 600] [--seed 1] [--only sqlite] [--specs 1000] [--dry]

Each gets a server of its own with something of everything in it, whose jobs end at once (their streams would not
otherwise); a third, on SQLite, asks for keys. Prints schemathesis' summary for each. Ends with status 1 when anything
was found.

`specs` makes tasks of every kind from the kinds' JSON schemas, and `expressions` losses that are text. Each is declared
as POST /families does, and what is accepted trains a step, in processes of 250. A refusal must point at the field, and
in a text at a column that it has. How many were refused and how many trained is a section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from pydantic import SecretStr

import migrations
from app.settings import Settings
from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned.report import machine
from workshop import services
from workshop.fuzzing import fuzzed_server

SERVERS = ("sqlite", "postgres", "keyed")
MADE = {
    "specs": "Specs of all kinds, made from the kinds' JSON schemas",
    "expressions": "Losses that are text, made from the language's operations",
}
IN_A_PROCESS = 250
RESULTS = ROOT / "benchmarks" / "RESULTS.md"


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


def made(what: str, count: int, seed: int) -> tuple[list[str], bool]:
    """Makes so many, and prints on the way what became of them. The lines of their section, and whether no process
    died, and none refused one without saying where."""
    print(f"== {count} {what}, hypothesis {version('hypothesis')}, seed {seed}", flush=True)
    seen: Counter[str] = Counter()
    failed: list[str] = []
    for first in range(0, count, IN_A_PROCESS):
        many = str(min(IN_A_PROCESS, count - first))
        command = [sys.executable, "-m", "workshop.taking", many, str(seed + first), what]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seen.update(json.loads(done.stdout.splitlines()[-1]) if done.stdout else {})
        if done.returncode:
            failed.append(f"the process from number {first} on ended with {done.returncode}")
            print(f"{failed[-1]}:\n{done.stderr}")
        print(f"{sum(seen.values()):>5}  {', '.join(f'{name} {n}' for name, n in seen.most_common())}", flush=True)
    pointed = "the field" if what == "specs" else "the field, or to a column of the text"
    became = f"refused with a pointer to {pointed}" + (", trained on" if what == "specs" else "")
    lacking = ", or accepted where its data were not here" if what == "specs" else ", or trained on"
    said = "; ".join(failed) or f"each one was {became}{lacking}; no process died"
    return [
        f"## {MADE[what]}",
        "",
        f"{sum(seen.values()):,} by hypothesis {version('hypothesis')}, in processes of {IN_A_PROCESS}: {said}.",
        "",
        "| what became of them | how many |",
        "|---|---|",
        *(f"| {name} | {number:,} |" for name, number in seen.most_common()),
    ], not failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run bench fuzz", description="Fuzz the API by its OpenAPI document.")
    parser.add_argument("--examples", type=int, default=100, help="cases for each operation and phase")
    parser.add_argument("--seconds", type=int, help="fuzz on until these are spent, for each server")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=(*SERVERS, *MADE), help="one of them")
    parser.add_argument("--specs", type=int, default=1000, help="how many specs, and how many expressions, are made")
    parser.add_argument("--dry", action="store_true", help="print, but do not write RESULTS.md")
    options = parser.parse_args(arguments)
    failed = 0
    chosen = [options.only] if options.only else [*MADE, *SERVERS]
    for what in (each for each in chosen if each in MADE):
        how = f"`./run bench fuzz --only {what} --specs {options.specs} --seed {options.seed}`, "
        how += f"{time.strftime('%Y-%m-%d')}, {machine()}; load average before: {os.getloadavg()[0]:.1f}."
        told, clean = made(what, options.specs, options.seed)
        section = [told[0], "", how, *told[1:]]
        print("\n".join(section), flush=True)
        failed |= not clean
        if not options.dry:
            core_report.write(RESULTS, section, (f"<!-- fuzz {what} -->", f"<!-- end of fuzz {what} -->"))
    for kind in (each for each in chosen if each in SERVERS):
        with stores(kind) as settings, fuzzed_server(settings) as server:
            print(f"== {kind}, schemathesis {version('schemathesis')}, seed {options.seed}", flush=True)
            budget = ["--max-time", str(options.seconds)] if options.seconds else []
            done = server.schemathesis("-n", str(options.examples), "--seed", str(options.seed), *budget)
            print(done.stdout, flush=True)
            failed |= done.returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
