"""`best` is never worse than the best tuned baseline: an evaluation registers that one too."""

from __future__ import annotations

import torch

import gradsmith
from app.api.documents import card_facts
from app.report.card import card_markdown
from app.settings import Settings
from app.store.registry import Registry
from app.store.sessions import Database
from gradsmith.rules import weights as rule_weights
from tests.workers.harness import create, evaluation, job, optimizers, training
from workers.run import run_job


def test_where_a_rule_learned_little_best_is_the_tuned_baseline(
    quick_sqlite: Settings, sqlite_database: Database
) -> None:
    run_job(create(sqlite_database, training(meta_steps=4)), 1, settings=quick_sqlite)
    [learned] = optimizers(sqlite_database)
    for _ in range(2):  # the second finds what the first has registered
        evaluating = create(sqlite_database, evaluation(learned.id))
        run_job(evaluating, 1, settings=quick_sqlite)
        done = job(sqlite_database, evaluating)
        assert done.status == "succeeded", done.status_reason
    _, tuned = sorted(optimizers(sqlite_database), key=lambda row: row.version)
    with sqlite_database.read() as session:
        registry = Registry(session)
        found = registry.evaluation(evaluating).result["validation"]
        assert found["tuned"] == tuned.validation_score
        assert found["learned"] == learned.validation_score
        assert (found["better"], tuned.criterion) == ("tuned", learned.criterion)
        assert registry.locate("quadratic@best").id == tuned.id
        assert registry.locate("quadratic@latest").id == learned.id
        weights = registry.weights(tuned)
        card = card_markdown(card_facts(session, tuned))
    assert "The best tuned baseline, not learned," in card
    assert f"Evaluation job `{tuned.job}` tuned it" in card
    rule = rule_weights.loads(weights)
    assert rule.config()["optimizer"] == found["baseline"]
    theta = torch.nn.Parameter(torch.ones(3))
    optimizer = gradsmith.LearnedOptimizer([theta], weights, steps=found["steps"])
    theta.grad = torch.ones(3)
    optimizer.step()
    assert bool((theta < 1).all())


def test_best_takes_a_learned_schedule_that_does_as_well(quick_sqlite: Settings, sqlite_database: Database) -> None:
    spec = training(meta_steps=8, meta_gradient="exact")
    run_job(create(sqlite_database, spec), 1, settings=quick_sqlite)
    [learned] = optimizers(sqlite_database)
    plan = {"family_tier": True, "baselines": ["adam", "nag"]}
    evaluating = create(sqlite_database, evaluation(learned.id, spec.recipe, **plan))
    run_job(evaluating, 1, settings=quick_sqlite)
    done = job(sqlite_database, evaluating)
    assert done.status == "succeeded", done.status_reason
    _, schedule = sorted(optimizers(sqlite_database), key=lambda row: row.version)
    assert (schedule.stands_for, schedule.tuned) == (learned.id, False)
    with sqlite_database.write() as session:  # as if it were the better one by validation, and the two tie
        session.get_one(type(learned), learned.id).validation_score = schedule.validation_score / 2
    with sqlite_database.read() as session:
        registry = Registry(session)
        found = registry.evaluation(evaluating).result["family_tier"]["schedule"]
        assert (found["best"], schedule.job) == (True, evaluating)
        assert registry.locate("quadratic@best").id == schedule.id
        assert registry.locate("quadratic@latest").id == learned.id
        weights = registry.weights(schedule)
        cards = [card_markdown(card_facts(session, row)) for row in (schedule, registry.resolve(learned.id))]
    assert f"**As good as `{learned.id}`.** Evaluation job `{schedule.job}` trained it" in cards[0]
    assert "`best` takes the schedule" in cards[1]
    theta = torch.nn.Parameter(torch.ones(3))
    optimizer = gradsmith.LearnedOptimizer([theta], weights, steps=10)
    theta.grad = torch.ones(3)
    optimizer.step()
    assert bool((theta < 1).all())
