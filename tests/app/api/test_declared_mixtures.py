"""POST /families of the kinds `mixture` and `augmented`: names become the tasks that they stand for, for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.app.api.conftest import Worker
from tests.app.api.test_datasets import ROLES, bring, customers

QUADRATICS: dict[str, Any] = {"family": "quadratic", "tasks": {"dimension": 4}, "weight": 2}


def mixture(*families: Any, **fields: Any) -> dict[str, Any]:
    return {"kind": "mixture", "families": list(families)} | fields


def test_a_mixture_names_families_and_is_trained_and_measured_as_any_is(
    api: httpx.Client, worker: Callable[..., Worker]
) -> None:
    answer = bring(api, "mixed-rows", customers(), **ROLES)
    assert answer.status_code == 201, answer.text
    logistic = {"kind": "regression", "dataset": "mixed-rows", "loss": "logistic"}
    answer = api.post("/families", json={"name": "mixed-churn", "tasks": logistic})
    assert answer.status_code == 201, answer.text
    own = answer.json()["tasks"]
    members = (
        QUADRATICS,
        {"family": "mixed-churn", "weight": 0.5},
        {"tasks": {"kind": "mlp", "dataset": "mixed-rows"}, "vary": {"width": {"low": 4, "high": 9}, "depth": [1, 2]}},
        {"tasks": {"kind": "augmented", "tasks": logistic, "scaling": 5}},
    )
    answer = api.post("/families", json={"name": "mixed", "tasks": mixture(*members, draws=3)})
    assert answer.status_code == 201, answer.text
    made = answer.json()["tasks"]["families"]
    assert made[0]["tasks"]["dimension"] == 4
    assert made[1]["tasks"] == own
    assert made[2]["tasks"]["dataset"]["sha256"] == made[3]["tasks"]["tasks"]["dataset"]["sha256"]
    assert api.get("/families/mixed").json() == answer.json()
    refused = api.delete("/datasets/mixed-rows")
    assert (refused.status_code, "mixed" in refused.text) == (409, True)
    job = api.post("/jobs", json={"kind": "meta_train", "family": "mixed", "tasks": {"draws": 2}})
    assert job.status_code == 202, job.text
    outcome = worker(job.json()["id"]).finish_training(score=1.0)
    assert outcome.optimizer is not None
    measured = api.post("/jobs", json={"kind": "evaluate", "optimizer": f"mixed@{outcome.optimizer.version}"})
    assert measured.status_code == 202, measured.text
    assert api.post("/jobs", json={"kind": "preview", "family": "mixed"}).status_code == 202
    beside = {"kind": "meta_train", "family": "quadratic", "recipe": {"mixture": [{"family": "mixed"}]}}
    assert api.post("/jobs", json=beside).status_code == 202


STOLEN = {
    "name": "rows", "sha256": "0" * 64, "format": "csv", "inputs": ["a"], "target": "b", "rows": 9, "groups": 1,
    "largest": 9, "target_lowest": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("tasks", "pointer", "message"),
    [
        (mixture({"family": "quadratik"}), "/tasks/families/0/family", "Did you mean 'quadratic'?"),
        (mixture(QUADRATICS, {}), "/tasks/families/1/family", "send `family`"),
        (mixture(QUADRATICS, {"tasks": {"kind": "cubic"}}), "/tasks/families/1/tasks/kind", "no kind of family"),
        (mixture({"family": "quadratic", "tasks": {"dimension": 0}}), "/tasks/families/0/tasks/dimension", "1 or more"),
        (mixture({"family": "quadratic", "weight": "2"}), "/tasks/families/0/weight", "number"),
        (mixture({"family": "quadratic", "vary": {"size": [1]}}), "/tasks", "no field 'size'"),
        (mixture({"family": "quadratic", "vary": {"dimension": []}}), "/tasks/families/0/vary/dimension", "1"),
        (mixture({"tasks": {"kind": "regression", "dataset": STOLEN}}), "/tasks/families/0/tasks/dataset", "the name"),
        (mixture(*[QUADRATICS] * 17), "/tasks/families", "16 at most"),
        (mixture(), "/tasks/families", "1"),
        (mixture(7), "/tasks/families/0", "object"),
        ({"kind": "augmented", "tasks": {"kind": "regression", "dataset": STOLEN}}, "/tasks/tasks/dataset", "the name"),
        ({"kind": "augmented", "tasks": mixture(QUADRATICS)}, "/tasks/tasks", "cannot be augmented"),
        ({"kind": "augmented"}, "/tasks/tasks", "missing"),
        ({"kind": "augmented", "tasks": []}, "/tasks/tasks", "object with the field `kind`"),
    ],
)
def test_what_is_wrong_within_is_pointed_at(
    api: httpx.Client, tasks: dict[str, Any], pointer: str, message: str
) -> None:
    answer = api.post("/families", json={"name": "refused-mixture", "tasks": tasks})
    assert answer.status_code == 422, answer.text
    error = answer.json()["errors"][0]
    assert error["pointer"].startswith(pointer), answer.text
    assert message in error["message"]


def test_a_job_keeps_the_families_within(api: httpx.Client) -> None:
    made = api.post("/families", json={"name": "kept-mixture", "tasks": mixture(QUADRATICS)})
    assert made.status_code == 201, made.text
    stolen = {"families": [{"tasks": {"kind": "regression", "dataset": STOLEN}}]}
    answer = api.post("/jobs", json={"kind": "meta_train", "family": "kept-mixture", "tasks": stolen})
    error = answer.json()["errors"][0]
    assert (answer.status_code, error["pointer"], error["code"]) == (422, "/tasks/families", "nested")
