"""One real service for the tests that are marked `service`, started as users start it, gone when pytest is; and a
process in which Triton interprets its programs."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import gradsmith
from app.host.tether import tethered
from tests.sdk.blocking import Made, makers

if TYPE_CHECKING:
    from tests.sdk.triton_here import Interpreted

SHORTEST = {
    "test_tasks": 8, "tuning_tasks": 4, "horizon": 20, "bootstrap_samples": 100,
    "baselines": ["adam", "sgd"], "schedules": ["constant"], "untuned": ["dog"],
}  # fmt: skip
"""An evaluation against few baselines: each costs an eighth of a second."""


@pytest.fixture(scope="session")
def service_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `gradsmith-server serve`, with one worker and a data folder of its own."""
    data = tmp_path_factory.mktemp("service")
    record, log = data / "server.json", data / "serve.log"
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--data", str(data)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            tethered(command),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={**os.environ, "GRADSMITH_WARM_SPARE": "false"},  # its imports would cost more than they save
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 180
        while not record.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield json.loads(record.read_text())["url"]
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module", params=["sync", "async"])
def made(request: pytest.FixtureRequest) -> Iterator[Made]:
    """Makes clients of both kinds, so that what a test says holds for both."""
    with makers(request.param) as make:
        yield make


@pytest.fixture(scope="session")
def service(service_url: str) -> Iterator[gradsmith.Client]:
    with gradsmith.Client(service_url) as client:
        yield client


@pytest.fixture(scope="session")
def trained(service: gradsmith.Client) -> gradsmith.types.Job:
    """A short training on quadratics with the shortest evaluation behind it: the optimizer `quadratic@1`."""
    job = service.jobs.create(
        family="quadratic",
        seed=1,
        recipe={"meta_steps": 20, "tasks": 16, "horizon": 20, "validation_tasks": 8, "validation_interval": 10},
        evaluation=SHORTEST,
        metadata={"made_for": "tests"},
    )
    return service.jobs.wait(job, timeout_seconds=180)


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Interpreted]:
    """Runs a function in a process in which Triton interprets."""
    from tests.sdk import triton_trials  # not above: it imports torch

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2]))  # what a spawned process sees, too: it imports `tests`
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), triton_trials.interpret)
        pool.submit(int).result()
    with pool:
        yield lambda function, *arguments, **settings: pool.submit(function, *arguments, **settings).result()
