"""Live packing, and the estimate of the time that is left."""

from __future__ import annotations

import math
import time
from contextlib import closing

import pytest
import redis

from app.metrics.speed import speeds
from app.settings import Settings
from app.store import curves
from app.store.leases import Lease
from app.store.sessions import Database
from app.streams import Publisher, stream_key
from app.streams.wire import decode
from tests.workers.harness import create, stored_events, training
from workers import recorder as recorder_module
from workers.facts import machine_facts, same_bits
from workers.lifecycle import Keeper, claim
from workers.recorder import Pace, Recorder
from workers.run import run_job


def test_the_eta_is_that_of_the_mean_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pace = Pace(step=40)
    assert pace.eta_seconds(40, 1000) is None, "nothing is known before the first step"
    clock[0] += 7.0
    assert pace.eta_seconds(41, 1000) is None, "the first step, which warms up, says nothing of the others"
    for step in range(42, 141):  # a hundred at 10 a second, but for a pause of 5 s after each 50th
        clock[0] += 5.1 if step % 50 == 0 else 0.1
        eta = pace.eta_seconds(step, 1000)
    truth = (1000 - 140) * (0.1 + 5.0 / 50)
    assert eta is not None
    assert truth / 1.5 < eta < truth * 1.5
    for step in range(141, 800):  # one a second: what was long ago does not count any more
        clock[0] += 1.0
        eta = pace.eta_seconds(step, 1000)
    assert eta == pytest.approx(201.0, rel=0.02)
    assert pace.eta_seconds(1000, 1000) == 0.0


def test_what_streams_live_is_what_is_stored(quick_sqlite: Settings, sqlite_database: Database) -> None:
    packed = quick_sqlite.model_copy(
        update={"stream_flush_points": 16, "stream_flush_seconds": 60.0, "checkpoint_interval_seconds": 60.0}
    )
    job_id = create(sqlite_database, training(meta_steps=40))
    run_job(job_id, 1, settings=packed)
    with redis.Redis.from_url(packed.resolved_redis_url, decode_responses=True) as client:
        live = [decode(entry_id, fields) for entry_id, fields in client.xrange(stream_key(job_id))]
    stored = stored_events(sqlite_database, job_id)
    assert [(event.id, event.kind, event.data) for event in live] == [
        (event.id, event.kind, event.data) for event in stored
    ]
    sizes = [len(event.data["step"]) for event in live if event.kind == "metrics"]
    assert sizes == [1, 16, 16, 7], "the first goes at once, then sixteen travel together where nothing comes between"


def test_a_skipped_meta_step_is_told_as_one_live_and_stored(quick_sqlite: Settings, sqlite_database: Database) -> None:
    """What was skipped is what the science says, and nothing that the loss or the norm gives away."""
    lease = Lease(create(sqlite_database, training()), 1, "here:1")
    claimed = claim(sqlite_database, quick_sqlite, lease, machine_facts())
    assert claimed is not None
    keeper = Keeper(sqlite_database, quick_sqlite, lease, time.monotonic())
    with closing(Publisher(quick_sqlite, lease.job_id)) as publisher:
        recorder = Recorder(keeper, publisher, quick_sqlite, claimed)
        for step, norm, skipped in ((1, 0.5, False), (2, math.inf, True), (3, 0.5, True), (4, 0.5, False)):
            recorder.point(step, 1.0, norm, 1e-3, skipped)
        recorder.say("log", {"level": "info", "message": "the last points go before this"}, at_once=True)
    with redis.Redis.from_url(quick_sqlite.resolved_redis_url, decode_responses=True) as client:
        live = [decode(entry_id, fields) for entry_id, fields in client.xrange(stream_key(lease.job_id))]
    told = [skipped for event in live if event.kind == "metrics" for skipped in event.data["skipped"]]
    assert told == [False, True, True, False]
    with sqlite_database.read() as session:
        assert curves.read(session, lease.job_id).skipped.tolist() == told


def test_the_speed_of_a_worker_is_told_while_it_trains_and_is_gone_when_it_has_ended(
    quick_sqlite: Settings, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "SPEED_SECONDS", 0.01)
    seen: list[float] = []
    with redis.Redis.from_url(quick_sqlite.resolved_redis_url) as client:

        def look() -> bool:
            seen.extend(speeds(client, ["here"]).values())
            return False

        job_id = create(sqlite_database, training(meta_steps=60))
        began = time.monotonic()
        run_job(job_id, 1, owner="here:1", settings=quick_sqlite, preempted=look)
        took = time.monotonic() - began
        assert seen
        assert max(seen) > 60 / took, "of the last steps, and not of the job's whole life"
        assert speeds(client, ["here"]) == {}


def test_a_resume_with_another_torch_or_thread_count_is_not_called_identical() -> None:
    facts = {"torch": "2.13.0", "threads": 1, "instruction_set": "AVX2", "backend": "torch", "device": "cpu"}
    facts["hostname"] = "a"
    assert same_bits(facts, {**facts, "hostname": "b", "processes": 1})
    for changed in (
        {"torch": "2.14.0"},
        {"threads": 2},
        {"processes": 2},
        {"instruction_set": "AVX512"},
        {"backend": "native-avx2"},
        {"device": "H"},
    ):
        assert not same_bits(facts, {**facts, **changed})
