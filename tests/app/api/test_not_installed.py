"""Jobs whose optimizer needs what this server lacks by now: refused when they are posted, and not by a worker later."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.store.sessions import Database
from app.store.tables import JobRow
from workshop.working import Worker

MLP = {"kind": "mlp", "hidden_size": 8}

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def trained(api: httpx.Client, worker: Callable[..., Worker], database: Database) -> Callable[..., str]:
    """`trained(change, **recipe)`: the id of an optimizer whose job's spec was changed afterwards, as if it had been
    made by a server that has more."""

    def made(change: Change, **recipe: object) -> str:
        job = api.post(
            "/jobs", json={"kind": "meta_train", "family": "quadratic", "recipe": recipe, "evaluate": False}
        ).json()
        optimizer = worker(job["id"]).finish_training().optimizer
        assert optimizer is not None
        with database.write() as session:
            row = session.scalar(select(JobRow).where(JobRow.id == job["id"]))
            assert row is not None
            spec = copy.deepcopy(row.spec)
            change(spec)
            row.spec = spec
        return optimizer.id

    return made


def of_a_plugin(spec: dict[str, Any]) -> None:
    spec["family"] |= {"name": "waves", "plugin": "curves 1.2", "tasks": {"kind": "waves", "length": 3}}


def refused(api: httpx.Client, body: dict[str, object]) -> str:
    answer = api.post("/jobs", json={"kind": "evaluate"} | body)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "not_installed"), answer.text
    assert [(each["pointer"], each["code"]) for each in problem["errors"]] == [("/optimizer", "not_installed")]
    return str(problem["detail"])


def test_the_plug_in_of_a_family_that_has_gone_is_named(api: httpx.Client, trained: Callable[..., str]) -> None:
    optimizer = trained(of_a_plugin)
    said = refused(api, {"optimizer": optimizer})
    assert said.startswith(f"{optimizer} was trained on 'waves', a family of the plug-in curves 1.2, which this server")
    assert "Install it here and for the workers, or send a family that is here: quadratic," in said
    elsewhere = api.post("/jobs", json={"kind": "evaluate", "optimizer": optimizer, "family": "quadratic"})
    assert elsewhere.status_code == 202, "its one rule moves whatever there is"


def test_another_version_of_the_plug_in_is_named(api: httpx.Client, trained: Callable[..., str]) -> None:
    optimizer = trained(lambda spec: spec["family"].update(plugin="curves 1.2", tasks={"kind": "quadratic", "size": 3}))
    said = refused(api, {"optimizer": optimizer})
    assert "'quadratic' as curves 1.2 makes it, and they do not fit 'quadratic' as Gradsmith makes it" in said
    assert "size: Extra inputs are not permitted" in said
    assert "Install that version, or send the family 'quadratic'" in said


def test_rules_for_parts_that_nobody_knows_are_measured_only_where_each_part_has_one(
    api: httpx.Client, trained: Callable[..., str]
) -> None:
    """Whether the rule of the rest was trained depends on the parts of the tasks, which the plug-in knows."""
    optimizer = trained(of_a_plugin, rules={"vector": MLP})
    measure = {"optimizer": optimizer, "kind": "evaluate"}
    assert "curves 1.2" in refused(api, measure | {"family": "digits-mlp"})
    covered = api.post("/jobs", json=measure | {"family": "quadratic"})
    assert covered.status_code == 202, covered.text


def test_a_rule_that_this_version_does_not_know_is_named_and_its_card_shows_it(
    api: httpx.Client, trained: Callable[..., str]
) -> None:
    optimizer = trained(lambda spec: spec["recipe"].update(rule={"kind": "hopfield", "units": 3}))
    said = refused(api, {"optimizer": optimizer})
    assert "rule.kind is 'hopfield' (Input should be" in said
    assert "Install that version here and for the workers, or send another optimizer." in said
    card = api.get(f"/optimizers/{optimizer}/card")
    assert (card.status_code, '"hopfield"' in card.text) == (200, True)


def test_what_cannot_be_read_here_is_not_retried(api: httpx.Client, database: Database, training_job: str) -> None:
    assert api.post(f"/jobs/{training_job}/cancel").json()["status"] == "cancelled"
    with database.write() as session:
        row = session.scalar(select(JobRow).where(JobRow.id == training_job))
        assert row is not None
        spec = copy.deepcopy(row.spec)
        of_a_plugin(spec)
        row.spec = spec
    answer = api.post(f"/jobs/{training_job}/retry")
    assert (answer.status_code, answer.json()["code"]) == (422, "not_installed"), answer.text
    assert "no kind of family 'waves' here" in answer.json()["detail"]
    assert "install curves 1.2 here too" in answer.json()["detail"]
    assert api.get(f"/jobs/{training_job}").json()["status"] == "cancelled"
