"""`best` is never worse than the best tuned baseline: an evaluation registers that one too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gradsmith
from app.api.documents import card_facts
from app.report.card import card_markdown
from app.report.claims import validation_sentence
from app.settings import Settings
from app.store.registry import Registry
from app.store.sessions import Database
from gradsmith.rules import weights as rule_weights
from models.families import FAMILIES
from models.spec import EvaluateSpec, MetaTrainSpec, Resources, Split, overridden
from models.task_spec import Part
from models.tasks.base import TaskBatch
from models.tasks.catalogue import open_for_training
from tests.workers.harness import PLAN, create, evaluation, job, optimizers, training
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


def test_where_an_optimizer_for_matrices_is_best_users_get_it_with_the_loss_that_was_measured(
    quick_sqlite: Settings, sqlite_database: Database
) -> None:
    """On digits Muon leaves SGD behind. `best` is the one that won, and in a PyTorch loop over the validation
    tasks' own tensors it comes to the score that the registry has."""
    digits = FAMILIES["digits-mlp"]
    assert {"muon", "soap"} < set(digits.evaluation.baselines), "they are there where a job names nothing"
    small = {"meta_steps": 2, "horizon": 10, "unroll_steps": 5, "validation_tasks": 3, "validation_interval": 2}
    recipe = overridden(digits.recipe, small | {"tasks": 1, "pool": 1, "starts": 1, "objective": "final"})
    plan = overridden(digits.evaluation, PLAN | {"baselines": ["sgd", "muon"], "test_tasks": 2, "tuning_tasks": 2})
    common = {"family": digits, "seed": 1, "evaluation": plan, "resources": Resources()}
    run_job(create(sqlite_database, MetaTrainSpec(recipe=recipe, evaluate=False, **common)), 1, settings=quick_sqlite)
    [learned] = optimizers(sqlite_database)
    evaluating = create(sqlite_database, EvaluateSpec(optimizer=learned.id, rule=recipe.rule, **common))
    run_job(evaluating, 1, settings=quick_sqlite)
    assert job(sqlite_database, evaluating).status == "succeeded", job(sqlite_database, evaluating).status_reason
    with sqlite_database.read() as session:
        registry = Registry(session)
        best = registry.resolve("digits-mlp@best")
        weights, score = registry.weights(best), best.validation_score
        found = registry.evaluation(evaluating).result
        card = card_markdown(card_facts(session, best))
    assert found["validation"]["better"] == "tuned"
    assert found["validation"]["baseline"] == "muon"
    assert validation_sentence(found).startswith("By validation a tuned baseline is better, so that `best` names that")
    assert "For a model without matrices." in card
    [tasks] = open_for_training(digits.tasks).sample(Split.VALIDATION, seed=0, trajectory=0, tasks=3)
    starts = tasks.initial().view(3, -1)
    theta = [[nn.Parameter(piece.view(part.shape)) for piece, part in pieces_of(start, tasks)] for start in starts]
    users = [gradsmith.LearnedOptimizer(each, weights, steps=10) for each in theta]
    losses = []
    for step in range(11):
        flat = torch.cat([parameter.detach().reshape(-1) for each in theta for parameter in each])
        loss, gradient = tasks.losses_and_gradient(flat, step)
        losses.append(loss)
        for own, parameters, optimizer in zip(gradient.view(3, -1), theta, users, strict=True):
            for parameter, (piece, part) in zip(parameters, pieces_of(own, tasks), strict=True):
                parameter.grad = piece.view(part.shape)
            optimizer.step()
    assert float(torch.stack(losses[-5:]).double().mean()) == pytest.approx(score, rel=1e-4)


def pieces_of(flat: Tensor, tasks: TaskBatch) -> list[tuple[Tensor, Part]]:
    """The numbers of each tensor of a task."""
    return list(zip(flat.clone().split([part.size for part in tasks.parts]), tasks.parts, strict=True))
