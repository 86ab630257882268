"""The registry: versions without gap or double, aliases, weights by content."""

from __future__ import annotations

import hashlib
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.store import checkpoints, integrity, outcomes
from app.store.errors import BadCursor, DamagedWeights, EvaluationNotFound, OptimizerNotFound
from app.store.events import EventId
from app.store.jobs import JobRepository
from app.store.records import records
from app.store.references import is_reference
from app.store.registry import Registry
from app.store.tables import DEFAULT_WORKSPACE, OptimizerRow
from models.seal import seal
from models.spec import Component
from tests.app.store.bench import Bench, evaluation, metrics, points, training
from tests.app.store.damage import flip_a_bit


def made(
    bench: Bench,
    score: float | None = 1.0,
    family: str = "quadratic",
    weights: bytes = b"weights",
    shortfall: str | None = None,
) -> OptimizerRow:
    lease = bench.running(training(family))
    optimizer = bench.finish(lease, score=score, weights=weights, shortfall=shortfall).optimizer
    assert optimizer is not None
    return optimizer


def resolve(bench: Bench, reference: str) -> str:
    found: str = bench.read(lambda session: Registry(session).resolve(reference).id)
    return found


def test_versions_count_within_a_family(bench: Bench) -> None:
    first, second, other = made(bench), made(bench), made(bench, family="digits-mlp")
    assert [row.version for row in (first, second, other)] == [1, 2, 1]
    assert resolve(bench, "quadratic@1") == resolve(bench, first.id) == first.id
    assert resolve(bench, "quadratic@latest") == second.id
    assert resolve(bench, "digits-mlp@latest") == other.id


def test_best_may_be_a_tuned_baseline_and_latest_never_is(bench: Bench) -> None:
    learned = made(bench, 1.0)
    [tuned] = bench.finish_evaluation(learned.id, b"adam at 0.1", score=0.8)
    assert (tuned.version, tuned.validation_score, tuned.own_tasks, tuned.automatic) == (2, 0.8, True, True)
    assert resolve(bench, "quadratic@best") == tuned.id
    assert resolve(bench, "quadratic@latest") == learned.id
    assert resolve(bench, "quadratic@2") == tuned.id
    aliases = {
        record.row.id: record.aliases
        for record in bench.read(lambda session: records(session, DEFAULT_WORKSPACE, [learned, tuned]))
    }
    assert aliases == {learned.id: ["latest"], tuned.id: ["best"]}
    for alias, row in (("best", tuned), ("latest", learned)):
        page = bench.read(lambda session, named=alias: Registry(session).page(alias=named))
        assert [found.id for found in page.rows] == [row.id]
    better = made(bench, 0.5)
    assert resolve(bench, "quadratic@best") == resolve(bench, "quadratic@latest") == better.id


def test_a_tuned_baseline_is_registered_once_however_often_it_is_found(bench: Bench) -> None:
    learned = made(bench, 1.0)
    first = bench.finish_evaluation(learned.id, b"adam at 0.1", score=0.8)
    assert [row.id for row in bench.finish_evaluation(learned.id, b"adam at 0.1", score=0.8)] == [first[0].id]
    both = bench.finish_evaluation(learned.id, b"nag at 0.1", score=0.9)
    assert [row.validation_score for row in both] == [0.8, 0.9], "other settings are another optimizer"


def test_a_tuned_baseline_that_is_worse_than_standing_still_is_not_best(bench: Bench) -> None:
    learned = made(bench, 1.0)
    [tuned] = bench.finish_evaluation(learned.id, b"sgd at 10", score=0.8, shortfall="worse_than_standing_still: ...")
    assert not tuned.automatic
    assert resolve(bench, "quadratic@best") == learned.id


def test_best_takes_the_schedule_that_stands_for_what_it_would_name(bench: Bench) -> None:
    """The schedule's own score is no lower; `latest` passes over it, and it stands for one optimizer alone."""
    worse, learned = made(bench, 0.9, weights=b"first"), made(bench, 0.7, weights=b"second")
    for _ in range(2):  # the second finds what the first has registered
        [schedule] = bench.finish_evaluation(learned.id, b"a schedule", score=0.75, stands_for=learned.id)
    assert (schedule.version, schedule.tuned, schedule.validation_score) == (3, False, 0.75)
    assert resolve(bench, "quadratic@best") == schedule.id
    assert resolve(bench, "quadratic@latest") == learned.id
    for alias, row in (("best", schedule), ("latest", learned)):
        page = bench.read(lambda session, alias=alias: Registry(session).page(alias=alias))
        assert [each.id for each in page.rows] == [row.id]
    bench.finish_evaluation(worse.id, b"a schedule", score=0.75, stands_for=worse.id)
    assert resolve(bench, "quadratic@best") == schedule.id, "the same bytes may stand for another one too"
    bench.finish_evaluation(worse.id, b"adam at 0.1", score=0.6)
    assert resolve(bench, "quadratic@best") not in (schedule.id, learned.id), "a tuned baseline has a lower score"
    better = made(bench, 0.5, weights=b"third")
    assert resolve(bench, "quadratic@best") == better.id
    bench.finish_evaluation(
        better.id, b"another", score=0.8, shortfall="worse_than_standing_still: ...", stands_for=better.id
    )
    assert resolve(bench, "quadratic@best") == better.id, "what is worse than standing still stands for nobody"


def test_best_is_the_lowest_validation_score_and_the_older_of_equals(bench: Bench) -> None:
    rows = [made(bench, score) for score in (None, 2.0, math.nan, 1.0, 1.0, math.inf, 3.0)]
    assert resolve(bench, "quadratic@best") == rows[3].id
    assert resolve(bench, "quadratic@latest") == rows[6].id
    assert [row.validation_score for row in rows] == [None, 2.0, None, 1.0, 1.0, None, 3.0]
    assert [record.aliases for record in bench.read(lambda session: records(session, DEFAULT_WORKSPACE, rows))] == [
        [],
        [],
        [],
        ["best"],
        [],
        [],
        ["latest"],
    ]


def test_best_compares_scores_of_one_criterion_the_familys_own_where_there_is_one(bench: Bench) -> None:
    def scored(score: float, **recipe: object) -> str:
        spec = training()
        changed = spec.model_copy(update={"recipe": spec.recipe.model_copy(update=recipe)})
        optimizer = bench.finish(bench.running(changed), score=score).optimizer
        assert optimizer is not None
        return str(optimizer.id)

    def best() -> str:
        [listed] = bench.read(lambda session: Registry(session).page(alias="best").rows)
        assert listed.id == resolve(bench, "quadratic@best")
        return str(listed.id)

    low = scored(0.1, objective="final")
    assert best() == low  # of the family's own criterion there is none
    scored(0.2, objective="final")
    assert best() == low
    both = scored(0.5, objective="both", validation_horizons=(100, 1000))
    assert best() == both  # the newest optimizer's: 0.5 and 0.1 do not compare
    own = scored(9.0)
    assert best() == own
    scored(0.01, objective="final")
    scored(0.01, mixture=(Component(family="quadratic", tasks=training().family.tasks),))
    assert best() == own
    better = scored(8.0)
    assert best() == better


def test_without_a_score_there_is_no_best(bench: Bench) -> None:
    row = made(bench, None)
    with pytest.raises(OptimizerNotFound, match="quadratic@best once one has a validation score"):
        resolve(bench, "quadratic@best")
    [record] = bench.read(lambda session: records(session, DEFAULT_WORKSPACE, [row]))
    assert record.aliases == ["latest"]


def test_what_is_worse_than_standing_still_has_a_version_and_no_name_that_moves_by_itself(bench: Bench) -> None:
    poor = made(bench, 1.0, shortfall="worse_than_standing_still: 1 and 0.5")
    job = bench.get(poor.job)
    assert (job.status, job.status_reason) == ("succeeded", "worse_than_standing_still: 1 and 0.5")
    for alias in ("latest", "best"):
        with pytest.raises(OptimizerNotFound, match="None of them beats parameters that never move"):
            resolve(bench, f"quadratic@{alias}")
        assert bench.read(lambda session: Registry(session).page(alias=alias).rows) == []  # noqa: B023
    assert resolve(bench, "quadratic@1") == poor.id

    good = made(bench, 2.0)
    poorer = made(bench, 0.1, shortfall="worse_than_standing_still: 0.1 and 0.05")
    assert (good.version, poorer.version) == (2, 3)
    assert bench.read(lambda session: Registry(session).next_version("quadratic")) == 4
    for alias in ("latest", "best"):
        assert resolve(bench, f"quadratic@{alias}") == good.id
        [found] = bench.read(lambda session: Registry(session).page(alias=alias).rows)  # noqa: B023
        assert found.id == good.id
    rows = [poor, good, poorer]
    assert [record.aliases for record in bench.read(lambda session: records(session, DEFAULT_WORKSPACE, rows))] == [
        [],
        ["best", "latest"],
        [],
    ]


@pytest.mark.parametrize(
    "reference", ["opt_none", "quadratic@3", "quadratic@0", "quadratic@", "quadratic@prod", "x@best"]
)
def test_what_is_not_there_is_answered_with_what_is(bench: Bench, reference: str) -> None:
    with pytest.raises(OptimizerNotFound, match="None is registered yet: POST /jobs"):
        resolve(bench, reference)
    made(bench), made(bench)
    with pytest.raises(OptimizerNotFound) as caught:
        resolve(bench, reference)
    expected = "There are quadratic@1, quadratic@2, quadratic@latest" if reference.startswith("q") else "quadratic (2)"
    assert expected in str(caught.value)
    assert repr(reference) in str(caught.value)


def test_references_have_a_form() -> None:
    assert is_reference("quadratic@best")
    assert is_reference("opt_" + "0" * 32)
    for bad in ("quadratic", "opt_1", "@best", "a@", "a b@1", "a@b@c", "../x@1", ""):
        assert not is_reference(bad), bad


def test_weights_are_kept_once_by_their_content(bench: Bench) -> None:
    first, second, third = made(bench, weights=b"a" * 20_000), made(bench, weights=b"a" * 20_000), made(bench)
    assert first.sha256 == second.sha256 == hashlib.sha256(b"a" * 20_000).hexdigest() != third.sha256
    assert bench.read(lambda session: Registry(session).weights(second)) == b"a" * 20_000
    assert bench.read(lambda session: records(session, DEFAULT_WORKSPACE, [second]))[0].size_bytes == 20_000
    assert bench.read(lambda session: session.scalar(text("SELECT count(*) FROM weights"))) == 2
    assert bench.read(lambda session: Registry(session).of_job(first.job).id) == first.id
    assert first.card == {"cost": {"seconds": 1.5}}


def test_damaged_weights_are_refused_and_the_same_training_mends_them(bench: Bench) -> None:
    row = made(bench, weights=b"a" * 20_000)
    flip_a_bit(bench.database, "weights", "content")
    with pytest.raises(DamagedWeights, match=rf"optimizer {row.id} \(quadratic@1\) are damaged: .*{row.sha256[:12]}"):
        bench.read(lambda session: Registry(session).weights(row))
    again = made(bench, weights=b"a" * 20_000)
    for each in (row, again):
        assert bench.read(lambda session, each=each: Registry(session).weights(each)) == b"a" * 20_000


def test_every_kind_of_stored_bytes_is_checked(bench: Bench) -> None:
    made(bench), made(bench, weights=b"other")
    lease = bench.running()
    bench.record(lease, metrics(1, 1, points(1, 30)))
    for other, content in ((lease, seal(b"a checkpoint")), (bench.running(), (2).to_bytes(8, "little") + b"{}")):
        bench.write(
            lambda session, other=other, content=content: checkpoints.put(
                session, other, 10, EventId(1, 2), content, runtime={}, identical=True
            )
        )
    sound = bench.read(integrity.check)
    assert sound == integrity.Checked({"weights": 2, "checkpoint": 2, "curve": 1}, [])
    flip_a_bit(bench.database, "weights", "content")
    flip_a_bit(
        bench.database, "checkpoints", "content", 0.99
    )  # of the second, whose format has no checksum, none sees it
    flip_a_bit(bench.database, "curve_chunks", "columns", 0.0)
    found = bench.read(integrity.check).damaged
    # in the order of their ids, which were made in one millisecond
    assert sorted((damage.kind, damage.owner.partition(" ")[2]) for damage in found[:2]) == [
        ("weights", "(quadratic@1)"), ("weights", "(quadratic@2)"),
    ]  # fmt: skip
    assert found[2:] == [("checkpoint", lease.job_id), ("curve", lease.job_id)]
    flip_a_bit(bench.database, "checkpoints", "content", 0.99)
    flip_a_bit(bench.database, "checkpoints", "content", 0.0)  # the mark of a seal; the length of a header
    assert [damage.kind for damage in bench.read(integrity.check).damaged].count("checkpoint") == 2


def test_workers_that_finish_at_once_get_one_version_each(bench: Bench) -> None:
    leases = [bench.running() for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        outcomes_ = list(threads.map(lambda lease: bench.finish(lease, weights=lease.job_id.encode()), leases))
    versions = [outcome.optimizer.version for outcome in outcomes_ if outcome.optimizer]
    assert sorted(versions) == list(range(1, 9))


def test_the_constraint_guards_versions_when_the_lock_is_not_taken(postgres_bench: Bench) -> None:
    """Somebody inserts version 1 by hand in an open transaction: the registration waits, then takes version 2."""
    bench = postgres_bench
    stranger, lease = bench.running(), bench.running()
    made(bench, family="digits-mlp")
    inserted, result = threading.Event(), []

    def register() -> None:
        inserted.wait(10)
        result.append(bench.finish(lease).optimizer)

    thread = threading.Thread(target=register)
    thread.start()
    with bench.database.write() as session:
        session.execute(
            text(
                "INSERT INTO optimizers (id, workspace, family, version, job, sha256, card, created_at) "
                "SELECT 'opt_by_hand', workspace, 'quadratic', 1, :job, sha256, '{}', created_at "
                "FROM optimizers LIMIT 1"
            ),
            {"job": stranger.job_id},
        )
        inserted.set()
        thread.join(0.3)
        assert thread.is_alive(), "it waits for the open transaction"
    thread.join(10)
    assert [optimizer.version for optimizer in result] == [2]


def test_a_job_registers_once(bench: Bench) -> None:
    lease = bench.running()
    bench.finish(lease)

    def again(session: Session) -> None:
        Registry(session).register(JobRepository(session).get(lease.job_id), b"other", 1.0, {})

    with pytest.raises(IntegrityError):
        bench.write(again)
    assert bench.read(lambda session: session.scalar(text("SELECT count(*) FROM optimizers"))) == 1


def test_pages_of_optimizers(bench: Bench) -> None:
    rows = [made(bench), made(bench, family="digits-mlp"), made(bench)]
    page = bench.read(lambda session: Registry(session).page(limit=1))
    assert [row.id for row in page.rows] == [rows[2].id]
    page = bench.read(lambda session: Registry(session).page(limit=5, after=page.next))
    assert [row.id for row in page.rows] == [rows[1].id, rows[0].id]
    page = bench.read(lambda session: Registry(session).page(family="quadratic", limit=1))
    assert [row.id for row in page.rows] == [rows[2].id]
    with pytest.raises(BadCursor):
        bench.read(lambda session: Registry(session).page(after=page.next))


def test_evaluations_of_an_optimizer(bench: Bench) -> None:
    optimizer = made(bench)
    jobs = []
    for verdict in ("wins", "ties"):
        lease = bench.running(evaluation(optimizer.id))
        jobs.append(lease.job_id)
        with pytest.raises(EvaluationNotFound, match=lease.job_id):
            bench.read(lambda session: Registry(session).evaluation(lease.job_id))  # noqa: B023
        with bench.database.write() as session:
            result = {"verdict": verdict, "curve": [0.1, None]}
            outcomes.finish_with_result(session, lease, EventId(1, 1), result=result)
    found = bench.read(lambda session: Registry(session).evaluations(optimizer.id))
    assert [(row.job, row.result["verdict"]) for row in found] == [(jobs[1], "ties"), (jobs[0], "wins")]
    one = bench.read(lambda session: Registry(session).evaluation(jobs[0]))
    assert one.result == {"verdict": "wins", "curve": [0.1, None]}
