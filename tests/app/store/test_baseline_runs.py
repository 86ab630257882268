"""Runs of baselines in the database: whose they are, how long they stay, and what a damaged one is worth."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select, update

from app.store import baseline_runs, leases
from app.store.baseline_runs import Kept
from app.store.errors import LeaseLost
from app.store.sql import clock
from app.store.tables import BaselineRunRow
from tests.app.store.bench import Bench

KEY, OTHER = "a" * 64, "b" * 64


def put(bench: Bench, lease: leases.Lease, content: bytes, key: str = KEY) -> None:
    bench.write(lambda session: baseline_runs.put(session, lease, key, "adam", content))


def get(bench: Bench, workspace: str = "default", key: str = KEY) -> Kept | None:
    return bench.read(lambda session: baseline_runs.get(session, workspace, key))


def test_what_was_put_comes_back_with_the_job_that_computed_it_in_its_workspace_alone(bench: Bench) -> None:
    first, second = bench.create(), bench.create()
    assert get(bench) is None
    put(bench, bench.claim(first), b"\0a run\xff")
    assert get(bench) == Kept(b"\0a run\xff", first.id)
    put(bench, bench.claim(second), b"the same run, computed at the same time")
    assert get(bench) == Kept(b"\0a run\xff", first.id), "the first stays"
    assert get(bench, key=OTHER) is None
    assert get(bench, "another") is None


def test_who_lost_the_lease_keeps_nothing(bench: Bench) -> None:
    lease = bench.claim(bench.create())
    bench.write(lambda session: leases.release(session, lease))
    with pytest.raises(LeaseLost):
        put(bench, lease, b"run")
    assert get(bench) is None


def test_a_damaged_run_is_none_and_the_next_one_takes_its_place(bench: Bench) -> None:
    first, second = bench.create(), bench.create()
    put(bench, bench.claim(first), b"run")

    def damage(session):
        row = session.get(BaselineRunRow, ("default", KEY))
        row.content = row.content[:-1] + b"m"

    bench.write(damage)
    assert get(bench) is None
    put(bench, bench.claim(second), b"run")
    assert get(bench) == Kept(b"run", second.id)


def test_a_run_that_is_too_large_is_not_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline_runs, "LARGEST_BYTES", 3)
    lease = bench.claim(bench.create())
    put(bench, lease, b"long")
    put(bench, lease, b"run", OTHER)
    assert get(bench) is None
    assert get(bench, key=OTHER) is not None


def test_runs_are_forgotten_after_ninety_days(bench: Bench) -> None:
    lease = bench.claim(bench.create())
    for days, key in ((89, KEY), (91, OTHER)):
        put(bench, lease, b"run", key)
        aged = update(BaselineRunRow).where(BaselineRunRow.key == key).values(created_at=clock(-days * 86400.0))
        bench.write(lambda session, aged=aged: session.execute(aged))
    assert bench.write(baseline_runs.purge) == 1
    assert get(bench) is not None
    assert get(bench, key=OTHER) is None


def test_they_are_counted_and_forgotten_by_name_and_workspace(bench: Bench) -> None:
    lease = bench.claim(bench.create())
    for key, baseline in ((KEY, "adam"), (OTHER, "soap"), ("c" * 64, "soap")):
        bench.write(lambda session, key=key, name=baseline: baseline_runs.put(session, lease, key, name, b"run"))
    size = bench.read(lambda session: session.execute(select(func.length(BaselineRunRow.content))).scalars().first())
    assert bench.read(baseline_runs.counts) == [("default", "adam", 1, size), ("default", "soap", 2, 2 * size)]
    assert bench.write(lambda session: baseline_runs.forget(session, ["soap"], "another")) == 0
    assert bench.write(lambda session: baseline_runs.forget(session, ["soap"])) == 2
    assert get(bench) is not None
    assert bench.write(baseline_runs.forget) == 1
    assert bench.read(baseline_runs.counts) == []
