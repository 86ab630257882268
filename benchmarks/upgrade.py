"""A database of an older version, with jobs and optimizers in it, goes on under this one: on SQLite and on Postgres.

    ./run bench upgrade [--from 825e349] [--only sqlite] [--dump FILE.sql.gz]

The older version comes from git's history and runs in this environment's packages. It trains two optimizers, evaluates
one, stops a training at a checkpoint, and leaves a training and an evaluation in the queue. Then this version migrates
the database and serves it: every optimizer is loaded into LearnedOptimizer and steps, every job that waited succeeds,
what had ended is as it was. Prints a line for each; ends with status 1 when one does not hold. --dump writes what the
older version left in SQLite, for the test suite.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

import gradsmith
import migrations
from app.store.sessions import Database
from gradsmith import LearnedOptimizer
from workshop.old import LIMIT_SECONDS, Left, checkout, filled
from workshop.served import service
from workshop.services import NoServer, PostgresDatabase

STORES = ("sqlite", "postgres")


@contextlib.contextmanager
def store(kind: str) -> Iterator[str | None]:
    """The URL of an empty database; None for SQLite in the data folder. Raises NoServer."""
    if kind == "sqlite":
        yield None
        return
    server = PostgresDatabase()
    try:
        yield server.empty_url("old")
    finally:
        server.close()


def dumped(database: Path) -> bytes:
    """The SQL that makes the database anew, compressed; the same bytes for the same rows."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return gzip.compress("\n".join(connection.iterdump()).encode(), mtime=0)


def check(kind: str, version: Path, made: str, dump: Path | None) -> None:
    """Raises AssertionError for the first thing that does not hold."""
    with tempfile.TemporaryDirectory() as name, store(kind) as given:
        data = Path(name)
        left = filled(version, data, given, made)
        if dump is not None and given is None:
            dump.write_bytes(dumped(data / "gradsmith.db"))
            print(f"written: {dump}; {asdict(left)}")
        url = given or f"sqlite:///{data / 'gradsmith.db'}"
        with Database(url) as database:
            old = database.revision()
        migrations.upgrade(url)
        migrations.check(url)
        with Database(url) as database:
            print(f"{kind}: schema {old} became {database.revision()}, and the tables are those of this version")
        with service(given, workers=1, data=data) as running, gradsmith.Client(running.url) as client:
            _ended_as_before(client, left, kind)
            for job_id in left.waiting:
                job = client.jobs.wait(job_id, timeout_seconds=LIMIT_SECONDS)
                assert job.status == "succeeded", f"{job_id} is {job.status}: {job.status_reason}"
                print(f"{kind}: {job.kind} {job_id} waited in the queue and succeeded in attempt {job.attempt}")
            for optimizer in client.optimizers.list():
                print(f"{kind}: {optimizer.reference}: {_steps(client, optimizer.id)}")


def _ended_as_before(client: gradsmith.Client, left: Left, kind: str) -> None:
    statuses = {job.id: job.status for job in client.jobs.list()}
    for job_id in (left.trained, left.evaluated, left.digits):
        assert statuses[job_id] == "succeeded", f"{job_id} is {statuses[job_id]}"
    assert statuses[left.cancelled] == "cancelled"
    assert len(client.jobs.curve(left.trained).step) == 30
    assert client.jobs.report(left.evaluated).family == "quadratic"
    assert client.optimizers.get("quadratic@production").id == left.optimizer
    print(f"{kind}: what had ended is shown, with its curve, report and alias")


def _steps(client: gradsmith.Client, optimizer_id: str) -> str:
    """Train a small network with it for a few steps."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    with tempfile.TemporaryDirectory() as folder:
        path = client.optimizers.pull(optimizer_id, Path(folder) / "rule.safetensors")
        optimizer = LearnedOptimizer(model.parameters(), path)
    inputs = torch.randn(8, 4)
    for _ in range(5):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
    moved = (nn.utils.parameters_to_vector(model.parameters()).detach() - before).abs()
    assert bool(moved.isfinite().all()), "an update is not finite"
    assert bool((moved > 0).all()), "a parameter did not move"
    return f"five steps of LearnedOptimizer moved a parameter by {moved.mean():.2e} in the mean"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run bench upgrade", description="A database of an older version goes on.")
    parser.add_argument("--from", dest="commit", default="825e349", help="commit of the older version")
    parser.add_argument("--only", choices=STORES, help="one store instead of both")
    parser.add_argument("--dump", type=Path, help="write what the older version left in SQLite to this file")
    options = parser.parse_args(arguments)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        version = checkout(options.commit, Path(folder))
        for kind in [options.only] if options.only else STORES:
            try:
                check(kind, version, f"by {options.commit}", options.dump)
            except NoServer as error:
                print(f"{kind}: left out, {error}")
            except Exception:  # noqa: BLE001  (told, and the other store is tried)
                print(f"FAILED on {kind}:\n{traceback.format_exc()}")
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
