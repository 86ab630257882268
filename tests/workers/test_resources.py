"""What a job asks of its worker: a backend, threads, memory; and what the record says that it got."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from app.api.documents import card_facts
from app.report.card import card_markdown
from app.settings import Settings
from app.store.jobs import JobRepository
from app.store.registry import Registry
from app.store.sessions import Database
from app.store.tables import JobRow
from gradsmith import LearnedOptimizer
from gradsmith.rules.kernels.native.targets import AVX512_BF16, targets_here
from models.backends import EMULATES
from models.errors import TooLittleMemory
from models.families import FAMILIES
from models.spec import JobSpec, Resources, overridden
from tests.compiler import compiled
from tests.workers.harness import create, evaluation, job, optimizers, preview, stored_events, training
from workers.facts import refuse_too_large
from workers.run import run_job


def ran(database: Database, settings: Settings, **resources: Any) -> JobRow:
    """A short training with these resources, run to its end."""
    spec = training(meta_steps=4).model_copy(update={"resources": Resources(**resources)})
    job_id = create(database, spec)
    run_job(job_id, 1, settings=settings)
    return job(database, job_id)


def measured(database: Database, job_id: str) -> dict[str, Any]:
    with database.read() as session:
        return Registry(session).evaluation(job_id).result


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_a_forced_backend_stands_in_the_record_and_the_card(
    quick_sqlite: Settings, sqlite_database: Database, backend: str
) -> None:
    done = ran(sqlite_database, quick_sqlite, backend=backend)
    assert done.status == "succeeded", done.status_reason
    assert (done.runtime["backend"], done.runtime["backend_forced"]) == (backend, True)
    assert done.spec["resources"]["backend"] == backend
    [optimizer] = optimizers(sqlite_database)
    assert optimizer.card["runtime"]["backend"] == backend
    follow_up = evaluation(optimizer.id).model_copy(update={"resources": Resources(backend=backend)})
    evaluating = create(sqlite_database, follow_up)
    run_job(evaluating, 1, settings=quick_sqlite)
    assert job(sqlite_database, evaluating).runtime["backend"] == backend
    cost, pays = optimizer.card["training"]["cost"], measured(sqlite_database, evaluating)["break_even"]
    for part in ("training", "selection"):
        assert pays[f"{part}_seconds"] == cost[part]["seconds"], "the break-even counts what the training recorded"


def test_a_backend_that_the_worker_lacks_fails_the_job_with_what_it_needs(
    quick_sqlite: Settings, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADSMITH_NATIVE", "off")
    failed = ran(sqlite_database, quick_sqlite, backend="native")
    assert failed.status == "failed"
    assert "forces the backend native" in str(failed.status_reason)
    assert "GRADSMITH_NATIVE=off" in str(failed.status_reason)
    usual = ran(sqlite_database, quick_sqlite)
    assert (usual.status, usual.runtime["backend"], usual.runtime["backend_forced"]) == ("succeeded", "torch", False)


@compiled
def test_a_job_with_products_in_bfloat16_says_in_its_log_where_they_are_emulated(
    quick_sqlite: Settings, sqlite_database: Database
) -> None:
    rule = {"kind": "lstm", "hidden_size": 7}
    job_id = create(sqlite_database, training(meta_steps=4, rule=rule, products="bfloat16"))
    run_job(job_id, 1, settings=quick_sqlite)
    done = job(sqlite_database, job_id)
    assert done.status == "succeeded", done.status_reason
    events = stored_events(sqlite_database, job_id)
    said = [json.loads(event.text)["message"] for event in events if event.kind == "log"]
    has = targets_here(bfloat16=True)[0] == AVX512_BF16
    warned = [message for message in said if "its CPU lacks AVX512-BF16" in message and "more slowly" in message]
    assert len(warned) == (0 if has else 1)
    assert done.runtime["backend"].endswith(EMULATES) == (not has)
    [optimizer] = optimizers(sqlite_database)
    assert optimizer.card["recipe"]["products"] == "bfloat16"
    assert optimizer.card["runtime"]["backend"] == done.runtime["backend"]


def test_calibrated_threads_are_recorded_and_bounded(
    quick_sqlite: Settings, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def three(*_: Any, most: int, **__: Any) -> int:
        asked.append(most)
        return 3

    monkeypatch.setattr("workers.facts.calibrated", three)
    settings = quick_sqlite.model_copy(update={"worker_threads": 5})
    done = ran(sqlite_database, settings, threads="auto")
    assert (done.status, asked) == ("succeeded", [5])
    assert (done.runtime["threads"], done.runtime["threads_calibrated"]) == (3, True)
    fixed = ran(sqlite_database, settings, threads=2)
    assert (fixed.runtime["threads"], fixed.runtime["threads_calibrated"], asked) == (2, False, [5])


def test_calibration_is_real(quick_sqlite: Settings, sqlite_database: Database) -> None:
    done = ran(sqlite_database, quick_sqlite.model_copy(update={"worker_threads": 2}), threads="auto")
    assert done.status == "succeeded", done.status_reason
    assert done.runtime["threads"] in (1, 2)
    [optimizer] = optimizers(sqlite_database)
    assert optimizer.card["runtime"]["threads"] == done.runtime["threads"]


def test_a_job_that_does_not_fit_this_worker_fails_before_it_starts(
    quick_sqlite: Settings, sqlite_database: Database
) -> None:
    small = quick_sqlite.model_copy(update={"worker_memory_bytes": 200 * 2**20})
    failed = ran(sqlite_database, small)
    assert (failed.status, failed.step) == ("failed", 0)
    assert str(failed.status_reason).startswith("out_of_memory: the job needs about 0.3 GiB with the backend ")
    assert "this worker has 0.2 GiB. It was not started. Lower recipe.tasks" in str(failed.status_reason)
    assert failed.runtime["memory_estimate_bytes"] > 200 * 2**20


def test_the_card_has_the_memory_that_was_predicted_and_that_was_used(
    quick_sqlite: Settings, sqlite_database: Database
) -> None:
    ran(sqlite_database, quick_sqlite)
    [optimizer] = optimizers(sqlite_database)
    assert optimizer.card["runtime"]["memory_estimate_bytes"] > 250 * 2**20
    assert optimizer.card["runtime"]["memory_peak_bytes"] > 200 * 2**20


MLP = {"kind": "mlp", "hidden_size": 8, "input": "momenta"}  # which no kernel runs
SEVERAL = {"rules": {"weight": {"hidden_size": 7}, "*": MLP}}


@pytest.mark.parametrize("recipe", [{"rule": MLP}, SEVERAL], ids=["mlp", "several"])
def test_other_rules_go_through_a_whole_job(
    quick_sqlite: Settings, sqlite_database: Database, recipe: dict[str, Any]
) -> None:
    """Trained, registered, measured, described by a card, and used on a user's model."""
    digits = FAMILIES["digits-mlp"]
    short = {
        "meta_steps": 4,
        "validation_interval": 2,
        "validation_tasks": 2,
        "horizon": 10,
        "unroll_steps": 5,
        "starts": 1,
    }
    spec = training(meta_steps=4).model_copy(
        update={"family": digits, "recipe": overridden(digits.recipe, short | recipe), "evaluate": True}
    )
    job_id = create(sqlite_database, spec)
    run_job(job_id, 1, settings=quick_sqlite)
    done = job(sqlite_database, job_id)
    assert done.status == "succeeded", done.status_reason
    assert "torch" in done.runtime["backend"].split("+")
    [optimizer] = optimizers(sqlite_database)
    with sqlite_database.read() as session:
        data = Registry(session).weights(optimizer)
        [follow_up] = JobRepository(session).page(parent=job_id).rows
        card = card_markdown(card_facts(session, optimizer))
    run_job(follow_up.id, 1, settings=quick_sqlite)
    assert job(sqlite_database, follow_up.id).status == "succeeded", job(sqlite_database, follow_up.id).status_reason
    model = torch.nn.Linear(8, 3)
    learned = LearnedOptimizer(model.named_parameters(), data)
    model(torch.ones(2, 8)).sum().backward()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    learned.step()
    assert not any(map(torch.equal, before, model.parameters()))
    if "rules" in recipe:
        assert "| Rule for `layer0.bias`, `layer1.bias` | mlp, 2 x 8, " in card
        assert "'weight': lstm(hidden_size=7, layers=2" in repr(learned)
    else:
        assert "| Rule | mlp, 2 x 8, " in card


@pytest.mark.parametrize("spec", [training(), training(evaluate=True), evaluation("opt_any"), preview()])
def test_a_worker_advises_what_the_kind_of_job_has_and_post_advises_the_same(spec: JobSpec) -> None:
    with pytest.raises(TooLittleMemory) as refused:
        refuse_too_large(spec, {"memory_estimate_bytes": 2**31, "backend": "torch"}, 2**30)
    advice = str(refused.value).partition("Lower ")[2].partition(", or use a larger worker")[0]
    assert advice.replace(" or ", ", ").split(", ") == spec.to_lower
    fields = [field.split(".") for field in spec.to_lower]
    assert all(name in spec.model_dump()[part] for part, name in fields), advice
