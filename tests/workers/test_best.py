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
