"""A real service with jobs, optimizers and evaluations to look at, and trainings that go on while somebody looks.

Nothing is trained here: points, weights and results are written as a worker writes them.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

import migrations
from app.settings import Settings
from app.store.curve_format import Points
from app.store.events import JobEvent
from app.store.sessions import Database
from models.baselines import DEFAULT_TUNED
from workshop.services import ValkeyServer
from workshop.serving import serving
from workshop.working import Worker, evaluation_result, preview_result

EVENT_POINTS = 64


@dataclass
class Stage:
    """A staged service: `jobs` names those that a view is about."""

    url: str
    settings: Settings
    database: Database
    api: httpx.Client
    jobs: dict[str, str] = field(default_factory=dict)
    optimizers: dict[str, str] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)

    def post(self, **body: Any) -> str:
        answer = self.api.post("/jobs", json=body)
        answer.raise_for_status()
        return str(answer.json()["id"])

    def claim(self, job: str) -> Worker:
        self.workers.append(Worker(self.settings, self.database, job))
        return self.workers[-1]

    def train(self, body: dict[str, Any], score: float, verdict: str | None, number: int) -> str:
        """A training that has ended, and its evaluation where there is a verdict."""
        job = self.post(kind="meta_train", **body)
        worker = self.claim(job)
        total = int(self.api.get(f"/jobs/{job}").json()["progress"]["total"])
        record(worker, curve(total, number))
        worker.record(worker.event("log", {"message": f"validation score {score}: a new best", "level": "info"}))
        worker.progress(total, total)
        made = worker.finish_training(weights(number), score, seconds=31.5, skipped_steps=0)
        assert made.optimizer is not None
        self.optimizers[job] = made.optimizer.id
        if made.follow_up is not None and verdict is not None:
            measuring = self.claim(made.follow_up.id)
            measuring.finish_evaluation(measured(body["family"], verdict))
            if verdict == "wins":
                self.jobs.setdefault("evaluation", made.follow_up.id)
        return job


@contextlib.contextmanager
def staged(*, root_path: str | None = None, auth: Literal["off", "on"] = "off") -> Iterator[Stage]:
    """An empty service with SQLite and a Redis of its own; everything is gone when the block ends."""
    redis = ValkeyServer()
    with tempfile.TemporaryDirectory(prefix="gs-stage-") as folder:
        settings = Settings(
            data_dir=Path(folder),
            database_url=None,
            redis_url=redis.url,
            reconcile_interval_seconds=3600,  # nobody renews the leases
            check_data_sets=False,
            root_path=root_path,
            auth=auth,
        )
        migrations.upgrade(settings.resolved_database_url)
        with (
            serving(settings) as url,
            Database(settings.resolved_database_url) as database,
            httpx.Client(base_url=url, timeout=60) as api,
        ):
            stage = Stage(url, settings, database, api)
            try:
                yield stage
            finally:
                for worker in stage.workers:
                    worker.close()
    redis.close()


def fill(stage: Stage) -> None:
    """Jobs of every status, two families with several versions, an alias of a user."""
    small = {"family": "quadratic", "metadata": {"experiment": "horizons"}}
    for number, (steps, score, verdict) in enumerate(((300, 2.9, "loses"), (600, 2.2, "ties"), (1200, 1.7, "wins"))):
        job = stage.train(small | {"seed": number, "recipe": {"meta_steps": steps}}, score, verdict, number)
        stage.jobs[f"quadratic-{number + 1}"] = job
    for number, (hidden, score) in enumerate(((16, 0.62), (24, 0.55))):
        rule = {"kind": "lstm", "hidden_size": hidden}
        body = {"family": "digits-mlp", "seed": 7 + number, "recipe": {"rule": rule, "meta_steps": 500}}
        stage.jobs[f"digits-{number + 1}"] = stage.train(body, score, "wins", 10 + number)
    for optimizer, family, verdict in (
        ("quadratic@3", "quadratic-uniform", "ties"),
        ("quadratic@2", "rosenbrock", "loses"),
        ("digits-mlp@2", "quadratic", "loses"),
    ):
        elsewhere = stage.claim(stage.post(kind="evaluate", optimizer=optimizer, family=family))
        elsewhere.finish_evaluation(measured(family, verdict))
    failed = stage.post(kind="meta_train", family="rosenbrock", seed=3, recipe={"meta_learning_rate": 0.5})
    worker = stage.claim(failed)
    record(worker, curve(140, 20))
    worker.progress(140, 1000)
    worker.fail("the meta-loss was not finite for 50 meta-steps in a row: lower recipe.meta_learning_rate")
    stage.jobs["failed"] = failed
    cancelled = stage.post(kind="meta_train", family="pendulum", seed=4)
    stage.api.post(f"/jobs/{cancelled}/cancel")
    stage.jobs["preview"] = stage.post(kind="preview", family="rosenbrock")
    stage.claim(stage.jobs["preview"]).finish_evaluation(preview_result())
    for number, family in enumerate(("quadratic", "digits-mlp", "rosenbrock")):
        body = {"recipe": {"meta_steps": 2000, "tasks": 32}, "metadata": {"experiment": "longer"}}
        job = stage.post(kind="meta_train", family=family, seed=30 + number, **body)
        worker = stage.claim(job)
        done = 400 + 350 * number
        record(worker, curve(2000, 30 + number).part(0, done))
        worker.progress(done, 2000, eta_seconds=95.0 - 20 * number)
        stage.jobs[f"running-{number + 1}"] = job
    search(stage)
    for seed in range(2):
        stage.post(kind="meta_train", family="quadratic-uniform", seed=seed)
    lines = ["customer,income,visits,churned"]
    lines += [f"c{number},{number * row},{row},{number * row % 2}" for number in range(1, 21) for row in range(1, 9)]
    stage.api.post(
        "/datasets?name=customers&target=churned&group=customer",
        content="\n".join(lines) + "\n",
        headers={"Content-Type": "text/csv"},
    ).raise_for_status()
    target = stage.api.get("/optimizers/quadratic@3/record").json()["id"]
    put = stage.api.put("/families/quadratic/aliases/prod", json={"optimizer": target}, headers={"If-None-Match": "*"})
    put.raise_for_status()


def search(stage: Stage) -> None:
    """A sweep that has ended, with a trial that failed, and one whose trials run."""
    changed: dict[str, Any] = {"recipe": {"meta_learning_rate": [0.001, 0.01], "rule": {"hidden_size": [8, 16, 20]}}}
    for name, family, done in (("sweep", "quadratic", 6), ("sweep-live", "rosenbrock", 2)):
        sweep = stage.post(kind="sweep", family=family, seed=5, parallel=3, evaluate=False, **changed)
        stage.jobs[name] = sweep
        ended: set[str] = set()
        until = time.monotonic() + 120.0
        while len(ended) < done:
            assert time.monotonic() < until, "the sweep makes no more trials"
            for trial in stage.api.get(f"/jobs?sweep={sweep}&status=queued&limit=100").json()["data"]:
                if len(ended) == done:
                    break
                number = trial["trial"]["number"]
                worker = stage.claim(trial["id"])
                record(worker, curve(300, 60 + number))
                if number == 4:
                    worker.fail("the meta-loss was not finite for 50 meta-steps in a row")
                else:
                    worker.finish_training(weights(60 + number + 10 * done), 1.4 + 0.9 / (1 + number))
                ended.add(trial["id"])
            time.sleep(0.05)
    for trial in stage.api.get(f"/jobs?sweep={stage.jobs['sweep-live']}&status=queued&limit=100").json()["data"][:1]:
        worker = stage.claim(trial["id"])
        record(worker, curve(1000, 70).part(0, 350))
        worker.progress(350, 1000, eta_seconds=40.0)


def measured(family: str, verdict: str) -> dict[str, Any]:
    """The result of an evaluation whose ratios have this verdict, the harder the baseline the higher."""
    result = evaluation_result(family, 100, verdict)
    times = {"wins": 1.0, "ties": 3.2, "loses": 4.4}[verdict]
    harder = {"best_baseline": 1.0} | dict(zip(DEFAULT_TUNED, (0.4, 0.7, 0.9, 1.0, 1.0), strict=True))
    for compared in (result["comparisons"], result["seconds"]["comparisons"]):
        for name, by_metric in compared.items():
            for metric in ("final", "area"):
                found = dict(by_metric[metric])
                scale = times * harder[name] * (1.0 if metric == "final" else 0.8)
                found["ratio_of_means"] *= scale
                found["ratio_interval"] = [scale * end for end in found["ratio_interval"]]
                found["share_won"] = min(0.99, found["share_won"] / times**0.5 / harder[name] ** 0.2)
                by_metric[metric] = found
    return result


@dataclass(frozen=True)
class Made:
    """A made-up loss curve: columns of shape (points,)."""

    step: NDArray[np.int64]
    loss: NDArray[np.float64]
    validation: NDArray[np.float64]

    def part(self, first: int, last: int) -> Made:
        return Made(self.step[first:last], self.loss[first:last], self.validation[first:last])

    def events(self) -> Iterator[Points]:
        for first in range(0, len(self.step), EVENT_POINTS):
            part = self.part(first, first + EVENT_POINTS)
            count = len(part.step)
            yield Points(
                part.step.tolist(),
                part.loss.tolist(),
                [0.5] * count,
                [None if value != value else value for value in part.validation.tolist()],
                [1e-3] * count,
                [False] * count,
            )


def curve(points: int, seed: int) -> Made:
    """A loss that falls from about 10 to about 1, with a sawtooth over each trajectory of five windows, and spikes."""
    random = np.random.default_rng(seed)
    step = np.arange(1, points + 1)
    falling = 0.6 + 0.2 * random.random() + 9.0 * np.exp(-5.0 * step / points)
    within = np.exp(-0.55 * ((step - 1) % 5))
    noise = np.exp(random.normal(0, 0.12, points))
    spikes = np.where(random.random(points) < 2 / points, 6.0, 1.0)
    validation = np.where(
        step % max(1, points // 25) == 0, falling * 0.45 * np.exp(random.normal(0, 0.04, points)), np.nan
    )
    return Made(step, falling * (0.4 + within) * noise * spikes, validation)


def record(worker: Worker, made: Made) -> None:
    """Store a curve as a worker does, some thousand points at a time."""
    batch: list[JobEvent] = []
    for points in made.events():
        batch.append(JobEvent.metrics(worker.next_id(), points))
        if len(batch) == EVENT_POINTS:
            worker.record(*batch)
            batch = []
    worker.record(*batch)


def weights(number: int) -> bytes:
    return save(
        {"weight": np.full(64, float(number), dtype=np.float32)}, metadata={"gradsmith": '{"format_version":1}'}
    )


@contextlib.contextmanager
def going_on(stage: Stage, jobs: list[str], *, interval_seconds: float = 1.0) -> Iterator[None]:
    """While the block runs, each of these jobs gets points and progress, live and stored."""
    workers = {worker.job_id: worker for worker in stage.workers if worker.job_id in jobs}
    made = {job: curve(2000, 100 + number) for number, job in enumerate(jobs)}
    at = {job: int(stage.api.get(f"/jobs/{job}").json()["progress"]["step"]) for job in jobs}
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(interval_seconds):
            for job, worker in workers.items():
                if at[job] >= 2000:
                    continue
                part = made[job].part(at[job], at[job] + 5)
                at[job] += 5
                sent = [JobEvent.metrics(worker.next_id(), points) for points in part.events()]
                worker.publish(*sent)
                worker.record(*sent)
                worker.progress(at[job], 2000, eta_seconds=(2000 - at[job]) * 0.1)

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(30)
