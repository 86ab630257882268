"""POST /jobs and what can be done with a job afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import redis
import rq
from pydantic import SecretStr

from app.settings import Settings
from app.store import leases
from app.store.jobs import JobRepository
from app.store.sessions import Database
from models.families import FAMILIES
from models.families.recipes import PAPER
from models.spec import Resources, overridden
from workshop.services import ValkeyServer
from workshop.serving import serving
from workshop.working import Worker

SMALLEST = {"kind": "meta_train", "family": "quadratic"}
BFLOAT16 = {"rule": {"kind": "lstm"}, "meta_gradient": "detached", "products": "bfloat16"}


def test_a_mixture_is_resolved_and_stored_with_its_tasks(api):
    mixture = [{"family": "digits-mlp", "tasks": {"activation": "relu"}, "weight": 0.5}, {"family": "quadratic"}]
    body = {"kind": "meta_train", "family": "digits-mlp", "recipe": {"mixture": mixture, "pool": 4}}
    job = api.post("/jobs", json=body).json()
    first, second = job["spec"]["recipe"]["mixture"]
    own = job["spec"]["family"]["tasks"]
    assert first == {"family": "digits-mlp", "tasks": own | {"activation": "relu"}, "weight": 0.5}
    assert (second["family"], second["tasks"]["kind"], second["weight"]) == ("quadratic", "quadratic", 1.0)


@pytest.mark.parametrize(
    ("entry", "code", "pointer"),
    [
        ({"family": "digits"}, "unknown_family", "/recipe/mixture/0/family"),
        ({"family": "digits-mlp", "tasks": {"hidden": [0]}}, "invalid_request", "/recipe/mixture/0/tasks/hidden/0"),
        ({"family": "digits-mlp", "weight": "2"}, "invalid_request", "/recipe/mixture/0/weight"),
        ({"weight": 2.0}, "invalid_request", "/recipe/mixture/0/family"),
    ],
)
def test_what_is_wrong_with_a_mixture_is_pointed_at(standing_api, entry, code, pointer):
    body = {"kind": "meta_train", "family": "digits-mlp", "recipe": {"mixture": [entry]}}
    answer = standing_api.post("/jobs", json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == code
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("sent", "resolved"),
    [
        ({"meta_steps": 300}, {"starts": 1, "pool": 8}),
        ({"meta_steps": 301, "horizon": 40}, {"starts": 3, "shortest_horizon": None, "validation_horizons": []}),
        ({"meta_steps": 400, "unroll_steps": 10}, {"starts": 3, "shortest_horizon": 60, "validation_horizons": [100]}),
        ({"meta_steps": 400, "rules": {"bias": {"kind": "mlp"}}}, {"mixture": []}),
    ],
)
def test_defaults_that_do_not_fit_what_is_named_give_way(standing_api, monkeypatch, sent, resolved):
    family = FAMILIES["digits-mlp"]
    changes = {"starts": 3, "start_steps": 100, "shortest_horizon": 60, "validation_horizons": [100], "pool": 8}
    mixture = [{"family": "quadratic", "tasks": FAMILIES["quadratic"].tasks}]
    recipe = overridden(PAPER["digits-mlp"], changes | {"meta_steps": 1000, "mixture": mixture})
    monkeypatch.setitem(FAMILIES, "digits-mlp", family.model_copy(update={"recipe": recipe}))
    answer = standing_api.post("/jobs", json={"kind": "meta_train", "family": "digits-mlp", "recipe": sent})
    assert answer.status_code == 202, answer.text
    stored = answer.json()["spec"]["recipe"]
    assert {name: stored[name] for name in resolved} == resolved
    body = {"kind": "meta_train", "family": "digits-mlp", "resources": {"processes": 2}}
    assert standing_api.post("/jobs", json=body).json()["spec"]["recipe"]["pool"] == 1
    refused = standing_api.post("/jobs", json=body | {"recipe": {"pool": 2}})
    assert "a pool of 2 trajectories is trained in one process" in refused.json()["detail"]


@pytest.mark.parametrize("value", ["20", 20.0, True])
def test_a_number_that_may_be_left_out_is_strict_too(standing_api, value):
    recipe = {"shortest_horizon": value}
    answer = standing_api.post("/jobs", json={"kind": "meta_train", "family": "quadratic", "recipe": recipe})
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/recipe/shortest_horizon"]


def test_two_fields_are_enough_and_the_answer_shows_everything_that_was_chosen(api: httpx.Client) -> None:
    answer = api.post("/jobs", json=SMALLEST)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/jobs/{job['id']}"
    family = FAMILIES["quadratic"].model_dump(mode="json")
    assert job["spec"]["family"] == family
    assert job["spec"]["recipe"] == family["recipe"]
    assert job["spec"]["evaluation"] == family["evaluation"]
    assert job["spec"]["evaluate"] is True
    assert job["spec"]["resources"] == Resources().model_dump(mode="json")
    assert (job["status"], job["attempt"], job["queue_position"]) == ("queued", 1, 0)
    assert job["progress"] == {"step": 0, "total": family["recipe"]["meta_steps"], "eta_seconds": None}
    assert job["created_at"].endswith("Z")
    later = api.get(answer.headers["Location"]).json()
    assert later | {"status_reason": None} == job  # a moment later the server may have seen that no worker is there


def test_a_seed_that_is_not_given_is_fresh_and_recorded(api: httpx.Client) -> None:
    seeds = {api.post("/jobs", json=SMALLEST).json()["spec"]["seed"] for _ in range(3)}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**53 for seed in seeds)
    assert api.post("/jobs", json=SMALLEST | {"seed": 0}).json()["spec"]["seed"] == 0


def test_overrides_change_what_they_name_and_nothing_else(api: httpx.Client) -> None:
    body = SMALLEST | {
        "seed": 3,
        "recipe": {"meta_steps": 50, "horizon": 40, "rule": {"hidden_size": 8}},
        "evaluation": {"test_tasks": 64, "baselines": ["adam"]},
        "evaluate": False,
        "resources": {"device": "gpu"},
        "metadata": {"who": "me"},
    }
    job = api.post("/jobs", json=body).json()
    family = FAMILIES["quadratic"]
    recipe = family.recipe.model_dump(mode="json") | {"meta_steps": 50, "horizon": 40}
    recipe["rule"]["hidden_size"] = 8
    assert job["spec"]["recipe"] == recipe
    # measured over the horizon that it is trained for
    changed = {"test_tasks": 64, "baselines": ["adam"], "horizon": 40}
    assert job["spec"]["evaluation"] == family.evaluation.model_dump(mode="json") | changed
    assert job["spec"]["evaluate"] is False
    assert job["spec"]["resources"] == Resources(device="gpu").model_dump(mode="json")
    assert job["metadata"] == {"who": "me"}


def test_a_rule_of_another_kind_replaces_the_familys_and_parts_may_have_their_own(standing_api: httpx.Client) -> None:
    body = {"kind": "meta_train", "family": "digits-mlp", "recipe": {"rule": {"kind": "mlp", "hidden_size": 8}}}
    inputs = "momenta+scales+tensor_scale+alignment+time"
    mlp = {"kind": "mlp", "hidden_size": 8, "layers": 2, "input": inputs, "p": 10.0, "output_scale": 0.03}
    recipe = standing_api.post("/jobs", json=body).json()["spec"]["recipe"]
    assert (recipe["rule"], recipe["rules"]) == (mlp, {})
    body["recipe"] = {"rules": {"bias": {"kind": "mlp", "hidden_size": 8}, "*": {"layers": 1}}}
    recipe = standing_api.post("/jobs", json=body).json()["spec"]["recipe"]
    assert recipe["rules"] == {"bias": mlp}
    assert recipe["rule"] == FAMILIES["digits-mlp"].recipe.rule.model_dump() | {"layers": 1}


def test_an_evaluation_takes_any_reference_and_records_the_id(
    api: httpx.Client, training_job: str, worker: Callable[..., Worker]
) -> None:
    optimizer = worker(training_job).finish_training().optimizer
    assert optimizer is not None
    for reference in (optimizer.id, "quadratic@1", "quadratic@latest", "quadratic@best"):
        answer = api.post("/jobs", json={"kind": "evaluate", "optimizer": reference})
        assert answer.status_code == 202, answer.text
        job = answer.json()
        assert job["optimizer"] == job["spec"]["optimizer"] == optimizer.id
        assert job["family"] == "quadratic"
    elsewhere = api.post("/jobs", json={"kind": "evaluate", "optimizer": "quadratic@1", "family": "digits-mlp"}).json()
    assert elsewhere["family"] == elsewhere["spec"]["family"]["name"] == "digits-mlp"


def test_an_evaluation_of_any_origin_carries_the_rule_that_was_trained(
    api: httpx.Client, worker: Callable[..., Worker]
) -> None:
    rule = {"hidden_size": 7, "layers": 3}
    body = {"kind": "meta_train", "family": "quadratic", "recipe": {"rule": rule}}
    training = api.post("/jobs", json=body).json()
    outcome = worker(training["id"]).finish_training()
    assert outcome.follow_up is not None
    follow_up = api.get(f"/jobs/{outcome.follow_up.id}").json()
    asked_for = api.post("/jobs", json={"kind": "evaluate", "optimizer": "quadratic@1"}).json()
    for evaluation in (follow_up, asked_for):
        assert evaluation["spec"]["rule"] == training["spec"]["recipe"]["rule"]
        assert evaluation["spec"]["rule"].items() >= rule.items()


def test_a_finished_training_names_its_evaluation_and_the_evaluation_its_parent(
    api: httpx.Client, training_job: str, worker: Callable[..., Worker]
) -> None:
    outcome = worker(training_job).finish_training()
    assert outcome.follow_up is not None
    job = api.get(f"/jobs/{training_job}").json()
    assert (job["status"], job["evaluation"]) == ("succeeded", outcome.follow_up.id)
    assert api.get(f"/jobs/{job['evaluation']}").json()["parent"] == training_job


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"kind": "meta-train"}, "/kind", "union_tag_invalid"),
        ({"kind": None}, "/kind", "union_tag_invalid"),
        ({"family": 3}, "/family", "string_type"),
        ({"family": ""}, "/family", "string_too_short"),
        ({"family": "qu\x00adratic"}, "/family", "value_error"),
        ({"familly": "quadratic"}, "/familly", "extra_forbidden"),
        ({"tasks": 64}, "/tasks", "value_error"),
        ({"tasks": {"dimension": 0}}, "/tasks/dimension", "greater_than_equal"),
        ({"tasks": {"dimension": "20"}}, "/tasks/dimension", "int_type"),
        ({"tasks": {"dimensions": 20}}, "/tasks/dimensions", "extra_forbidden"),
        ({"tasks": {"kind": "mlp"}}, "/tasks/kind", "literal_error"),
        ({"family": "digits-mlp", "tasks": {"hidden": [16, True]}}, "/tasks/hidden/1", "int_type"),
        ({"family": "digits-mlp", "tasks": {"hidden": [1] * 9}}, "/tasks/hidden", "too_long"),
        ({"recipe": {"horizn": 10}}, "/recipe/horizn", "extra_forbidden"),
        ({"recipe": {"rule": {"units": 3}}}, "/recipe/rule/units", "extra_forbidden"),
        ({"recipe": None}, "/recipe", "model_attributes_type"),
        ({"recipe": [1]}, "/recipe", "model_attributes_type"),
        ({"recipe": {"horizon": "100"}}, "/recipe/horizon", "int_type"),
        ({"recipe": {"horizon": True}}, "/recipe/horizon", "int_type"),
        ({"recipe": {"horizon": 1.5}}, "/recipe/horizon", "int_type"),
        ({"recipe": {"horizon": 0}}, "/recipe/horizon", "greater_than_equal"),
        ({"recipe": {"tasks": -1}}, "/recipe/tasks", "greater_than_equal"),
        ({"recipe": {"tasks": 10**9}}, "/recipe/tasks", "less_than_equal"),
        ({"recipe": {"meta_steps": 10**30}}, "/recipe/meta_steps", "less_than_equal"),
        ({"recipe": {"meta_learning_rate": 0}}, "/recipe/meta_learning_rate", "greater_than"),
        ({"recipe": {"meta_learning_rate": "NaN"}}, "/recipe/meta_learning_rate", "float_type"),
        ({"recipe": {"rule": {"kind": "gru"}}}, "/recipe/rule/kind", "literal_error"),
        ({"recipe": {"rule": {"kind": "hyper", "input": "raw"}}}, "/recipe/rule/input", "extra_forbidden"),
        ({"recipe": {"rule": {"kind": "mlp", "input": "raw+pulse"}}}, "/recipe/rule/input", "string_pattern_mismatch"),
        ({"recipe": {"rule": {"kind": "mlp", "input": "time"}}}, "/recipe/rule", "value_error"),
        ({"recipe": {"rule": {"hidden_size": 257}}}, "/recipe/rule/hidden_size", "less_than_equal"),
        ({"recipe": {"rules": {"vector": {"layers": "2"}}}}, "/recipe/rules/vector/layers", "int_type"),
        ({"recipe": {"rules": {"vector": {"kind": "gru"}}}}, "/recipe/rules/vector/kind", "literal_error"),
        ({"recipe": {"rule": {"layers": 1}, "rules": {"*": {"kind": "mlp"}}}}, "/recipe/rules/*", "two_rules"),
        ({"recipe": {"rule": {"kind": "ntm_bfgs", "memory_size": 9}}}, "/recipe/rule", "no_room"),
        ({"recipe": {"rules": {"bias": {"kind": "mlp"}}}}, "/recipe/rules", "idle_rule"),  # a quadratic has none
        ({"recipe": {"products": "bfloat16"}}, "/recipe", "value_error"),  # the family's rule is a hyper
        ({"recipe": BFLOAT16, "resources": {"backend": "torch"}}, "/resources", "unsuited_backend"),
        ({"recipe": {"horizon": 30}}, "/recipe", "value_error"),  # unroll_steps 20 does not divide it
        ({"evaluation": {"test_tasks": 1}}, "/evaluation/test_tasks", "greater_than_equal"),
        ({"evaluation": {"baselines": []}}, "/evaluation/baselines", "too_short"),
        ({"evaluation": {"baselines": ["adem"]}}, "/evaluation/baselines/0", "literal_error"),
        ({"evaluation": {"on": "held_out"}}, "/evaluation/on", "unfitting_plan"),  # a quadratic has no data
        ({"evaluation": {"baselines": ["sgd", "muon"]}}, "/evaluation/baselines", "unfitting_plan"),  # nor a matrix
        ({"evaluate": "yes"}, "/evaluate", "bool_type"),
        ({"resources": {"device": "tpu"}}, "/resources/device", "literal_error"),
        ({"seed": -1}, "/seed", "greater_than_equal"),
        ({"seed": 2**63}, "/seed", "less_than"),
        ({"seed": "7"}, "/seed", "int_type"),
        ({"metadata": {"a": 1}}, "/metadata/a", "string_type"),
        ({"metadata": {"a": "\ud800"}}, "/metadata/a", "string_unicode"),
        ({"metadata": {"a": "x" * 513}}, "/metadata/a", "string_too_long"),
        ({"metadata": {f"k{i}": "v" for i in range(17)}}, "/metadata", "too_long"),
        ({"optimizer": "quadratic@1"}, "/optimizer", "extra_forbidden"),
    ],
)
def test_what_does_not_fit_is_refused_at_its_place(
    standing_api: httpx.Client, change: dict[str, Any], pointer: str, code: str
) -> None:
    body = json.dumps(SMALLEST | change)  # ASCII, so that half a surrogate pair can be sent at all
    answer = standing_api.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_request"
    assert (pointer, code) in [(error["pointer"], error["code"]) for error in problem["errors"]], problem
    assert problem["errors"][0]["message"] in problem["detail"]


def test_not_a_number_is_no_number(standing_api: httpx.Client) -> None:
    recipe = '{"gradient_clip": NaN, "meta_learning_rate": Infinity}'
    body = f'{{"kind": "meta_train", "family": "quadratic", "recipe": {recipe}}}'
    answer = standing_api.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")
    assert "NaN" in answer.json()["detail"]


def test_an_unknown_family_is_answered_with_what_there_is_and_what_was_meant(standing_api: httpx.Client) -> None:
    answer = standing_api.post("/jobs", json={"kind": "meta_train", "family": "quadratics"})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["suggestion"]) == (422, "unknown_family", "quadratic")
    assert problem["errors"][0]["pointer"] == "/family"
    assert all(name in problem["detail"] for name in FAMILIES)


@pytest.mark.parametrize("reference", ["quadratic@1", "opt_" + "0" * 32, "nonsense", "quadratic@", "@best", "a b@1"])
def test_an_unknown_optimizer_is_refused(standing_api: httpx.Client, reference: str) -> None:
    answer = standing_api.post("/jobs", json={"kind": "evaluate", "optimizer": reference})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "unknown_optimizer"), problem
    assert problem["errors"][0]["pointer"] == "/optimizer"


def test_a_job_beyond_the_workers_memory_is_refused_with_the_estimate(standing_api: httpx.Client) -> None:
    big = SMALLEST | {"family": "mnist-mlp", "recipe": {"tasks": 4096}}
    answer = standing_api.post("/jobs", json=big)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "job_too_large")
    assert problem["memory_limit_bytes"] == 8 * 2**30 < problem["memory_estimate_bytes"]
    assert "GiB" in problem["detail"]


def test_the_same_key_and_body_get_the_first_answer_again(api: httpx.Client) -> None:
    headers = {"Idempotency-Key": "my-key-1"}
    first = api.post("/jobs", json=SMALLEST, headers=headers)
    again = api.post("/jobs", json=SMALLEST, headers=headers)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (again.status_code, again.content, again.headers["Location"]) == (
        first.status_code,
        first.content,
        first.headers["Location"],
    )
    assert len(api.get("/jobs").json()["data"]) == 1
    other = api.post("/jobs", json=SMALLEST | {"seed": 1}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")


def test_a_refused_request_leaves_its_key_free(api: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k"}
    assert api.post("/jobs", json=SMALLEST | {"family": "nope"}, headers=headers).status_code == 422
    assert api.post("/jobs", json=SMALLEST, headers=headers).status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "two words"])
def test_a_malformed_key_is_refused(standing_api: httpx.Client, key: str) -> None:
    answer = standing_api.post("/jobs", json=SMALLEST, headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["location"] == "header"


@pytest.mark.both_databases
def test_twins_in_flight_make_one_job(api: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: api.post("/jobs", json=SMALLEST, headers={"Idempotency-Key": "twin"}), range(8))
        )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1


def test_a_job_is_accepted_while_redis_is_away(settings: Settings, valkey: ValkeyServer) -> None:
    away = settings.model_copy(update={"redis_url": None, "data_dir": settings.data_dir})
    valkey.stop()
    with serving(away) as url, httpx.Client(base_url=url, timeout=10) as api:
        ready = api.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        answer = api.post("/jobs", json=SMALLEST)
        assert answer.status_code == 202
        job_id = answer.json()["id"]
        job = waiting_for(api, job_id, "Redis")
        assert (job["status"], job["status_reason"]) == ("queued", "Redis is away; the job runs when it is back")


def test_a_redis_that_answers_and_refuses_writes_is_told(settings: Settings, valkey: ValkeyServer) -> None:
    ours = settings.model_copy(update={"redis_url": SecretStr(valkey.url), "data_dir": settings.data_dir})
    with (
        serving(ours) as url,
        httpx.Client(base_url=url, timeout=10) as api,
        redis.Redis.from_url(valkey.url) as other,
    ):
        assert api.get("/readyz").json()["status"] == "ok"
        for setting, amiss, mended, reason in (
            ("maxmemory", "1kb", "0", "is full (maxmemory) and refuses writes"),
            ("replicaof", "127.0.0.1 1", "NO ONE", "is a replica and refuses writes"),
        ):
            change = other.config_set if setting == "maxmemory" else lambda _, place: other.replicaof(*place.split())
            change(setting, amiss)
            assert api.get("/readyz").json() == {"status": "degraded", "checks": {"database": "ok", "redis": reason}}
            job = waiting_for(api, api.post("/jobs", json=SMALLEST).json()["id"], "Redis is")
            assert job["status_reason"] == f"Redis {reason}; the job runs when it accepts them again"
            change(setting, mended)
            assert api.get("/readyz").json()["status"] == "ok"
            waiting_for(api, job["id"], "no worker serves the cpu queue")


def waiting_for(api: httpx.Client, job_id: str, word: str | None, seconds: float = 15) -> dict[str, Any]:
    """The job's document, once its reason holds `word`, or is null when that is None."""
    deadline = time.monotonic() + seconds
    while True:
        job: dict[str, Any] = api.get(f"/jobs/{job_id}").json()
        reason = job["status_reason"]
        if (reason is None) if word is None else (word in (reason or "")):
            return job
        assert time.monotonic() < deadline, f"the reason is still {reason!r}"
        time.sleep(0.05)


def test_a_job_that_no_worker_will_take_says_so_until_there_is_one(
    api: httpx.Client, app_settings: Settings, database: Database
) -> None:
    job_id = api.post("/jobs", json=SMALLEST | {"resources": {"device": "gpu"}}).json()["id"]
    expected = "no worker serves the gpu queue; start one with `gradsmith-server worker --queues gpu`"
    assert waiting_for(api, job_id, "gpu")["status_reason"] == expected
    assert api.get("/jobs").json()["data"][0]["status_reason"] == expected
    with api.stream("GET", f"/jobs/{job_id}/events") as events:
        first = next(line for line in events.iter_lines() if line.startswith("data: "))
    assert json.loads(first.removeprefix("data: "))["reason"] == expected
    with database.read() as session:
        assert JobRepository(session).get(job_id).status_reason is None, "it is not stored"
    with redis.Redis.from_url(app_settings.resolved_redis_url) as connection:
        rq.Worker([rq.Queue("gpu", connection=connection)], name="w", connection=connection).register_birth()
        waiting_for(api, job_id, None)


def test_cancel_is_at_once_for_a_queued_job_and_a_request_for_a_running_one(
    api: httpx.Client, worker: Callable[..., Worker], database: Database
) -> None:
    queued = api.post("/jobs", json=SMALLEST).json()["id"]
    answer = api.post(f"/jobs/{queued}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert api.post(f"/jobs/{queued}/cancel").status_code == 200

    running = api.post("/jobs", json=SMALLEST).json()["id"]
    held = worker(running)
    answer = api.post(f"/jobs/{running}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
    assert api.post(f"/jobs/{running}/cancel").status_code == 202
    with database.write() as session:
        leases.cancelled(session, held.lease)
    assert api.get(f"/jobs/{running}").json()["status"] == "cancelled"

    done = api.post("/jobs", json=SMALLEST).json()["id"]
    worker(done).finish_training()
    answer = api.post(f"/jobs/{done}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_finished")


def test_retry_opens_a_new_attempt_of_a_job_that_ended_badly(api: httpx.Client, worker: Callable[..., Worker]) -> None:
    job = api.post("/jobs", json=SMALLEST).json()["id"]
    answer = api.post(f"/jobs/{job}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_not_finished")
    worker(job).fail("DatasetMissing: put mnist there")
    failed = api.get(f"/jobs/{job}").json()
    assert (failed["status"], failed["status_reason"]) == ("failed", "DatasetMissing: put mnist there")
    answer = api.post(f"/jobs/{job}/retry")
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["attempt"]) == ("queued", 2)
    worker(job, 2).finish_training()
    answer = api.post(f"/jobs/{job}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_finished")


@pytest.mark.parametrize("bad", ["job_1", "x", "job_" + "0" * 32, "opt_" + "0" * 32, "%00", "job_" + "G" * 32, "é" * 9])
def test_an_unknown_or_malformed_id_is_not_found(standing_api: httpx.Client, bad: str) -> None:
    for method, path in (
        ("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/curve"), ("GET", "/report"), ("GET", "/events"),
    ):  # fmt: skip
        answer = standing_api.request(method, f"/jobs/{bad}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found"), path


def test_the_list_pages_newest_first_and_filters(api: httpx.Client) -> None:
    made = [
        api.post("/jobs", json=SMALLEST | {"metadata": {"batch": str(i % 2), "e.x": "ü"}}).json()["id"]
        for i in range(5)
    ]
    api.post("/jobs", json={"kind": "meta_train", "family": "digits-mlp"})
    api.post(f"/jobs/{made[0]}/cancel")

    seen: list[str] = []
    query: dict[str, Any] = {"family": "quadratic", "limit": 2}
    while True:
        page = api.get("/jobs", params=query).json()
        seen += [job["id"] for job in page["data"]]
        assert page["has_more"] == (page["next"] is not None)
        if not page["has_more"]:
            break
        query["after"] = page["next"]
    assert seen == made[::-1]

    def ids(**filters: str) -> list[str]:
        return [job["id"] for job in api.get("/jobs", params=filters).json()["data"]]

    assert ids(status="cancelled") == made[:1]
    assert ids(**{"metadata.batch": "1"}) == [made[3], made[1]]
    assert ids(**{"metadata.batch": "1", "metadata.e.x": "ü", "status": "queued"}) == [made[3], made[1]]
    assert ids(**{"metadata.batch": "2"}) == []
    assert ids(kind="evaluate") == []
    # positions count those before it for the same device
    assert [job["queue_position"] for job in api.get("/jobs").json()["data"]] == [4, 3, 2, 1, 0, None]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("limit=0", 422, "invalid_request"),
        ("limit=101", 422, "invalid_request"),
        ("limit=ten", 422, "invalid_request"),
        ("status=done", 422, "invalid_request"),
        ("kind=sweap", 422, "invalid_request"),
        ("famly=quadratic", 422, "invalid_request"),
        ("family=%00", 422, "invalid_request"),
        ("metadata.=x", 422, "invalid_request"),
        ("metadata.a%20b=x", 422, "invalid_request"),
        ("metadata.a=%00", 422, "invalid_request"),
        ("after=nonsense", 400, "bad_cursor"),
        ("after=%C3%A9", 400, "bad_cursor"),
        ("after=" + "A" * 2000, 422, "invalid_request"),
    ],
)
def test_bad_filters_are_refused(standing_api: httpx.Client, query: str, status: int, code: str) -> None:
    answer = standing_api.get(f"/jobs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_a_cursor_of_another_list_is_refused(api: httpx.Client) -> None:
    for _ in range(2):
        api.post("/jobs", json=SMALLEST)
    cursor = api.get("/jobs", params={"limit": 1}).json()["next"]
    answer = api.get("/jobs", params={"limit": 1, "after": cursor, "family": "quadratic"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")
