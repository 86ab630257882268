"""A server whose registry is filled: for tests that look, and touch nothing but aliases of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import numpy as np
from safetensors.numpy import save

from app.settings import Settings
from app.store.sessions import Database
from workshop.serving import serving
from workshop.working import WEIGHTS, Worker, evaluation_result

OTHER_WEIGHTS = save({"weight": np.ones(64, dtype=np.float32)})


@dataclass(frozen=True)
class Shelf:
    api: httpx.Client
    url: str
    first: str  # the id of quadratic@1: the best, evaluated
    second: str  # of quadratic@2: the latest
    training: str  # the job that made quadratic@1, with a curve of 40 points
    evaluation: str  # the job that measured it


@contextlib.contextmanager
def filled(settings: Settings) -> Iterator[Shelf]:
    """`settings` name a migrated database, which this fills."""
    with (
        serving(settings) as url,
        httpx.Client(base_url=url, timeout=30) as api,
        Database(settings.resolved_database_url) as database,
        contextlib.ExitStack() as workers,
    ):

        def worker(job: str) -> Worker:
            claimed = Worker(settings, database, job)
            workers.callback(claimed.close)
            return claimed

        def train(family: str, weights: bytes, score: float) -> tuple[str, str, str]:
            """Ids of the job, its optimizer and its evaluation."""
            job = api.post("/jobs", json={"kind": "meta_train", "family": family, "seed": 11}).json()["id"]
            working = worker(job)
            working.record(working.metrics(*range(1, 41)))
            outcome = working.finish_training(weights, score)
            assert outcome.optimizer is not None
            assert outcome.follow_up is not None
            return job, outcome.optimizer.id, outcome.follow_up.id

        training, first, evaluation = train("quadratic", WEIGHTS, 1.0)
        _, second, _ = train("quadratic", OTHER_WEIGHTS, 2.0)
        train("digits-mlp", WEIGHTS, 1.0)
        worker(evaluation).finish_evaluation(evaluation_result())
        yield Shelf(api, url, first, second, training, evaluation)
