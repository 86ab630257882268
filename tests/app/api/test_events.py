"""The stream of a job's events: in order, each once, wherever a client comes back."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import text

from app.api import event_stream
from app.settings import Settings
from app.store.events import EventId, JobEvent
from app.store.sessions import Database
from app.streams import stream_key
from tests.app.store.damage import flip_a_bit
from workshop.services import ValkeyServer
from workshop.serving import serving
from workshop.working import Worker


@dataclass(frozen=True)
class Seen:
    id: str | None
    kind: str
    data: dict[str, Any]


def parsed(lines: Iterator[str]) -> Iterator[Seen]:
    """Server-sent events, by the grammar of the HTML standard."""
    event: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif "data" in event:
            yield Seen(event.get("id"), event["event"], json.loads(event["data"]))
            event = {}
        else:
            event = {}


@contextmanager
def following(api: httpx.Client, job_id: str, **headers: str) -> Iterator[Iterator[Seen]]:
    with api.stream("GET", f"/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield parsed(answer.iter_lines())


def all_events(api: httpx.Client, job_id: str, after: str | None = None) -> list[Seen]:
    with following(api, job_id, **({"Last-Event-ID": after} if after else {})) as stream:
        return list(stream)


def ids(events: list[Seen]) -> list[str]:
    return [event.id for event in events if event.id is not None]


@pytest.fixture
def ended(api: httpx.Client, training_job: str, worker: Callable[..., Worker]) -> list[Seen]:
    """All events of a job that failed, was retried from a checkpoint and succeeded."""
    held = worker(training_job)
    held.record(
        held.event("status", {"status": "running", "attempt": 1, "reason": None}),
        held.metrics(*range(1, 11)),
        held.event("log", {"message": "one\nline\r\nthen “another”", "level": "info"}),
        held.metrics(*range(11, 21)),
        held.event("checkpoint", {"step": 20}),
        held.metrics(21, 22),
    )
    held.fail("the machine caught fire")
    api.post(f"/jobs/{training_job}/retry")
    again = worker(training_job, 2)
    again.record(again.event("resumed", {"from_step": 20}), again.metrics(*range(21, 41)))
    again.finish_training()
    return all_events(api, training_job)


def test_the_whole_story_is_told_once_and_in_order(ended: list[Seen]) -> None:
    assert (ended[0].id, ended[0].kind, ended[0].data["status"]) == (None, "status", "succeeded")
    assert ids(ended) == [f"1-{n}" for n in range(1, 8)] + [f"2-{n}" for n in range(1, 5)]
    kinds = [event.kind for event in ended[1:]]
    assert kinds == [
        "status", "metrics", "log", "metrics", "checkpoint", "metrics", "done", "status", "resumed", "metrics", "done",
    ]  # fmt: skip
    assert ended[3].data["message"] == "one\nline\r\nthen “another”"
    assert ended[2].data["step"] == list(range(1, 11))
    assert ended[-1].data["status"] == "succeeded"
    assert ended[-1].data["optimizer"].startswith("opt_")


def test_resuming_after_any_event_loses_and_doubles_nothing(
    api: httpx.Client, training_job: str, ended: list[Seen]
) -> None:
    told = ended[1:]
    for number, event in enumerate(told[:-1]):
        assert event.id is not None
        rest = all_events(api, training_job, after=event.id)
        assert rest[0].id is None
        assert rest[1:] == told[number + 1 :], event.id


def test_after_the_last_event_there_is_nothing(api: httpx.Client, training_job: str, ended: list[Seen]) -> None:
    last = str(ended[-1].id)
    for answer in (
        api.get(f"/jobs/{training_job}/events", headers={"Last-Event-ID": last}),
        api.get(f"/jobs/{training_job}/events", params={"after": last}),
        # as after a worker that was lost with events that it had told and not stored
        api.get(f"/jobs/{training_job}/events", headers={"Last-Event-ID": "2-99"}),
    ):
        assert (answer.status_code, answer.content) == (204, b"")
    # an EventSource repeats its address and sends where it is: the header is newer
    answer = api.get(f"/jobs/{training_job}/events?after=1-1", headers={"Last-Event-ID": last})
    assert answer.status_code == 204


@pytest.mark.parametrize("bad", ["x", "1", "1-", "-1", "1-2-3", "1-99999999999999999999", "99999999999-1", "1-\uff12"])
def test_a_malformed_event_id_is_refused(standing_api: httpx.Client, bad: str) -> None:
    answer = standing_api.get(f"/jobs/job_{'0' * 32}/events", params={"after": bad})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_event_id")


def test_an_event_that_cannot_have_been_is_refused_whether_the_job_runs_or_not(
    api: httpx.Client, training_job: str
) -> None:
    """Whoever waited behind it would be told nothing, and not even that the job has ended."""
    for status in ("queued", "cancelled"):
        assert api.get(f"/jobs/{training_job}").json()["status"] == status
        for where in ({"params": {"after": "99-99"}}, {"headers": {"Last-Event-ID": "2-1"}}):
            answer = api.get(f"/jobs/{training_job}/events", **where)
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_event_id")
            assert "the job is at attempt 1" in answer.json()["detail"]
        api.post(f"/jobs/{training_job}/cancel")


def test_live_events_arrive_while_the_job_runs_and_clients_may_come_and_go(
    api: httpx.Client, training_job: str, worker: Callable[..., Worker]
) -> None:
    """One client listens throughout; others hang up after a few events and resume where they were."""
    whole: list[Seen] = []
    pieces: list[Seen] = []

    def listen() -> None:
        whole.extend(all_events(api, training_job)[1:])

    def come_and_go() -> None:
        while not pieces or pieces[-1].kind != "done":
            headers = {"Last-Event-ID": str(pieces[-1].id)} if pieces else {}
            with following(api, training_job, **headers) as stream:
                next(stream)
                for count, event in enumerate(stream, start=1):
                    pieces.append(event)
                    if count == 3:
                        break

    listeners = [threading.Thread(target=listen), threading.Thread(target=come_and_go)]
    for thread in listeners:
        thread.start()
    time.sleep(0.2)  # both follow a job that is still queued
    held = worker(training_job)
    unsaved = [held.event("status", {"status": "running", "attempt": 1, "reason": None})]
    held.publish(unsaved[0])
    for first in range(1, 200, 10):
        event = held.metrics(*range(first, first + 10))
        held.publish(event)
        unsaved.append(event)
        if first % 50 == 1:  # what is live becomes durable behind the clients' backs
            held.record(*unsaved)
            unsaved = []
        time.sleep(0.01)
    held.record(*unsaved)
    held.finish_training()
    for thread in listeners:
        thread.join(20)
        assert not thread.is_alive()
    assert ids(whole) == [f"1-{n}" for n in range(1, 23)]
    assert pieces == whole
    assert [step for event in whole if event.kind == "metrics" for step in event.data["step"]] == list(range(1, 201))


def test_events_arrive_without_redis(settings: Settings, sqlite_database: Database, valkey: ValkeyServer) -> None:
    alone = settings.model_copy(update={"redis_url": None})  # the socket in the data folder, where nothing listens
    valkey.stop()
    with serving(alone) as url, httpx.Client(base_url=url, timeout=20) as api:
        job = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic"}).json()["id"]
        held = Worker(alone, sqlite_database, job)
        with following(api, job) as stream:
            assert next(stream).data["status"] == "running"
            held.record(held.metrics(1, 2))
            assert next(stream).data["step"] == [1, 2]
            held.fail("enough")
            assert next(stream).data == {"status": "failed", "reason": "enough", "optimizer": None}
            assert list(stream) == []
        held.close()


def test_a_job_that_is_cancelled_while_queued_ends_its_stream(api: httpx.Client, training_job: str) -> None:
    with following(api, training_job) as stream:
        first = next(stream)
        assert (first.data["status"], first.data["progress"]["step"]) == ("queued", 0)
        api.post(f"/jobs/{training_job}/cancel")
        done = next(stream)
        assert (done.id, done.kind, done.data["status"]) == ("1-1", "done", "cancelled")
        assert list(stream) == []


def test_an_idle_stream_sends_comments_and_holds_no_connection(
    api: httpx.Client, training_job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.05)
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=api.base_url, timeout=20, limits=limits) as many:
        opened = [many.stream("GET", f"/jobs/{training_job}/events") for _ in range(60)]
        answers = [stream.__enter__() for stream in opened]
        try:
            lines = answers[0].iter_lines()
            assert next(lines) == "retry: 1000"
            assert any(line == ": waiting" for line in (next(lines) for _ in range(40)))
            # more streams than the pool has connections, and requests are answered all the same
            assert api.get(f"/jobs/{training_job}").status_code == 200
        finally:
            for stream in opened:
                stream.__exit__(None, None, None)


def test_head_of_a_stream_ends_at_its_headers(api: httpx.Client, training_job: str) -> None:
    answer = api.head(f"/jobs/{training_job}/events", timeout=5)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["X-Accel-Buffering"] == "no"


@pytest.mark.parametrize("fault", ["a table is gone", "a curve is damaged"])
def test_a_database_that_fails_ends_the_stream_with_a_retry_hint(
    api: httpx.Client,
    training_job: str,
    worker: Callable[..., Worker],
    database: Database,
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = worker(training_job)
    held.record(held.metrics(1, 2))
    with contextlib.ExitStack() as undo:
        with api.stream("GET", f"/jobs/{training_job}/events") as answer:
            lines = answer.iter_lines()
            assert any(line == "id: 1-1" for line in lines)
            held.record(held.metrics(3, 4))
            if fault == "a curve is damaged":
                flip_a_bit(database, "curve_chunks", "columns", 0.0)
            else:
                undo.callback(rename_table, database, "lost", "job_events")
                rename_table(database, "job_events", "lost")
            rest = list(lines)  # it ends well: no chunk is missing
        assert any(line.startswith(": this stream failed") for line in rest)
        [retry] = [int(line.removeprefix("retry: ")) for line in rest if line.startswith("retry: ")]
        assert 3000 <= retry <= 9000
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert any(f"event stream of job {training_job} ended" in record.getMessage() for record in told)
    assert not any("ASGI" in record.getMessage() or record.exc_info for record in told)


def rename_table(database: Database, name: str, other: str) -> None:
    with database.write() as session:
        session.execute(text(f"ALTER TABLE {name} RENAME TO {other}"))


def test_an_entry_in_redis_that_is_no_event_does_not_end_live_streams(
    api: httpx.Client, training_job: str, worker: Callable[..., Worker], app_settings: Settings
) -> None:
    held = worker(training_job)
    with following(api, training_job) as stream, redis.Redis.from_url(app_settings.resolved_redis_url) as other:
        assert next(stream).id is None
        held.publish(held.event("log", {"message": "one", "level": "info"}))
        assert next(stream).id == "1-1"
        other.xadd(stream_key(training_job), {"kind": "log"}, id="1-2")
        held.next_id()
        held.publish(held.event("log", {"message": "three", "level": "info"}))
        held.record(*(JobEvent.of(EventId(1, number), "log", {"message": str(number)}) for number in (1, 2, 3)))
        assert [next(stream).id for _ in range(2)] == ["1-2", "1-3"]
