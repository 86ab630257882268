"""POST /jobs refuses what a worker could only fail at: a job whose data set is not here."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.settings import Settings
from workshop.serving import serving


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"kind": "meta_train", "family": "cifar10-conv"}, "/family"),
        ({"kind": "preview", "family": "cifar5-conv"}, "/family"),
        (
            {"kind": "meta_train", "family": "digits-conv", "recipe": {"mixture": [{"family": "cifar2-conv"}]}},
            "/recipe/mixture/0",
        ),
    ],
    ids=["train", "preview", "mixture"],
)
def test_a_job_without_its_data_is_refused_with_the_command_that_brings_it(
    standing_api: httpx.Client, body: dict[str, Any], pointer: str
) -> None:
    answer = standing_api.post("/jobs", json=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "data_set_missing"), answer.text
    assert [each["pointer"] for each in problem["errors"]] == [pointer]
    assert "The data set cifar10 is not complete" in problem["detail"]
    assert "data fetch cifar10 --data " in problem["detail"]


def test_another_form_of_the_data_is_named_too(standing_api: httpx.Client) -> None:
    body = {"kind": "meta_train", "family": "cifar10-conv", "tasks": {"dataset": "cifar10-subset"}}
    detail = standing_api.post("/jobs", json=body).json()["detail"]
    assert "data import cifar10-subset FOLDER" in detail
    assert "cifar10_lossless_subset.npz" in detail


def test_photos_are_data_like_any_other(standing_api: httpx.Client) -> None:
    body = {"kind": "meta_train", "family": "neural-art"}
    detail = standing_api.post("/jobs", json=body).json()["detail"]
    assert "The data set art is not complete" in detail
    assert "gradsmith-server data import art FOLDER --data " in detail


def test_what_workers_bring_themselves_is_not_refused(standing_api: httpx.Client) -> None:
    for family in ("digits-conv", "mnist-mlp"):
        answer = standing_api.post("/jobs", json={"kind": "preview", "family": family})
        assert answer.status_code == 202, answer.text


def test_an_api_without_its_workers_data_does_not_ask(settings: Settings) -> None:
    with serving(settings.model_copy(update={"check_data_sets": False})) as url:
        answer = httpx.post(f"{url}/jobs", json={"kind": "preview", "family": "cifar10-conv"})
    assert answer.status_code == 202, answer.text
