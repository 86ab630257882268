"""What a job may ask to run on: refusals at POST, and the service's own choice of a backend."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.settings import Settings
from workshop.serving import serving

SMALLEST = {"kind": "meta_train", "family": "quadratic"}


@pytest.mark.parametrize(
    ("resources", "pointer", "words"),
    [
        ({"backend": "native", "device": "gpu"}, "/resources", "backend native runs on device cpu, not on gpu"),
        ({"backend": "triton"}, "/resources", "backend triton runs on device gpu, not on cpu"),
        ({"backend": "fast"}, "/resources/backend", "native"),
        ({"threads": 0}, "/resources/threads", "is no number of threads"),
        ({"threads": "many"}, "/resources/threads", "is no number of threads"),
        ({"threads": True}, "/resources/threads", "is no number of threads"),
    ],
)
def test_resources_that_contradict_themselves_are_refused(
    standing_api: httpx.Client, resources: dict[str, Any], pointer: str, words: str
) -> None:
    answer = standing_api.post("/jobs", json=SMALLEST | {"resources": resources})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_request"), problem
    [error] = problem["errors"]
    assert error["pointer"] == pointer
    assert words in error["message"]


def test_a_forced_backend_and_threads_to_be_calibrated_are_taken(standing_api: httpx.Client) -> None:
    body = SMALLEST | {"resources": {"backend": "reference", "threads": "auto"}}
    answer = standing_api.post("/jobs", json=body)
    assert answer.status_code == 202, answer.text
    resources = answer.json()["spec"]["resources"]
    assert (resources["backend"], resources["threads"]) == ("reference", "auto")


def test_the_services_own_backend_is_that_of_jobs_that_name_none(settings: Settings) -> None:
    with serving(settings.model_copy(update={"backend": "native"})) as url, httpx.Client(base_url=url) as api:

        def backend(**resources: Any) -> str:
            answer = api.post("/jobs", json=SMALLEST | {"resources": resources})
            assert answer.status_code == 202, answer.text
            return str(answer.json()["spec"]["resources"]["backend"])

        assert backend() == "native"
        assert backend(backend="torch") == "torch"
        assert backend(device="gpu") == "auto", "it does not run there, and that is no reason to refuse the job"


def test_a_training_is_refused_whose_evaluation_would_not_fit(settings: Settings) -> None:
    body = SMALLEST | {"evaluation": {"test_tasks": 65_536, "horizon": 10_000}}
    limited = settings.model_copy(update={"worker_memory_bytes": 8 * 2**30})
    with serving(limited) as url, httpx.Client(base_url=url) as api:
        assert api.post("/jobs", json=body).json()["code"] == "job_too_large"
        assert api.post("/jobs", json=body | {"evaluate": False}).status_code == 202
