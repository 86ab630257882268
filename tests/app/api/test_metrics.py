"""/metrics answers an operator's questions, the same from every process; /readyz names the store that is away."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from app.metrics import collector
from app.metrics.speed import speed_key
from app.settings import Settings
from app.store.sessions import Database
from app.store.tables import SCHEMA_REVISION
from tests.app.host import test_supervise as service
from tests.workers.harness import wait_for
from workers.main import JobWorker
from workshop import services
from workshop.keyed import bearing, make_key, with_keys
from workshop.serving import serving
from workshop.working import Worker

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(client: httpx.Client) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "kept" not in request.node.name:
        monkeypatch.setattr(collector, "KEPT_SECONDS", 0.0)


def test_the_queue_its_age_the_running_and_the_lost_are_counted(
    api: httpx.Client, worker: Callable[..., Worker], database: Database
) -> None:
    ids = [api.post("/jobs", json={"kind": "meta_train", "family": "quadratic"}).json()["id"] for _ in range(3)]
    with database.write() as session:  # the second has waited for a minute
        session.execute(text("UPDATE jobs SET queue_key = queue_key - 60000 WHERE id = :id"), {"id": ids[1]})
    running = worker(ids[0])
    samples = scrape(api)
    assert value(samples, "gradsmith_jobs", status="queued", device="cpu") == 2
    assert value(samples, "gradsmith_jobs", status="running", device="cpu") == 1
    assert value(samples, "gradsmith_jobs", status="queued", device="gpu") == 0
    assert 60 <= value(samples, "gradsmith_queue_age_seconds", device="cpu") < 90
    assert value(samples, "gradsmith_jobs_overdue") == value(samples, "gradsmith_lost_workers") == 0
    assert (
        value(samples, "gradsmith_store_up", store="database")
        == value(samples, "gradsmith_store_up", store="redis")
        == 1
    )
    assert value(samples, "gradsmith_database_bytes") > 10_000
    running.finish_training()
    with database.write() as session:
        session.execute(text("UPDATE jobs SET lost_workers = 2 WHERE id = :id"), {"id": ids[1]})
    samples = scrape(api)
    assert value(samples, "gradsmith_jobs", status="succeeded", device="cpu") == 1
    assert value(samples, "gradsmith_lost_workers") == 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_lease_that_ran_out_shows_until_somebody_takes_the_job_over(
    app_settings: Settings, database: Database
) -> None:
    nobody_looks = app_settings.model_copy(update={"reconcile_interval_seconds": 3600.0})
    with serving(nobody_looks) as url, httpx.Client(base_url=url, timeout=30) as client:
        time.sleep(0.3)  # the first round is at once
        job_id = client.post("/jobs", json={"kind": "meta_train", "family": "quadratic"}).json()["id"]
        lost = Worker(nobody_looks, database, job_id)
        with database.write() as session:
            session.execute(text("UPDATE jobs SET lease_expires_at = created_at WHERE id = :id"), {"id": job_id})
        assert value(scrape(client), "gradsmith_jobs_overdue") == 1
        lost.close()


def test_workers_by_queue_and_state_and_how_fast_each_trains(
    standing_api: httpx.Client, standing_redis_url: str, sqlite_database: Database, settings: Settings
) -> None:
    with redis.Redis.from_url(standing_redis_url) as connection:
        registered = JobWorker(["gpu"], "metrics-1", connection, None, sqlite_database, settings)  # type: ignore[arg-type]
        registered.register_birth()
        try:
            registered.set_state("busy")
            connection.set(speed_key("metrics-1"), "12.5", ex=60)
            connection.set(speed_key("gone-1"), "99", ex=60)  # of a worker that is registered no more
            # RQ may leave these behind in its list: one that was killed while it left, one whose record ran out
            left = "rq:worker:left-1", "rq:worker:forgotten-1"
            connection.hset(left[0], mapping={"birth": "2026-01-01T00:00:00Z", "death": "2026-01-02T00:00:00Z"})
            connection.sadd("rq:workers:gpu", *left)
            samples = scrape(standing_api)
            counted = {labels: count for (name, labels), count in samples.items() if name == "gradsmith_workers"}
            assert sum(count for labels, count in counted.items() if ("queue", "gpu") in labels) == 1
            assert value(samples, "gradsmith_workers", queue="gpu", state="busy") == 1
            assert value(samples, "gradsmith_worker_meta_steps_per_second", worker="metrics-1") == 12.5
            assert not [labels for _, labels in samples if ("worker", "gone-1") in labels]
        finally:
            registered.register_death()
            connection.delete(speed_key("metrics-1"), speed_key("gone-1"), left[0])
            connection.srem("rq:workers:gpu", *left)
        assert value(scrape(standing_api), "gradsmith_workers", queue="gpu", state="busy") == 0


def counted(samples: Samples, route: str, status: str, method: str = "GET") -> float:
    labels = frozenset({("method", method), ("route", route), ("status", status)})
    return samples.get(("gradsmith_http_request_seconds_count", labels), 0.0)


def test_latencies_are_by_route_and_never_by_path(standing_api: httpx.Client) -> None:
    missing = "job_" + "0" * 32
    before = scrape(standing_api)
    standing_api.get(f"/jobs/{missing}")
    standing_api.head(f"/jobs/{missing}")
    standing_api.get("/no/such/path")
    standing_api.request("BREW", "/jobs")
    standing_api.patch(f"/jobs/{missing}/cancel")
    # refused before the router sees them
    standing_api.get(f"/jobs/{missing}/curve", headers={"Host": "evil.example"})
    standing_api.post(f"/jobs/{missing}/retry", content=b"x" * 1_000_001, headers={"Content-Type": "application/json"})
    standing_api.put("/families/x/aliases/y", content=b"x", headers={"Content-Type": "text/plain"})
    standing_api.get("/no/such/path", headers={"Host": "evil.example"})
    standing_api.get("/openapi.json")  # the framework's own route
    after = scrape(standing_api)

    def grown(route: str, status: str, method: str = "GET") -> float:
        return counted(after, route, status, method) - counted(before, route, status, method)

    assert grown("/jobs/{job_id}", "404") == 2, "HEAD counts as its GET"
    assert grown("(none)", "404") == 1
    assert grown("/jobs/{job_id}/cancel", "405", "PATCH") == 1
    assert grown("/jobs/{job_id}/curve", "421") == 1
    assert grown("/jobs/{job_id}/retry", "413", "POST") == 1
    assert grown("/families/{name}/aliases/{alias}", "415", "PUT") == 1
    assert grown("(none)", "421") == 1
    assert grown("/openapi.json", "200") == 1
    assert not [labels for _, labels in after for name, label in labels if missing in label or label == "BREW"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_streams_are_counted_and_their_lag_is_measured(
    api: httpx.Client, worker: Callable[..., Worker], training_job: str
) -> None:
    running = worker(training_job)
    with api.stream("GET", f"/jobs/{training_job}/events") as stream:
        lines = stream.iter_lines()
        next(lines)
        wait_for(lambda: value(scrape(api), "gradsmith_stream_clients") == 1, "the client to be counted")
        running.publish(running.metrics(1, 2))
        running.publish(running.metrics(3))
        while not next(lines).startswith("id: 1-2"):
            pass
        samples = scrape(api)
        assert value(samples, "gradsmith_stream_lag_seconds_count") >= 1
        mean = value(samples, "gradsmith_stream_lag_seconds_sum") / value(samples, "gradsmith_stream_lag_seconds_count")
        assert 0 <= mean < 2
        assert value(samples, "gradsmith_http_requests_in_flight") == 2, "the stream, and this scrape"
    wait_for(lambda: value(scrape(api), "gradsmith_stream_clients") == 0, "the client to be gone")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_server_with_keys_shows_them_to_a_key_that_may_read(app_settings: Settings, database_url: str) -> None:  # noqa: ARG001
    asked = with_keys(app_settings)
    token = make_key(asked, "read")
    with serving(asked) as url, bearing(url, token) as client:
        assert httpx.get(f"{url}/metrics", timeout=30).status_code == 401
        assert client.post(f"/jobs/job_{'0' * 32}/cancel").status_code == 403
        samples = scrape(client)
        assert value(samples, "gradsmith_store_up", store="database") == 1
        assert counted(samples, "/metrics", "401") == counted(samples, "/jobs/{job_id}/cancel", "403", "POST") == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_the_stores_say_is_kept_for_a_second(api: httpx.Client) -> None:
    assert value(scrape(api), "gradsmith_jobs", status="queued", device="cpu") == 0
    api.post("/jobs", json={"kind": "meta_train", "family": "quadratic"})
    assert value(scrape(api), "gradsmith_jobs", status="queued", device="cpu") == 0
    time.sleep(collector.KEPT_SECONDS)
    assert value(scrape(api), "gradsmith_jobs", status="queued", device="cpu") == 1


def test_a_store_that_is_away_is_named_and_the_rest_is_still_told(
    settings: Settings, valkey: services.ValkeyServer
) -> None:
    ours = settings.model_copy(update={"redis_url": None}).model_copy(
        update={"redis_url": Settings(redis_url=valkey.url).redis_url}  # type: ignore[arg-type]
    )
    with serving(ours) as url, httpx.Client(base_url=url, timeout=30) as client:
        valkey.stop()
        samples = scrape(client)
        assert value(samples, "gradsmith_store_up", store="redis") == 0
        assert value(samples, "gradsmith_jobs", status="queued", device="cpu") == 0
        assert not [name for name, _ in samples if name == "gradsmith_workers"]
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()) == (
            200, {"status": "degraded", "checks": {"database": "ok", "redis": "cannot be reached"}},
        )  # fmt: skip
        (settings.data_dir / "gradsmith.db").write_bytes(b"no database any more" * 1000)
        for rest in settings.data_dir.glob("gradsmith.db-*"):
            rest.unlink()
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"] == {"database": "cannot be reached", "redis": "cannot be reached"}
        assert "The database cannot be reached" in ready.json()["detail"]
        assert value(scrape(client), "gradsmith_store_up", store="database") == 0


def test_a_database_that_is_not_migrated_is_told_apart_from_one_that_is_away(
    api: httpx.Client, database: Database
) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    try:
        ready = api.get("/readyz")
        assert ready.status_code == 503
        assert "run `gradsmith-server migrate`" in ready.json()["checks"]["database"]
        assert ready.json()["checks"]["redis"] == "ok"
    finally:
        with database.write() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :now"), {"now": SCHEMA_REVISION})


def test_the_operators_manual_names_every_metric_and_no_other(standing_api: httpx.Client) -> None:
    text = standing_api.get("/metrics").text
    families = {family.name: family.type for family in text_string_to_metric_families(text)}
    shown = {
        name + ("_total" if kind == "counter" else "")
        for name, kind in families.items()
        if name.startswith("gradsmith_")
    }
    manual = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    table = manual[manual.index("## Metrics") : manual.index("## What is where")]
    assert set(re.findall(r"`(gradsmith_\w+?)(?:\{[^`]*)?`", table)) - {"gradsmith_worker"} == shown


@pytest.mark.slow
@pytest.mark.service
def test_processes_that_share_an_address_are_added_up_whichever_answers(tmp_path: Path) -> None:
    data = tmp_path / "data"
    route = {"method": "GET", "route": "/healthz", "status": "200"}
    with service.serving(data, "--workers", "0", "--api-processes", "2") as running:
        shared = data / "metrics"

        def processes() -> set[int]:
            return {int(path.stem.rpartition("_")[2]) for path in shared.glob("histogram_*.db")}

        wait_for(lambda: len(processes()) == 2, "both to have started")
        for _ in range(60):  # a connection each, so that both get some
            httpx.get(f"{running.url}/healthz", timeout=30)
        for _ in range(6):
            with httpx.Client(base_url=running.url, timeout=30) as client:
                samples = scrape(client)
                assert value(samples, "gradsmith_http_request_seconds_count", **route) == 60
                assert value(samples, "gradsmith_http_requests_in_flight") >= 1
        # both are killed with streams open and started again: what they counted stays, what they had open does not
        job_id = httpx.post(
            f"{running.url}/jobs", json={"kind": "meta_train", "family": "quadratic"}, timeout=30
        ).json()["id"]
        with contextlib.ExitStack() as streams:
            for _ in range(3):
                client = streams.enter_context(httpx.Client(base_url=running.url, timeout=30))
                streams.enter_context(client.stream("GET", f"/jobs/{job_id}/events"))
            with httpx.Client(base_url=running.url, timeout=30) as client:
                assert value(scrape(client), "gradsmith_http_requests_in_flight") == 4
            killed = processes()
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            wait_for(lambda: processes() > killed, "the next to have started")
        with httpx.Client(base_url=running.url, timeout=30) as client:
            samples = scrape(client)
            assert value(samples, "gradsmith_http_request_seconds_count", **route) == 60
            assert value(samples, "gradsmith_http_requests_in_flight") == 1
            assert value(samples, "gradsmith_stream_clients") == 0
