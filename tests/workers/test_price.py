"""What a job would cost: predicted from a calibration, then from jobs, and held against what jobs took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

import gradsmith
from app.settings import Settings
from app.store.sessions import Database
from app.store.tables import JobRow
from gradsmith.errors import InvalidRequest
from models.families import FAMILIES
from models.memory import helper_bytes, memory_estimate_bytes
from models.spec import MetaTrainSpec, Resources
from workers.measuring import helpers_within
from workers.run import run_job
from workshop.serving import serving

RECIPE = {"meta_steps": 8, "tasks": 8, "validation_tasks": 8, "validation_interval": 4, "horizon": 20, "patience": None}
PLAN: dict[str, Any] = {
    "test_tasks": 8, "tuning_tasks": 4, "bootstrap_samples": 100, "baselines": ["adam"], "schedules": ["constant"],
    "untuned": [],
}  # fmt: skip
BODY: dict[str, Any] = {"kind": "meta_train", "family": "quadratic", "seed": 2, "recipe": RECIPE, "evaluation": PLAN}


def test_a_calibration_and_an_evaluation_have_as_many_helpers_as_cores_and_memory_allow() -> None:
    family = FAMILIES["quadratic"]
    training = MetaTrainSpec(
        family=family, seed=1, recipe=family.recipe, evaluate=True, evaluation=family.evaluation, resources=Resources()
    )
    spec = training.follow_up("opt_1")
    assert spec is not None
    alone, each = memory_estimate_bytes(spec), helper_bytes(spec)
    rooms = (alone - 1, alone + each - 1, alone + each, alone + 2 * each, alone + 9 * each)
    assert [helpers_within(3, room, spec) for room in rooms] == [0, 0, 1, 2, 2]
    assert helpers_within(1, rooms[-1], spec) == 0


@pytest.fixture
def url(quick_sqlite: Settings, sqlite_database: Database) -> Iterator[str]:  # noqa: ARG001 - it is migrated
    with serving(quick_sqlite) as url:
        yield url


def test_a_price_rests_on_a_calibration_and_then_on_jobs(quick_sqlite: Settings, url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as api, gradsmith.Client(url) as client:

        def price() -> dict[str, Any]:
            answer = api.post("/jobs", params={"dry_run": "true"}, json=BODY)
            assert answer.status_code == 200
            found: dict[str, Any] = answer.json()
            return found

        unknown = price()
        assert unknown["seconds"] is None
        assert "/families/quadratic/preview" in unknown["advice"]
        assert unknown["coordinates_per_task"] == 10
        resolved = MetaTrainSpec.model_validate(unknown["spec"])
        follow_up = resolved.follow_up("")
        assert follow_up is not None
        assert unknown["memory_bytes"] == max(memory_estimate_bytes(resolved), memory_estimate_bytes(follow_up))
        assert api.get("/jobs").json()["data"] == [], "nothing was queued"

        asked = {"recipe": RECIPE, "evaluation": PLAN, "seed": 2}
        posted = api.post("/families/quadratic/preview", json=asked)
        assert (posted.status_code, posted.json()["price"]["seconds"]) == (202, None)
        look = posted.json()["job"]["id"]
        assert posted.headers["Location"] == f"/jobs/{look}"
        run_job(look, 1, settings=quick_sqlite)
        assert api.get(posted.json()["picture"]).content.startswith(b"\x89PNG")
        report = api.get(posted.json()["report"]).json()
        assert report["optimizers"].keys() == {"adam"}, "tuned Adam's curve"

        calibrated = price()
        assert calibrated["seconds"] == pytest.approx(report["price"]["seconds"], rel=0.01)
        assert [text.partition(" ")[0] for text in calibrated["rests_on"]] == ["training:", "evaluation:"]
        assert all(look in text and "a calibration of" in text for text in calibrated["rests_on"])
        assert calibrated["error"] == {"p10": None, "p50": None, "p90": None, "jobs": 0}

        job = client.jobs.create(**{name: value for name, value in BODY.items() if name != "kind"})
        assert job.raw["price"] is None, "no worker has begun"
        run_job(job.id, 1, settings=quick_sqlite)
        done = client.jobs.get(job)
        assert done.evaluation is not None
        run_job(done.evaluation, 1, settings=quick_sqlite)
        told = [api.get(f"/jobs/{each}").json()["price"] for each in (job.id, done.evaluation)]
        assert sum(each["predicted_seconds"] for each in told) == pytest.approx(calibrated["seconds"]["total"])

        measured = price()
        assert measured["error"]["jobs"] == 2
        ratios = sorted(each["actual_seconds"] / each["predicted_seconds"] for each in told)
        assert measured["error"]["p90"] == pytest.approx(ratios[-1])
        assert job.id in measured["rests_on"][0]
        assert done.evaluation in measured["rests_on"][1]
        assert "1 of 1 baselines are stored" in measured["rests_on"][1]
        assert measured["seconds"]["tuning"] == 0.0
        # the same job again: exactly what the first one took, but for its evaluation's stored runs
        both = measured["seconds"]["training"] + measured["seconds"]["selection"]
        assert both == pytest.approx(told[0]["actual_seconds"], rel=0.05)
        cost = client.optimizers.get(str(done.optimizer)).card["training"]["cost"]
        assert measured["seconds"]["selection"] == pytest.approx(cost["selection"]["seconds"])

        longer = BODY | {"recipe": RECIPE | {"meta_steps": 80}, "evaluate": False}
        more = api.post("/jobs", params={"dry_run": "true"}, json=longer).json()["seconds"]
        each_step = (more["training"] - measured["seconds"]["training"]) / 72
        assert each_step == pytest.approx(cost["training"]["seconds"] / 8)
        assert more["selection"] == pytest.approx(10 * measured["seconds"]["selection"])
        assert (more["tuning"], more["evaluation"]) == (0.0, 0.0)


def test_a_sweeps_price_is_that_of_its_trials_and_of_the_bests_evaluation(quick_sqlite: Settings, url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as api, gradsmith.Client(url) as client:
        asked = {"recipe": RECIPE, "evaluation": PLAN, "seed": 2}
        lengths = [8, 40]
        recipe = RECIPE | {"meta_steps": lengths, "validation_interval": [2, 4]}
        assert client.sweeps.price("quadratic", recipe, evaluation=PLAN, seed=2).seconds is None
        run_job(api.post("/families/quadratic/preview", json=asked).json()["job"]["id"], 1, settings=quick_sqlite)

        def alone(evaluate: bool, **changes: Any) -> dict[str, float]:
            body = BODY | {"recipe": RECIPE | changes, "evaluate": evaluate}
            seconds: dict[str, float] = api.post("/jobs", params={"dry_run": "true"}, json=body).json()["seconds"]
            return seconds

        pairs = [{"meta_steps": steps, "validation_interval": interval} for steps in lengths for interval in (2, 4)]
        trials = [alone(evaluate=False, **pair) for pair in pairs]
        own = client.sweeps.price("quadratic", recipe, evaluation=PLAN, seed=2)
        assert own.seconds is not None
        for part in ("training", "selection"):
            assert own.seconds[part] == pytest.approx(sum(each[part] for each in trials))
        for part in ("tuning", "evaluation"):
            assert own.seconds[part] == pytest.approx(alone(evaluate=True)[part])
        assert [text.partition(" ")[0] for text in own.rests_on] == ["training:", "evaluation:"], "each once"
        assert "one worker for 4 trainings, and of the best one's evaluation" in own.notes[0]

        # a field that is swept last, and the longest trainings: no stride over the grid leaves them out
        rates = [0.001 + place * 1e-5 for place in range(16)]
        lengths = [8, 800]
        wide = RECIPE | {"meta_learning_rate": rates, "meta_steps": lengths}
        priced = client.sweeps.price("quadratic", wide, evaluate=False, evaluation=PLAN).seconds
        assert priced is not None
        each = [alone(evaluate=False, meta_steps=steps)["total"] for steps in lengths]
        assert priced["total"] == pytest.approx(16 * sum(each))
        # what is drawn lies between the ends
        ranged = RECIPE | {"meta_steps": {"low": 8, "high": 800}}
        drawn = client.sweeps.price("quadratic", ranged, trials=40, seed=1, evaluate=False, evaluation=PLAN).seconds
        assert drawn is not None
        assert drawn["total"] == pytest.approx(40 * sum(each) / 2, rel=0.25)

        # halving: four for a quarter of the meta-steps, one for all of them
        rungs = {"rungs": 2, "reduction": 4}
        few = RECIPE | {"meta_steps": 40, "meta_learning_rate": {"low": 0.001, "high": 0.01}}
        halved = client.sweeps.price("quadratic", few, trials=4, halving=rungs, evaluate=False, evaluation=PLAN)
        short, whole = (alone(evaluate=False, meta_steps=steps)["total"] for steps in (10, 40))
        assert halved.seconds is not None
        assert halved.seconds["total"] == pytest.approx(4 * short + whole)
        assert [job.kind for job in client.jobs.list()] == ["preview"], "nothing was queued"
        starts = RECIPE | {"meta_steps": 40, "starts": 3, "start_steps": 7, "meta_learning_rate": [0.001, 0.01]}
        for ask in (client.sweeps.price, client.sweeps.create):  # the first rung has 20 meta-steps
            with pytest.raises(InvalidRequest, match="leave none of 20"):
                ask("quadratic", starts, halving={"rungs": 2, "reduction": 2}, evaluation=PLAN)


def test_what_a_sweep_made_has_cost_all_of_its_trainings(
    quick_sqlite: Settings, sqlite_database: Database, url: str
) -> None:
    with httpx.Client(base_url=url, timeout=60) as api, gradsmith.Client(url) as client:
        sweep = client.sweeps.create("quadratic", RECIPE | {"meta_steps": [4, 8, 12]}, seed=2, evaluation=PLAN)
        children = _until(lambda: client.jobs.list(sweep=sweep.id).data, count=3)
        *trained, failed = sorted(children, key=lambda child: child.trial or 0)
        for child in trained:
            run_job(child.id, 1, settings=quick_sqlite)
        with sqlite_database.write() as session:
            row = session.get_one(JobRow, failed.id)
            row.started_at = datetime(2026, 1, 1, tzinfo=UTC)
            row.finished_at, row.status = row.started_at + timedelta(seconds=7), "failed"
        [done] = _until(lambda: [job for job in [client.jobs.get(sweep)] if job.finished], count=1)
        assert done.evaluation is not None
        run_job(done.evaluation, 1, settings=quick_sqlite)

        costs = [
            client.optimizers.get(str(client.jobs.get(each).optimizer)).card["training"]["cost"] for each in trained
        ]
        even = api.get(f"/jobs/{done.evaluation}/report.json").json()["break_even"]
        assert even["trainings"] == 3
        assert even["training_seconds"] == pytest.approx(7 + sum(cost["training"]["seconds"] for cost in costs))
        assert even["selection_seconds"] == pytest.approx(sum(cost["selection"]["seconds"] for cost in costs))


def _until(found: Callable[[], Sequence[Any]], count: int) -> Sequence[Any]:
    """What is found, as soon as it is so many."""
    for _ in range(300):
        if len(there := found()) == count:
            return there
        time.sleep(0.1)
    raise AssertionError(f"not {count} after 30 s: {there}")


def test_what_a_job_is_refused_for_its_price_is_refused_for(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as api:
        for body in (
            {"kind": "meta_train", "family": "quadratc"},
            {"kind": "meta_train", "family": "quadratic", "recipe": {"horizon": 0}},
            {"kind": "meta_train", "family": "quadratic", "recipe": {"tasks": 65_536}, "tasks": {"dimension": 1000}},
            {"kind": "evaluate", "optimizer": "quadratic@best"},
        ):
            real, dry = (api.post("/jobs", params=params, json=body) for params in ({}, {"dry_run": "true"}))
            assert real.status_code == dry.status_code == 422, real.text
            same = ("code", "detail", "errors", "status")
            assert [real.json()[name] for name in same] == [dry.json()[name] for name in same]
        assert api.post("/jobs", params={"dryrun": "true"}, json=BODY).status_code == 422
        unknown = api.post("/families/quadratc/preview", json={})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "family_not_found")
        assert api.get("/jobs").json()["data"] == []
