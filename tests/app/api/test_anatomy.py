"""`GET /optimizers/{reference}/anatomy`: which evaluation it shows, in which form, and what else it answers."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.report.anatomy import anatomy
from tests.app.api.shelf import Shelf
from workshop.working import Worker, evaluation_result


@pytest.fixture
def trained(api: httpx.Client, worker: Callable[..., Worker]) -> tuple[str, str]:
    """The ids of an optimizer and of the evaluation that its job asked for."""
    job = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic"}).json()["id"]
    outcome = worker(job).finish_training()
    assert outcome.optimizer is not None
    assert outcome.follow_up is not None
    return outcome.optimizer.id, outcome.follow_up.id


def test_it_shows_the_newest_evaluation_on_the_familys_own_tasks(
    api: httpx.Client, worker: Callable[..., Worker], trained: tuple[str, str]
) -> None:
    optimizer, own = trained
    waiting = api.get(f"/optimizers/{optimizer}/anatomy")
    assert (waiting.status_code, waiting.json()["code"], waiting.json()["job"]) == (409, "not_ready", own)
    worker(own).finish_evaluation(evaluation_result())
    document = api.get(f"/optimizers/{optimizer}/anatomy").json()
    assert (document["job"], document["family"], document["seed"]) == (own, "quadratic", 7)
    assert document["updates"] == evaluation_result()["anatomy"]["updates"]
    assert list(document)[:3] == ["job", "optimizer", "family"], "in the order in which it is read"

    elsewhere = {"kind": "evaluate", "optimizer": optimizer, "family": "rosenbrock"}
    other = api.post("/jobs", json=elsewhere).json()["id"]
    worker(other).finish_evaluation(evaluation_result("rosenbrock"))
    assert api.get(f"/optimizers/{optimizer}/anatomy").json()["job"] == own, "a newer one is of other tasks"
    newer = api.post("/jobs", json={"kind": "evaluate", "optimizer": optimizer}).json()["id"]
    worker(newer).finish_evaluation(evaluation_result())
    assert api.get(f"/optimizers/{optimizer}/anatomy").json()["job"] == newer


def test_card_page_and_record_lead_to_it(
    api: httpx.Client, worker: Callable[..., Worker], trained: tuple[str, str]
) -> None:
    optimizer, evaluation = trained
    address = f"/optimizers/{optimizer}/anatomy"
    assert address not in api.get(f"/optimizers/{optimizer}/card").text, "there is nothing to see yet"
    worker(evaluation).finish_evaluation(evaluation_result())
    assert address in api.get(f"/optimizers/{optimizer}/card").text
    assert f'href="{address}.svg"' in api.get(f"/jobs/{evaluation}/report.html").text
    assert api.get(f"{address}.svg").status_code == 200


def test_evaluations_of_older_versions_have_none_and_the_answer_says_what_to_do(
    api: httpx.Client, worker: Callable[..., Worker], trained: tuple[str, str]
) -> None:
    optimizer, evaluation = trained
    old = evaluation_result()
    del old["anatomy"]
    worker(evaluation).finish_evaluation(old)
    problem = api.get(f"/optimizers/{optimizer}/anatomy.png").json()
    assert (problem["status"], problem["code"]) == (409, "not_measured")
    assert f'{{"kind": "evaluate", "optimizer": "{optimizer}"}}' in problem["detail"]
    assert "anatomy" not in api.get(f"/jobs/{evaluation}/report.html").text
    assert "anatomy" not in api.get(f"/optimizers/{optimizer}/card").text


def test_the_pictures_are_pictures(shelf: Shelf) -> None:
    address = f"/optimizers/{shelf.first}/anatomy"
    png = shelf.api.get(f"{address}.png").content
    width, height = struct.unpack(">II", png[16:24])
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert width > 1000
    assert height > 500
    assert ElementTree.fromstring(shelf.api.get(f"{address}.svg").text).tag.endswith("svg")
    assert shelf.api.get(address, headers={"Accept": "text/html"}).status_code == 406


def found(**changes: Any) -> dict[str, Any]:
    return {"family": "quadratic", "seed": 7} | evaluation_result()["anatomy"] | changes


@pytest.mark.parametrize(
    "ugly",
    [
        found(steps=1, updates={"learned": [[None]] * 3}),
        found(updates={"learned": [[0.0] * 20] * 3, "adam": [[None] * 20] * 3}),
        found(responses=[{**found()["responses"][0], "had": None, "update": {"learned": [None, None, None]}}]),
        found(coordinates=[{"part": "<b>$x_1$", "index": []}] * 3),
        found(optimizers={}),
    ],
)
def test_a_picture_is_drawn_of_whatever_a_run_left(ugly: dict[str, Any]) -> None:
    assert anatomy(ugly, reference="quadratic@1", image_format="svg").startswith(b"<?xml")
