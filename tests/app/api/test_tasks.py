"""Jobs that change their family's tasks: what is trained, recorded and measured then."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from models.families import FAMILIES
from workshop.working import Worker

SMALLER = {"hidden": [16], "activation": "relu"}
OWN = FAMILIES["digits-mlp"].tasks.model_dump(mode="json")
QUADRATIC = {"family": "quadratic"}
TRAINING = {"kind": "meta_train", "family": "digits-mlp", "evaluate": True}


def posted(api: httpx.Client, body: dict[str, object]) -> dict[str, object]:
    answer = api.post("/jobs", json=body)
    assert answer.status_code == 202, answer.text
    family = answer.json()["spec"]["family"]
    return answer.json() | {"tasks": family["tasks"], "overrides": family["overrides"]}


def test_a_job_trains_on_the_tasks_that_it_names_and_an_evaluation_measures_on_those(
    api: httpx.Client, worker: Callable[..., Worker]
) -> None:
    job = posted(api, TRAINING | {"tasks": SMALLER})
    assert job["family"] == "digits-mlp"
    assert job["tasks"] == OWN | SMALLER
    assert job["overrides"] == SMALLER
    outcome = worker(str(job["id"])).finish_training(score=1.0)
    assert outcome.optimizer is not None
    assert outcome.follow_up is not None
    assert outcome.follow_up.spec["family"]["tasks"] == OWN | SMALLER

    measure = {"kind": "evaluate", "optimizer": outcome.optimizer.id}
    assert posted(api, measure)["tasks"] == OWN | SMALLER
    also = posted(api, measure | {"tasks": {"hidden": [8]}})
    assert (also["tasks"], also["overrides"]) == (OWN | SMALLER | {"hidden": [8]}, SMALLER | {"hidden": [8]})
    assert (
        posted(api, measure | {"tasks": {"hidden": OWN["hidden"], "activation": OWN["activation"]}})["overrides"] == {}
    )
    named = posted(api, measure | {"family": "digits-mlp"})
    assert (named["tasks"], named["overrides"]) == (OWN, {})
    longer = posted(api, measure | {"family": "digits-mlp-200-steps"})  # a name brings its horizon
    assert (longer["tasks"], longer["spec"]["evaluation"]["horizon"]) == (OWN, 200)

    record = api.get(f"/optimizers/{outcome.optimizer.id}/record").json()
    assert (record["overrides"], record["aliases"]) == (SMALLER, ["latest"])
    assert api.get("/optimizers/digits-mlp@best").status_code == 404  # there is none on the family's own tasks
    own = worker(str(posted(api, TRAINING)["id"])).finish_training(score=9.0)
    assert own.optimizer is not None
    assert api.get("/optimizers/digits-mlp@best/record").json()["id"] == own.optimizer.id  # 9.0 on other tasks than 1.0
    assert [found["id"] for found in api.get("/optimizers?alias=best").json()["data"]] == [own.optimizer.id]

    card = api.get(f"/optimizers/{outcome.optimizer.id}/card").text
    assert card.splitlines()[2].replace("\\", "").endswith('its tasks changed: hidden [16], activation "relu".')
    assert '| Family | `digits-mlp`, with hidden [16], activation "relu" |' in card.replace("\\", "")


def test_what_is_the_familys_own_already_changes_nothing(api: httpx.Client) -> None:
    assert posted(api, TRAINING | {"tasks": {"hidden": OWN["hidden"]}})["overrides"] == {}


def test_what_was_trained_for_held_out_data_is_measured_on_it_unless_a_request_says_otherwise(
    api: httpx.Client, worker: Callable[..., Worker]
) -> None:
    job = posted(api, TRAINING | {"recipe": {"on": "held_out"}})
    assert job["spec"]["evaluation"]["on"] == "held_out"  # type: ignore[index]
    outcome = worker(str(job["id"])).finish_training()
    assert outcome.optimizer is not None
    assert outcome.follow_up is not None
    assert outcome.follow_up.spec["evaluation"]["on"] == "held_out"
    measure = {"kind": "evaluate", "optimizer": outcome.optimizer.id}
    for more, on in (({}, "held_out"), ({"evaluation": {"on": "training"}}, "training"), (QUADRATIC, "training")):
        assert posted(api, measure | more)["spec"]["evaluation"]["on"] == on  # type: ignore[index]
    preview = {"kind": "preview", "family": "quadratic", "evaluation": {"on": "held_out"}}
    refused = api.post("/jobs", json=preview).json()
    assert [error["pointer"] for error in refused["errors"]] == ["/evaluation/on"]


def test_memory_is_predicted_for_the_tasks_that_are_trained(api: httpx.Client) -> None:
    wide = api.post("/jobs", json=TRAINING | {"tasks": {"hidden": [4096] * 8}, "recipe": {"tasks": 64}})
    assert wide.json()["code"] == "job_too_large"
    assert "Lower tasks.hidden, recipe.tasks, " in wide.json()["detail"]
    body = {"tasks": {"hidden": [16], "activation": "relu", "batch_size": 32}, "recipe": {"tasks": 65_536}}
    many = api.post("/jobs", json=TRAINING | body).json()
    assert "Lower recipe.tasks, " in many["detail"], "none of these three makes it larger than the family's own"


def test_an_optimizer_is_measured_only_where_its_rules_cover_every_part(
    api: httpx.Client, worker: Callable[..., Worker]
) -> None:
    mlp = {"kind": "mlp", "hidden_size": 8}

    def trained(rules: dict[str, object]) -> str:
        job = posted(api, TRAINING | {"recipe": {"rules": rules}, "evaluate": False})
        optimizer = worker(str(job["id"])).finish_training().optimizer
        assert optimizer is not None
        return optimizer.id

    whole = trained({"weight": mlp, "bias": mlp})  # nothing is left for the rule of the rest, so it is never trained
    measure = {"kind": "evaluate", "optimizer": whole}
    posted(api, measure)
    posted(api, measure | {"tasks": {"hidden": [8, 8]}})
    elsewhere = measure | {"family": "quadratic"}
    refused = api.post("/jobs", json=elsewhere)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    [error] = refused.json()["errors"]
    assert (error["pointer"], error["code"]) == ("/family", "part_without_rule")
    assert f"{whole} has no rule for theta (vector) of quadratic; its rules are for bias, weight. " in error["message"]

    layers = trained({"layer0.*": mlp, "layer1.*": mlp})
    deeper = api.post("/jobs", json={"kind": "evaluate", "optimizer": layers, "tasks": {"hidden": [8, 8]}})
    assert deeper.status_code == 422, deeper.text
    assert deeper.json()["errors"][0]["pointer"] == "/tasks"
    assert "layer2.weight (weight)" in deeper.json()["detail"]

    posted(api, elsewhere | {"optimizer": trained({"bias": mlp})})  # the rule of the rest moves the weights


def test_an_evaluation_on_tasks_without_room_in_the_rules_matrix_is_refused(
    api: httpx.Client, worker: Callable[..., Worker]
) -> None:
    body = {"kind": "meta_train", "family": "quadratic", "recipe": {"rule": {"kind": "ntm_bfgs", "memory_size": 12}}}
    outcome = worker(api.post("/jobs", json=body).json()["id"]).finish_training()
    assert outcome.optimizer is not None
    evaluation = {"kind": "evaluate", "optimizer": outcome.optimizer.id}
    for changes, pointer in (({"tasks": {"dimension": 13}}, "/tasks"), ({"family": "digits-mlp"}, "/family")):
        [error] = api.post("/jobs", json=evaluation | changes).json()["errors"]
        assert (error["pointer"], error["code"]) == (pointer, "no_room")
        assert "moves 12 coordinates of a task at most" in error["message"]
    assert api.post("/jobs", json=evaluation | {"tasks": {"dimension": 12}}).status_code == 202
