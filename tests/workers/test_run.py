"""One attempt of a job, run in this process against real stores."""

from __future__ import annotations

import functools
import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.api.documents import card_facts
from app.report.card import card_markdown
from app.settings import Settings
from app.store import checkpoints, curves, leases, outbox
from app.store.errors import DatabaseUnavailable, LeaseLost
from app.store.events import EventId
from app.store.jobs import JobRepository
from app.store.leases import Lease
from app.store.registry import Registry
from app.store.sessions import Database
from app.store.tables import CheckpointRow
from app.streams import stream_key
from app.streams.wire import decode
from gradsmith.rules import build
from models.families import FAMILIES
from models.meta_train import MetaStep, RolledBack, StartEnded, StoppedEarly, TrainingResult, meta_train
from models.rule_spec import RULE_SPECS
from models.spec import MetaTrainSpec, Resources
from models.tasks.data import MNIST, mnist_folder
from tests.app.store.bench import Bench
from tests.app.store.damage import flip_a_bit
from tests.workers.harness import QUICK, create, evaluation, job, optimizers, stored_events, training, wait_for
from workers import attempt as attempt_module
from workers import kinds, lifecycle, recorder, run
from workers.facts import machine_facts, runtime_facts
from workers.lifecycle import Keeper, claim, report_lost, still_queued
from workers.run import run_job


def plain_run(spec: MetaTrainSpec) -> tuple[list[MetaStep], TrainingResult]:
    """The science alone: what a job must arrive at."""
    return _plain_run(spec.model_dump_json())


@functools.cache
def _plain_run(spec: str) -> tuple[list[MetaStep], TrainingResult]:
    happened = list(meta_train(MetaTrainSpec.model_validate_json(spec)))
    result = happened[-1]
    assert isinstance(result, TrainingResult)
    return [event for event in happened if isinstance(event, MetaStep)], result


def weights_of(database: Database) -> list[bytes]:
    with database.read() as session:
        registry = Registry(session)
        return [registry.weights(optimizer) for optimizer in optimizers(database)]


def test_a_job_registers_the_weights_and_the_curve_that_the_science_gives(quick: Settings, jobs: Database) -> None:
    spec = training(meta_steps=20, evaluate=True)
    job_id = create(jobs, spec)
    run_job(job_id, 1, settings=quick)

    steps, result = plain_run(spec)
    done = job(jobs, job_id)
    assert (done.status, done.status_reason, done.step, done.total) == ("succeeded", None, 20, 20)
    assert done.runtime["threads"] == 1
    assert done.runtime["torch"]
    assert weights_of(jobs) == [result.weights]
    [optimizer] = optimizers(jobs)
    assert (optimizer.job, optimizer.family, optimizer.version) == (job_id, "quadratic", 1)
    assert optimizer.validation_score == result.validation_score
    assert optimizer.card["recipe"] == spec.recipe.model_dump(mode="json")
    with jobs.read() as session:
        curve = curves.read(session, job_id)
        [follow_up] = JobRepository(session).page(parent=job_id).rows
    np.testing.assert_array_equal(curve.step, [step.step for step in steps])
    np.testing.assert_array_equal(curve.loss, [step.loss for step in steps])
    np.testing.assert_array_equal(curve.gradient_norm, [step.gradient_norm for step in steps])
    np.testing.assert_array_equal(curve.learning_rate, [step.learning_rate for step in steps])
    assert curve.skipped.tolist() == [step.skipped for step in steps]
    assert not np.isnan(curve.validation[[9, 19]]).any()
    assert (follow_up.kind, follow_up.status, follow_up.optimizer) == ("evaluate", "queued", optimizer.id)


def test_a_run_that_is_worse_than_standing_still_succeeds_without_an_automatic_alias_and_says_why(
    quick: Settings, jobs: Database
) -> None:
    """Steps of 100 a unit of output: validation ends far above the loss at the start, and is finite."""
    for spec in (training(), training(rule={"output_scale": 100.0})):
        run_job(create(jobs, spec), 1, settings=quick)
    good, poor = sorted(optimizers(jobs), key=lambda optimizer: optimizer.version)
    assert (good.automatic, poor.automatic, poor.version) == (True, False, 2)
    done = job(jobs, poor.job)
    assert done.status == "succeeded"
    reason = str(done.status_reason)
    standing_still = poor.card["training"]["standing_still"]
    assert reason.startswith(f"worse_than_standing_still: the best validation score is {poor.validation_score:.4g}, ")
    assert f"score {standing_still:.4g}." in reason
    assert standing_still == good.card["training"]["standing_still"]
    assert good.validation_score < standing_still < poor.validation_score
    assert "rule.output_scale (now 100)" in reason
    with jobs.read() as session:
        registry = Registry(session)
        assert {registry.resolve(f"quadratic@{alias}").id for alias in ("latest", "best")} == {good.id}
        assert registry.resolve("quadratic@2").id == poor.id
        card = card_markdown(card_facts(session, poor))
    assert f"- **Anywhere.** The best{reason.partition(': the best')[2]}" in card
    assert "| Aliases | none |" in card
    told = stored_events(jobs, poor.job)
    assert {"level": "warning", "message": reason} in [event.data for event in told if event.kind == "log"]
    assert told[-1].data == {"status": "succeeded", "reason": reason, "optimizer": poor.id}


def test_events_are_numbered_without_a_hole_from_running_to_done(quick: Settings, jobs: Database) -> None:
    job_id = create(jobs, training(meta_steps=80, tasks=2))
    run_job(job_id, 1, settings=quick)
    found = stored_events(jobs, job_id)
    assert [event.id for event in found] == [(1, number) for number in range(1, len(found) + 1)]
    assert found[0].data == {"status": "running", "attempt": 1, "reason": None}
    assert found[-1].kind == "done"
    assert found[-1].data["status"] == "succeeded"
    told = [step for event in found if event.points is not None for step in event.points.step]
    assert told == list(range(1, 81))
    assert max(len(event.points) for event in found if event.points is not None) <= quick.stream_flush_points


def test_an_evaluation_is_stored_with_its_success(quick: Settings, jobs: Database) -> None:
    run_job(create(jobs, training()), 1, settings=quick)
    [optimizer] = optimizers(jobs)
    job_id = create(jobs, evaluation(optimizer.id))
    run_job(job_id, 1, settings=quick.model_copy(update={"curve_flush_seconds": 60.0}))
    done = job(jobs, job_id)
    assert done.status == "succeeded", done.status_reason
    assert done.step == done.total > 0, "it is over before the first timed write of its progress"
    with jobs.read() as session:
        row = Registry(session).evaluation(job_id)
    assert row.optimizer == optimizer.id
    assert row.result["verdict"]["final"] in ("wins", "ties", "loses")
    assert any(event.kind == "log" for event in stored_events(jobs, job_id))


def test_the_second_evaluation_of_a_family_reads_the_baselines_of_the_first_and_says_so(
    quick: Settings, jobs: Database
) -> None:
    """Another optimizer, trained with another seed: the baselines do not depend on it."""
    for seed in (1, 2):
        run_job(create(jobs, training(seed=seed)), 1, settings=quick)
    measuring = [create(jobs, evaluation(optimizer.id)) for optimizer in optimizers(jobs)]
    for job_id in measuring:
        run_job(job_id, 1, settings=quick)
    with jobs.read() as session:
        first, second = (Registry(session).evaluation(job_id).result for job_id in measuring)
    assert first["stored"] == {"tuning": {}, "test": {}, "targets": {}}
    assert second["stored"]["tuning"] == dict.fromkeys(("adam", "sgd"), measuring[0])
    assert second["stored"]["test"] == dict.fromkeys(("adam", "sgd", "dog"), measuring[0])
    assert second["tuning"] == first["tuning"]
    for name in ("adam", "sgd", "dog"):
        assert second["optimizers"][name] == first["optimizers"][name]
    assert second["optimizers"]["learned"] != first["optimizers"]["learned"]
    assert second["cost"]["gradient_evaluations"] == {"tuning": 0, "test": 16 * 11}
    told = [event.data.get("message") for event in stored_events(jobs, measuring[1])]
    assert f"adam, tuning: stored, by job {measuring[0]}" in told


def test_an_optimizer_that_is_gone_fails_the_evaluation_and_says_so(quick: Settings, jobs: Database) -> None:
    job_id = create(jobs, evaluation("opt_00000000000000000000000000000000"))
    run_job(job_id, 1, settings=quick)
    failed = job(jobs, job_id)
    assert failed.status == "failed"
    assert "opt_00000000000000000000000000000000" in str(failed.status_reason)


def test_damaged_weights_fail_the_evaluation_and_it_says_so(quick: Settings, jobs: Database) -> None:
    optimizer = Bench(jobs).finish(Bench(jobs).running()).optimizer
    assert optimizer is not None
    flip_a_bit(jobs, "weights", "content")
    job_id = create(jobs, evaluation(optimizer.id))
    run_job(job_id, 1, settings=quick)
    failed = job(jobs, job_id)
    assert failed.status == "failed"
    assert f"stored weights of optimizer {optimizer.id} (quadratic@1) are damaged" in str(failed.status_reason)


def test_unusable_data_fails_the_job_and_names_the_folder(quick_sqlite: Settings, sqlite_database: Database) -> None:
    folder = mnist_folder(quick_sqlite.data_dir)
    folder.mkdir(parents=True)
    for file in MNIST.values():
        (folder / file.name).write_bytes(b"no image")
    spec = training().model_copy(update={"family": FAMILIES["mnist-mlp"]})
    job_id = create(sqlite_database, spec)
    run_job(job_id, 1, settings=quick_sqlite)
    failed = job(sqlite_database, job_id)
    assert failed.status == "failed"
    assert str(folder) in str(failed.status_reason)


def test_an_unexpected_error_fails_the_job_and_its_log_has_the_trace(
    quick_sqlite: Settings, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: Any, **_options: Any) -> Any:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(kinds.training, "meta_train", broken)
    job_id = create(sqlite_database, training())
    run_job(job_id, 1, settings=quick_sqlite)
    failed = job(sqlite_database, job_id)
    assert (failed.status, failed.status_reason) == ("failed", "internal_error: ZeroDivisionError: a bug of ours")
    [log] = [event for event in stored_events(sqlite_database, job_id) if event.kind == "log"]
    assert "in broken" in log.data["message"]
    assert optimizers(sqlite_database) == []


def test_what_a_training_decides_is_among_its_events(quick_sqlite: Settings, sqlite_database: Database) -> None:
    recipe = {"meta_steps": 40, "starts": 2, "start_steps": 6, "validation_interval": 2, "pool": 2}
    spec = training(**recipe, rollback=1e-4, patience=4, meta_learning_rate=0.2)
    job_id = create(sqlite_database, spec)
    run_job(job_id, 1, settings=quick_sqlite)
    happened = list(meta_train(spec))
    decided = {"rolled_back": RolledBack, "start_ended": StartEnded, "stopped_early": StoppedEarly}
    found = [event for event in stored_events(sqlite_database, job_id) if event.kind in decided]
    assert {event.kind for event in found} == set(decided)
    assert [event.data for event in found] == [vars(event) for event in happened if type(event) in decided.values()]
    assert job(sqlite_database, job_id).status == "succeeded"
    [optimizer] = optimizers(sqlite_database)
    assert optimizer.card["training"]["stopped_early"] is True


def test_a_doorbell_that_rings_twice_does_nothing(quick: Settings, jobs: Database) -> None:
    job_id = create(jobs, training())
    run_job(job_id, 1, settings=quick)
    before = stored_events(jobs, job_id)
    run_job(job_id, 1, settings=quick)
    run_job(job_id, 2, settings=quick)
    assert stored_events(jobs, job_id) == before
    assert len(optimizers(jobs)) == 1
    assert not still_queued(jobs, job_id, 1)


def test_two_workers_that_are_rung_for_one_job_run_it_once(quick: Settings, jobs: Database) -> None:
    job_id = create(jobs, training(meta_steps=60))
    threads = [threading.Thread(target=run_job, args=(job_id, 1), kwargs={"settings": quick}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert job(jobs, job_id).status == "succeeded"
    assert len(optimizers(jobs)) == 1


def test_a_cancel_reaches_a_running_job_within_a_second(quick: Settings, jobs: Database) -> None:
    job_id = create(jobs, training(meta_steps=100_000))
    thread = threading.Thread(target=run_job, args=(job_id, 1), kwargs={"settings": quick})
    thread.start()
    wait_for(lambda: job(jobs, job_id).status == "running", "the claim")
    with jobs.write() as session:
        assert JobRepository(session).cancel(job_id).status == "cancelling"
    asked = time.monotonic()
    thread.join(10)
    assert time.monotonic() - asked < 8
    cancelled = job(jobs, job_id)
    assert cancelled.status == "cancelled"
    assert stored_events(jobs, job_id)[-1].data["status"] == "cancelled"
    assert optimizers(jobs) == []


def test_a_job_cancelled_while_queued_is_never_begun(quick: Settings, jobs: Database) -> None:
    job_id = create(jobs, training())
    with jobs.write() as session:
        JobRepository(session).cancel(job_id)
    run_job(job_id, 1, settings=quick)
    assert job(jobs, job_id).status == "cancelled"
    assert job(jobs, job_id).started_at is None


def long_validation() -> MetaTrainSpec:
    """One quick window, then a validation of minutes."""
    return training(meta_steps=1, validation_tasks=20_000, validation_interval=1, horizon=10_000, unroll_steps=1)


def test_a_cancel_reaches_a_job_in_the_middle_of_a_validation(
    quick_sqlite: Settings, sqlite_database: Database
) -> None:
    job_id = create(sqlite_database, long_validation())
    looks: list[float] = []

    def never() -> bool:
        looks.append(time.monotonic())
        return False

    thread = threading.Thread(
        target=run_job, args=(job_id, 1), kwargs={"settings": quick_sqlite, "preempted": never}, daemon=True
    )
    thread.start()
    wait_for(lambda: len(looks) >= 3, "the validation, which comes after the only meta-step")
    with sqlite_database.write() as session:
        JobRepository(session).cancel(job_id)
    thread.join(8)
    assert not thread.is_alive()
    assert job(sqlite_database, job_id).status == "cancelled"


def test_preemption_in_the_middle_of_a_validation_hands_the_job_back_in_time(
    quick_sqlite: Settings, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_module, "PREEMPTION_SECONDS", 0.5)
    job_id = create(sqlite_database, long_validation())
    began = time.monotonic()
    run_job(job_id, 1, settings=quick_sqlite, preempted=lambda: True)
    assert time.monotonic() - began < 10
    released = job(sqlite_database, job_id)
    assert (released.status, released.attempt, released.lost_workers) == ("queued", 2, 0)


def preempted_after(questions: int) -> Callable[[], bool]:
    """A process that is told to stop once its job has asked so often: once a meta-step, and at trajectory ends."""
    asked = itertools.count()
    return lambda: next(asked) >= questions


def test_a_preempted_job_goes_on_from_its_checkpoint_to_the_same_bits(quick: Settings, jobs: Database) -> None:
    spec = training(meta_steps=40)
    job_id = create(jobs, spec)
    run_job(job_id, 1, settings=quick, preempted=preempted_after(25))
    released = job(jobs, job_id)
    assert (released.status, released.attempt, released.lost_workers) == ("queued", 2, 0)
    with jobs.read() as session:
        saved = checkpoints.newest(session, job_id)
        assert outbox.due(session, "cpu", 5) == [(job_id, 2)]
    assert saved is not None
    assert 0 < saved.step < 40

    run_job(job_id, 2, settings=quick)
    steps, result = plain_run(spec)
    assert job(jobs, job_id).status == "succeeded"
    assert weights_of(jobs) == [result.weights]
    [resumed] = [event for event in stored_events(jobs, job_id) if event.kind == "resumed"]
    assert resumed.data == {"from_step": saved.step, "identical": True}
    with jobs.read() as session:
        curve = curves.read(session, job_id)
    np.testing.assert_array_equal(curve.step, [step.step for step in steps])
    np.testing.assert_array_equal(curve.loss, [step.loss for step in steps])


def test_resumed_says_identical_only_when_every_step_before_was_made_alike(
    quick_sqlite: Settings, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the older torch, 1 writes a checkpoint. 2 is of the newer one and writes none, 3 of the older one again,
    4 of the newer one and writes one, from which 5 goes on."""
    job_id = create(sqlite_database, training(meta_steps=200, horizon=10, unroll_steps=2))

    def attempt(number: int, torch_version: str, *, checkpoint: bool = True) -> dict[str, Any] | None:
        facts = {"torch": torch_version, "backend": "torch", "threads": 1, "memory_estimate_bytes": 0}
        monkeypatch.setattr(attempt_module, "runtime_facts", lambda *_: facts)
        monkeypatch.setattr(attempt_module, "PREEMPTION_SECONDS", 60.0 if checkpoint else 0.0)
        run_job(job_id, number, settings=quick_sqlite, preempted=preempted_after(15) if checkpoint else lambda: True)
        assert job(sqlite_database, job_id).attempt == number + 1, job(sqlite_database, job_id).status_reason
        told = [event for event in stored_events(sqlite_database, job_id) if event.id.attempt == number]
        assert any(event.kind == "checkpoint" for event in told) is checkpoint
        return next((event.data for event in told if event.kind == "resumed"), None)

    def saved() -> checkpoints.Checkpoint:
        with sqlite_database.read() as session:
            found = checkpoints.newest(session, job_id)
        assert found is not None
        return found

    assert attempt(1, "older") is None
    first = saved()
    assert (first.runtime["torch"], first.identical) == ("older", True)
    assert attempt(2, "newer", checkpoint=False) == {"from_step": first.step, "identical": False}
    assert attempt(3, "older") == {"from_step": first.step, "identical": True}
    third = saved()
    assert third.step > first.step
    assert attempt(4, "newer") == {"from_step": third.step, "identical": False}
    fourth = saved()
    assert (fourth.runtime["torch"], fourth.identical) == ("newer", False)
    assert attempt(5, "newer") == {"from_step": fourth.step, "identical": False}, "its past is of two makes"


def test_the_record_names_what_ran_the_jobs_own_rule(
    quick_sqlite: Settings, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRADSMITH_NATIVE", raising=False)
    usual, beyond_the_kernel = RULE_SPECS["lstm"](), RULE_SPECS["lstm"](hidden_size=130, layers=1)
    for rule in (usual, beyond_the_kernel):
        run_job(create(sqlite_database, training(meta_steps=4, rule=rule.model_dump())), 1, settings=quick_sqlite)
    for optimizer in optimizers(sqlite_database):
        ran = job(sqlite_database, optimizer.job).runtime
        for fact in ("backend", "threads", "torch", "device"):
            assert ran[fact] == optimizer.card["runtime"][fact]
        assert ran["hostname"]
        evaluating = create(sqlite_database, evaluation(optimizer.id))
        run_job(evaluating, 1, settings=quick_sqlite)
        assert job(sqlite_database, evaluating).status == "succeeded"
        measured = job(sqlite_database, evaluating).runtime
        own = {name: measured[name] for name in ("memory_estimate_bytes", "predicted") if name in measured}
        assert measured == ran | own
    assert ran["backend"] == "torch", "there is no kernel for so large a rule"
    double = build(usual.model_dump()).double()
    assert runtime_facts(double, evaluation(optimizer.id), 1)["backend"] == "torch", (
        "nor for float64, which weights may be in"
    )


def test_a_gpu_job_without_a_gpu_fails_and_says_so(
    quick_sqlite: Settings, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    job_id = create(sqlite_database, training().model_copy(update={"resources": Resources(device="gpu")}))
    run_job(job_id, 1, settings=quick_sqlite)
    failed = job(sqlite_database, job_id)
    assert failed.status == "failed"
    assert "this worker has none" in str(failed.status_reason)


def test_the_time_left_is_known_at_once_when_an_attempt_begins_again(
    quick_sqlite: Settings, sqlite_database: Database
) -> None:
    """The attempt before was far, and left no checkpoint."""
    job_id = create(sqlite_database, training(meta_steps=100_000))
    with sqlite_database.write() as session:
        lease = Lease(job_id, 1, "a worker that was far")
        leases.claim(session, lease, 60.0)
        leases.progress(session, lease, 90_000, 100_000, 10.0)
        leases.release(session, lease)
    thread = threading.Thread(target=run_job, args=(job_id, 2), kwargs={"settings": quick_sqlite})
    thread.start()
    try:
        wait_for(lambda: 0 < job(sqlite_database, job_id).step < 90_000, "this attempt's own steps")
        eta = wait_for(lambda: job(sqlite_database, job_id).eta_seconds, "the time left")
        assert eta > 10.0, "a hundred thousand meta-steps"
    finally:
        with sqlite_database.write() as session:
            JobRepository(session).cancel(job_id)
        thread.join()


def test_the_pace_of_a_resumed_attempt_starts_at_its_checkpoint(
    quick_sqlite: Settings, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    class Noted(recorder.Pace):
        def __init__(self, step: int) -> None:
            started.append(step)
            super().__init__(step)

    job_id = create(sqlite_database, training(meta_steps=40))
    run_job(job_id, 1, settings=quick_sqlite, preempted=preempted_after(25))
    with sqlite_database.read() as session:
        saved = checkpoints.newest(session, job_id)
    assert saved is not None
    assert saved.step > 0
    monkeypatch.setattr(recorder, "Pace", Noted)
    run_job(job_id, 2, settings=quick_sqlite)
    assert started[-1] == saved.step


def test_a_checkpoint_that_cannot_be_read_means_starting_anew(
    quick_sqlite: Settings, sqlite_database: Database
) -> None:
    spec = training()
    job_id = create(sqlite_database, spec)
    with sqlite_database.write() as session:
        lease = Lease(job_id, 1, "an older version")
        leases.claim(session, lease, 60.0)
        checkpoints.put(
            session, lease, 10, EventId(1, 5), b"of a format that nobody reads", runtime={}, identical=False
        )
        leases.release(session, lease)
    run_job(job_id, 2, settings=quick_sqlite)
    assert job(sqlite_database, job_id).status == "succeeded"
    assert weights_of(sqlite_database) == [plain_run(spec)[1].weights]
    found = stored_events(sqlite_database, job_id)
    assert [event.data["from_step"] for event in found if event.kind == "resumed"] == [0]


@pytest.mark.parametrize("place", [0.5, 0.02], ids=["tensor", "progress record"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning_and_the_job_starts_anew(
    quick_sqlite: Settings, sqlite_database: Database, place: float, caplog: pytest.LogCaptureFixture
) -> None:
    spec = training(meta_steps=40)
    job_id = create(sqlite_database, spec)
    run_job(job_id, 1, settings=quick_sqlite, preempted=preempted_after(25))
    with sqlite_database.write() as session:
        row = session.get_one(CheckpointRow, job_id)
        damaged = bytearray(row.content)
        damaged[int(place * len(damaged))] ^= 1
        row.content = bytes(damaged)
    run_job(job_id, 2, settings=quick_sqlite)
    assert job(sqlite_database, job_id).status == "succeeded"
    steps, result = plain_run(spec)
    assert weights_of(sqlite_database) == [result.weights]
    with sqlite_database.read() as session:
        np.testing.assert_array_equal(curves.read(session, job_id).loss, [step.loss for step in steps])
    found = stored_events(sqlite_database, job_id)
    [resumed] = [event for event in found if event.kind == "resumed"]
    assert resumed.data == {"from_step": 0}, "nothing is said of what was not resumed"
    told = [event.data for event in found if event.kind == "log" and event.data["level"] == "warning"]
    assert any("checkpoint is damaged" in data["message"] for data in told)
    assert any("checkpoint is damaged" in record.getMessage() for record in caplog.records)


def test_a_worker_that_lost_its_lease_writes_nothing_more(quick: Settings, jobs: Database) -> None:
    job_id = create(jobs, training())
    facts = machine_facts()
    stale = Lease(job_id, 1, "stale")
    assert claim(jobs, quick, stale, facts) is not None
    lapse = report_lost(jobs, quick, stale, "it died")
    assert lapse is not None
    assert lapse.outcome == "queued"
    lost: list[Lease] = []
    with Keeper(jobs, quick, stale, time.monotonic(), lost.append) as keeper:
        with pytest.raises(LeaseLost):
            keeper.write(lambda session, _: leases.progress(session, stale, 5, 20, None))
        wait_for(lambda: lost, "the keeper to notice")
    assert job(jobs, job_id).step == 0
    run_job(job_id, 2, settings=quick)
    assert job(jobs, job_id).status == "succeeded"
    assert len(optimizers(jobs)) == 1


def test_a_cancel_ends_a_job_whose_meta_step_does_not(
    quick: Settings, jobs: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main thread sits in one long computation, so the keeper ends the process and the parent reports it."""
    monkeypatch.setattr(lifecycle, "CANCEL_PATIENCE_SECONDS", 0.2)
    job_id = create(jobs, training())
    lease = Lease(job_id, 1, "child")
    assert claim(jobs, quick, lease, machine_facts()) is not None
    stuck: list[Lease] = []
    with Keeper(jobs, quick, lease, time.monotonic(), on_stuck=stuck.append):
        time.sleep(3 * quick.cancel_poll_seconds)
        assert not stuck, "nobody asked for its end"
        with jobs.write() as session:
            JobRepository(session).cancel(job_id)
        wait_for(lambda: stuck == [lease], "the keeper to lose patience")
    lapse = report_lost(jobs, quick, lease, "it died")
    assert lapse is not None
    assert lapse.outcome == "cancelled"
    assert job(jobs, job_id).status == "cancelled"


def test_reporting_a_lost_child_spares_a_job_that_it_had_ended(quick: Settings, jobs: Database) -> None:
    job_id = create(jobs, training())
    run_job(job_id, 1, owner="child", settings=quick)
    assert report_lost(jobs, quick, Lease(job_id, 1, "child"), "it died") is None
    assert job(jobs, job_id).status == "succeeded"


def test_a_job_that_loses_every_worker_fails(quick: Settings, jobs: Database) -> None:
    job_id = create(jobs, training())
    for attempt in range(1, quick.max_lost_workers + 1):
        lease = Lease(job_id, attempt, f"worker {attempt}")
        assert claim(jobs, quick, lease, {}) is not None
        report_lost(jobs, quick, lease, "it died")
    failed = job(jobs, job_id)
    assert failed.status == "failed"
    assert str(failed.status_reason).startswith("worker_lost")


# A connection that is ended while it is being made is left to the garbage collector by the driver.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_connections_that_break_cost_a_job_nothing(settings: Settings, postgres_url: str) -> None:
    quick = settings.model_copy(update={**QUICK, "database_url": postgres_url, "lease_seconds": 30.0})
    database = Database(postgres_url)
    spec = training(meta_steps=80)
    job_id = create(database, spec)
    thread = threading.Thread(target=run_job, args=(job_id, 1), kwargs={"settings": quick})
    thread.start()
    wait_for(lambda: job(database, job_id).status == "running", "the claim")
    end_other_connections = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    broken = 0
    for _ in range(4):
        with database.write() as session:
            broken += len(session.scalars(end_other_connections).all())
        thread.join(0.15)
    thread.join(60)
    assert broken > 0
    assert (job(database, job_id).status, job(database, job_id).attempt) == ("succeeded", 1)
    assert weights_of(database) == [plain_run(spec)[1].weights]
    found = stored_events(database, job_id)
    assert [event.id.sequence for event in found] == list(range(1, len(found) + 1))
    database.close()
    gc.collect()


class LosesAnswers(Database):
    """Every second write of a process commits, and its answer is lost."""

    writes = 0

    @contextmanager
    def write(self, wait_seconds: float = 60.0) -> Iterator[Session]:
        with super().write(wait_seconds) as session:
            yield session
        LosesAnswers.writes += 1
        if LosesAnswers.writes % 2:
            raise DatabaseUnavailable("the connection broke after the commit")


def test_a_commit_whose_answer_was_lost_is_not_stored_again(
    quick: Settings, jobs: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "Database", LosesAnswers)
    monkeypatch.setattr(LosesAnswers, "writes", 0)
    spec = training(meta_steps=40)
    job_id = create(jobs, spec)
    # The keeper's renewals would take their turns among the main thread's writes.
    calm = quick.model_copy(update={"cancel_poll_seconds": 60.0, "lease_renewal_seconds": 60.0, "lease_seconds": 90.0})
    run_job(job_id, 1, settings=calm)
    assert LosesAnswers.writes >= 6, "some answers were lost"
    steps, result = plain_run(spec)
    done = job(jobs, job_id)
    assert (done.status, done.attempt, done.status_reason) == ("succeeded", 1, None)
    assert weights_of(jobs) == [result.weights]
    found = stored_events(jobs, job_id)
    assert [event.id.sequence for event in found] == list(range(1, len(found) + 1))
    assert found[-1].kind == "done"
    with redis.Redis.from_url(calm.resolved_redis_url, decode_responses=True) as client:
        live = [decode(entry_id, fields) for entry_id, fields in client.xrange(stream_key(job_id))]
    assert [(event.id, event.kind, event.data) for event in live] == [
        (event.id, event.kind, event.data) for event in found
    ]
    with jobs.read() as session:
        np.testing.assert_array_equal(curves.read(session, job_id).step, [step.step for step in steps])


def test_a_lease_that_is_renewed_is_waited_for_beyond_its_first_end(
    quick_sqlite: Settings, sqlite_database: Database
) -> None:
    short = quick_sqlite.model_copy(update={"lease_seconds": 3.0, "lease_renewal_seconds": 0.1})
    lease = Lease(create(sqlite_database, training()), 1, "keeper")
    claimed_at = time.monotonic()
    assert claim(sqlite_database, short, lease, {}) is not None

    def away_once(_session: Session, again: bool) -> str:
        if not again:
            raise DatabaseUnavailable("away for a moment")
        return "written"

    with Keeper(sqlite_database, short, lease, claimed_at) as keeper:
        wait_for(lambda: time.monotonic() > claimed_at + short.lease_seconds, "the first lease to run out")
        assert keeper.write(away_once) == "written"


def test_redis_is_not_needed_to_run_a_job(quick_sqlite: Settings, sqlite_database: Database, tmp_path: Path) -> None:
    nowhere = quick_sqlite.model_copy(update={"redis_url": SecretStr(f"unix://{tmp_path}/nothing.sock")})
    job_id = create(sqlite_database, training())
    run_job(job_id, 1, settings=nowhere)
    assert job(sqlite_database, job_id).status == "succeeded"
