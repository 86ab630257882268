"""A whole job on convolutional networks: two rules for one task, trained on some labels and measured on others."""

from __future__ import annotations

from typing import Any

from app.settings import Settings
from app.store.registry import Registry
from app.store.sessions import Database
from gradsmith.rules import weights as rule_weights
from gradsmith.rules.rule_set import RuleSet
from models.families import FAMILIES
from models.spec import EvaluateSpec, MetaTrainSpec, Resources, overridden, with_tasks
from tests.workers.harness import PLAN, create, job, optimizers
from workers.run import run_job

SMALL: dict[str, Any] = {"channels": [4, 4], "hidden": [4], "batch_size": 16}
RECIPE: dict[str, Any] = {
    "rules": {"conv*": {"kind": "hyper"}},
    "meta_steps": 4, "horizon": 4, "unroll_steps": 2, "pool": 2, "validation_tasks": 2, "validation_interval": 2,
}  # fmt: skip


def test_two_rules_learn_on_some_labels_and_are_measured_on_the_others(
    quick_sqlite: Settings, sqlite_database: Database
) -> None:
    family = FAMILIES["digits-conv"]
    plan = overridden(
        family.evaluation, PLAN | {"test_tasks": 4, "tuning_tasks": 2, "horizon": 4, "baselines": ["sgd"]}
    )
    held_out, measured = (
        with_tasks(family, overridden(family.tasks, SMALL | {"labels": labels}))
        for labels in ([5, 6, 7, 8, 9], [0, 1, 2, 3, 4])
    )
    spec = MetaTrainSpec(
        family=held_out, seed=1, recipe=overridden(family.recipe, RECIPE), evaluate=False, evaluation=plan,
        resources=Resources(),
    )  # fmt: skip
    trained = create(sqlite_database, spec)
    run_job(trained, 1, settings=quick_sqlite)
    done = job(sqlite_database, trained)
    assert (done.status, done.status_reason) == ("succeeded", None)
    [optimizer] = optimizers(sqlite_database)
    with sqlite_database.read() as session:
        rules = rule_weights.loads(Registry(session).weights(optimizer))
    assert isinstance(rules, RuleSet)

    evaluation = EvaluateSpec(
        optimizer=optimizer.id, family=measured, seed=1, evaluation=plan, resources=Resources(),
        rule=spec.recipe.rule, rules=spec.recipe.rules,
    )  # fmt: skip
    told = create(sqlite_database, evaluation)
    run_job(told, 1, settings=quick_sqlite)
    assert job(sqlite_database, told).status == "succeeded", job(sqlite_database, told).status_reason
    with sqlite_database.read() as session:
        result = Registry(session).evaluation(told).result
    assert result["verdict"]["final"] in ("wins", "ties", "loses")
    assert result["held_out"]
    assert all(0 <= each["accuracy"] <= 1 for each in result["held_out"].values())
