"""The same key and request get the first answer, stored in the transaction of what it created."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.store import idempotency
from app.store.errors import DatabaseBusy, IdempotencyConflict, IdempotencyInFlight, RowLocked
from app.store.idempotency import Answer, KeyedRequest, OvertakenError
from app.store.jobs import JobRepository
from app.store.sessions import Database
from tests.app.store.bench import Bench, training

REQUEST = idempotency.fingerprint("POST", "/jobs", {"kind": "meta_train", "family": "quadratic"})
OTHER = idempotency.fingerprint("POST", "/jobs", {"kind": "meta_train", "family": "digits-mlp"})


def keyed(key: str = "key", fingerprint: str = REQUEST) -> KeyedRequest:
    return KeyedRequest("default", "", key, fingerprint)


def create(session: Session) -> Answer:
    job = JobRepository(session).create(training())
    return Answer(202, {"Location": f"/jobs/{job.id}"}, job.id.encode())


def jobs(bench: Bench) -> int:
    found: int = bench.read(lambda session: session.scalar(text("SELECT count(*) FROM jobs")))
    return found


def test_the_first_answer_is_replayed(bench: Bench) -> None:
    first = idempotency.once(bench.database, keyed(), create)
    again = idempotency.once(bench.database, keyed(), create)
    assert not first.replayed
    assert again == Answer(first.status_code, first.headers, first.body, replayed=True)
    assert jobs(bench) == 1
    idempotency.once(bench.database, keyed("another"), create)
    assert jobs(bench) == 2


def test_without_a_key_nothing_is_stored(bench: Bench) -> None:
    for _ in range(2):
        assert not idempotency.once(bench.database, None, create).replayed
    assert jobs(bench) == 2
    assert bench.read(lambda session: session.scalar(text("SELECT count(*) FROM idempotency_keys"))) == 0


def test_a_key_belongs_to_one_request(bench: Bench) -> None:
    idempotency.once(bench.database, keyed(), create)
    with pytest.raises(IdempotencyConflict, match="'key' was used for a different request"):
        idempotency.once(bench.database, keyed(fingerprint=OTHER), create)
    assert jobs(bench) == 1


def test_spacing_and_order_of_a_body_make_no_difference() -> None:
    assert idempotency.fingerprint("POST", "/jobs", {"family": "quadratic", "kind": "meta_train"}) == REQUEST
    assert idempotency.fingerprint("POST", "/keys", {"family": "quadratic", "kind": "meta_train"}) != REQUEST


def test_a_failure_is_not_stored(bench: Bench) -> None:
    def refuse(session: Session) -> Answer:
        create(session)
        raise ValueError("validation failed")

    with pytest.raises(ValueError, match="validation failed"):
        idempotency.once(bench.database, keyed(), refuse)
    assert jobs(bench) == 0
    assert not idempotency.once(bench.database, keyed(), create).replayed


def test_twins_in_flight_create_one_job(bench: Bench) -> None:
    def slowly(session: Session) -> Answer:
        answer = create(session)
        time.sleep(0.1)
        return answer

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: idempotency.once(bench.database, keyed(), slowly), range(6)))
    assert jobs(bench) == 1
    assert len({answer.body for answer in answers}) == 1
    assert sorted(answer.replayed for answer in answers) == [False] + 5 * [True]


def test_a_twin_takes_over_when_the_first_fails(bench: Bench) -> None:
    inside = threading.Event()

    def fail_late(session: Session) -> Answer:
        create(session)
        inside.set()
        time.sleep(0.2)
        raise ValueError("too late")

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(idempotency.once, bench.database, keyed(), fail_late)
        inside.wait(10)
        assert not idempotency.once(bench.database, keyed(), create).replayed
        with pytest.raises(ValueError, match="too late"):
            first.result()
    assert jobs(bench) == 1


def test_a_twin_gives_up_waiting(bench: Bench) -> None:
    """The first one has written its record and hangs before its transaction ends, as a process that was stopped."""
    with bench.database.write() as session:
        idempotency.store(session, {keyed(): create(session)})
        started = time.monotonic()
        if bench.database.is_sqlite:
            with pytest.raises(DatabaseBusy, match="busy"), bench.database.write(0.3):
                pass
        else:
            with pytest.raises(IdempotencyInFlight, match="'key' is still being answered"):
                idempotency.once(bench.database, keyed(), create, lock_seconds=0.3)
        assert 0.2 < time.monotonic() - started < 8
    assert idempotency.once(bench.database, keyed(), create).replayed
    assert jobs(bench) == 1


@pytest.mark.parametrize(("fingerprint", "told"), [(REQUEST, Answer), (OTHER, IdempotencyConflict)])
def test_who_was_overtaken_takes_back_what_he_did(postgres_url: str, fingerprint: str, told: type[object]) -> None:
    """The twin, in another process, was not there yet when this one looked."""
    overtook: list[Answer] = []

    def slowly(session: Session) -> Answer:
        if not overtook:
            overtook.append(idempotency.once(other, keyed(fingerprint=fingerprint), create))
        return create(session)

    with Database(postgres_url) as other, Database(postgres_url) as database:
        try:
            found: object = idempotency.once(database, keyed(), slowly)
        except IdempotencyConflict as conflict:
            found = conflict
        assert isinstance(found, told)
        with database.read() as session:
            assert session.scalar(text("SELECT count(*) FROM jobs")) == 1


def test_records_are_stored_together_or_not_at_all(bench: Bench) -> None:
    answer = Answer(202, {"Location": "/jobs/1"}, b"1")
    idempotency.once(bench.database, keyed("b"), lambda _: answer)
    with pytest.raises(OvertakenError), bench.database.write() as session:
        idempotency.store(session, {keyed(name): answer for name in "cba"})
    with bench.database.write() as session:
        asked = [keyed("a"), keyed("b"), keyed("b", OTHER), keyed("c")]
        found = idempotency.stored(session, asked)
        assert found.keys() == {asked[1], asked[2]}
        assert found[asked[1]] == Answer(202, {"Location": "/jobs/1"}, b"1", replayed=True)
        assert isinstance(found[asked[2]], IdempotencyConflict)
        idempotency.store(session, {keyed(name): answer for name in "ca"})
        assert len(idempotency.stored(session, asked)) == 4


def test_keys_are_forgotten_after_a_day(bench: Bench) -> None:
    def age(hours: float) -> None:
        with bench.database.write() as session:
            moment = "datetime('now', :ago)" if bench.database.is_sqlite else "now() + CAST(:ago AS interval)"
            session.execute(text(f"UPDATE idempotency_keys SET created_at = {moment}"), {"ago": f"-{hours} hours"})

    idempotency.once(bench.database, keyed(), create)
    age(23.5)
    assert bench.write(idempotency.purge) == 0
    assert idempotency.once(bench.database, keyed(), create).replayed
    age(24.5)
    assert not idempotency.once(bench.database, keyed(), create).replayed, "also when nobody purged"
    assert jobs(bench) == 2
    age(24.5)
    assert bench.write(idempotency.purge) == 1


def test_who_waits_for_something_else_is_not_told_of_a_twin(postgres_url: str) -> None:
    def of_a_locked_job(session: Session) -> Answer:
        session.execute(text("SELECT id FROM jobs FOR UPDATE"))
        return create(session)

    with Database(postgres_url) as database:
        with database.write() as session:
            create(session)
        with database.write() as session:
            session.execute(text("SELECT id FROM jobs FOR UPDATE"))
            with pytest.raises(RowLocked, match="busy"):
                idempotency.once(database, keyed(), of_a_locked_job, lock_seconds=0.2)
        assert not idempotency.once(database, keyed(), of_a_locked_job).replayed
