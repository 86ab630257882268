"""What a job shows: its loss curve and, of an evaluation, its report."""

from __future__ import annotations

import csv
import io
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from workshop.working import Worker, evaluation_result

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def curved(training_job: str, worker: Callable[..., Worker]) -> Worker:
    """A running job with 40 points, some of them not finite."""
    held = worker(training_job)
    held.record(held.metrics(*range(1, 21)), held.metrics(21, 22, loss=math.nan), held.metrics(23, loss=math.inf))
    held.record(held.metrics(*range(24, 41)))
    held.progress(40, 1000)
    return held


def test_json_has_null_for_what_is_no_number_and_says_which(api: httpx.Client, curved: Worker) -> None:
    answer = api.get(f"/jobs/{curved.job_id}/curve")
    assert answer.headers["content-type"] == "application/json"
    curve = answer.json()
    assert curve["step"] == list(range(1, 41))
    assert curve["loss"][:2] == [10.0, 5.0]
    assert curve["loss"][20:23] == [None, None, None]
    assert curve["non_finite"] == [
        {"index": 20, "column": "loss", "value": "nan"},
        {"index": 21, "column": "loss", "value": "nan"},
        {"index": 22, "column": "loss", "value": "inf"},
    ]
    assert curve["validation"][3:6] == [None, 0.5, None]
    assert (curve["learning_rate"][:2], curve["skipped"][5:8]) == ([1e-3, 5e-4], [False, True, False])
    assert (curve["total_points"], curve["status"], curve["attempt"]) == (40, "running", 1)


def test_csv_and_raw_columns_hold_the_same_numbers(api: httpx.Client, curved: Worker) -> None:
    text = api.get(f"/jobs/{curved.job_id}/curve", headers={"Accept": "text/csv"})
    assert text.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(text.text)))
    raw = api.get(f"/jobs/{curved.job_id}/curve", headers={"Accept": "application/octet-stream"})
    points = int(raw.headers["X-Points"])
    assert points == len(rows) == 40
    step = np.frombuffer(raw.content, "<i8", points)
    loss, norm, validation, rate = np.frombuffer(raw.content, "<f8", 4 * points, 8 * points).reshape(4, points)
    skipped = np.frombuffer(raw.content, "<i8", points, 40 * points)
    assert len(raw.content) == 48 * points
    assert [int(row["step"]) for row in rows] == step.tolist()
    np.testing.assert_array_equal([float(row["loss"]) for row in rows], loss)
    np.testing.assert_array_equal([float(row["gradient_norm"]) for row in rows], norm)
    assert [row["validation"] or "nan" for row in rows] == [repr(value) for value in validation.tolist()]
    np.testing.assert_array_equal([float(row["learning_rate"]) for row in rows], rate)
    assert [row["skipped"] for row in rows] == ["true" if one else "false" for one in skipped]
    assert rate[0] == 1e-3
    assert skipped.nonzero()[0].tolist() == [6, 13, 20, 27, 34]
    assert "Accept" in raw.headers["Vary"]


def test_a_long_curve_is_thinned_out_and_keeps_its_spike(
    api: httpx.Client, training_job: str, worker: Callable[..., Worker]
) -> None:
    held = worker(training_job)
    held.record(held.metrics(*range(1, 3000)), held.metrics(3000, loss=1e6), held.metrics(*range(3001, 6000)))
    curve = api.get(f"/jobs/{training_job}/curve", params={"max_points": 100, "method": "minmax"}).json()
    assert len(curve["step"]) <= 100
    assert curve["total_points"] == 5999
    assert dict(zip(curve["step"], curve["loss"], strict=True))[3000] == 1e6
    assert (curve["step"][0], curve["step"][-1]) == (1, 5999)


def test_a_browsers_image_gets_a_picture(api: httpx.Client, curved: Worker) -> None:
    accept = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
    answer = api.get(f"/jobs/{curved.job_id}/curve", headers={"Accept": accept})
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(PNG_MAGIC)


def test_whoever_has_the_curve_learns_that_its_job_has_ended(api: httpx.Client, curved: Worker) -> None:
    path = f"/jobs/{curved.job_id}/curve"
    first = api.get(path)
    has_it = {"If-None-Match": first.headers["ETag"]}
    assert api.get(path, headers=has_it).status_code == 304
    thin = api.get(path, params={"max_points": 10})
    assert api.get(path, params={"max_points": 10}, headers=has_it).status_code == 200
    assert api.get(path, params={"max_points": 10}, headers={"If-None-Match": thin.headers["ETag"]}).status_code == 304
    curved.fail("it broke")  # and not a point more
    again = api.get(path, headers=has_it)
    assert (again.status_code, again.json()["status"]) == (200, "failed")
    assert again.json()["step"] == first.json()["step"]


@pytest.mark.parametrize("query", ["max_points=3", "max_points=x", "max_points=-1", "method=lttb", "points=4"])
def test_a_bad_curve_query_is_refused(standing_api: httpx.Client, query: str) -> None:
    answer = standing_api.get(f"/jobs/job_{'0' * 32}/curve?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_curve_that_is_not_ready_says_how_far_the_job_is(
    api: httpx.Client, training_job: str, worker: Callable[..., Worker]
) -> None:
    queued = api.get(f"/jobs/{training_job}/curve")
    assert (queued.status_code, queued.json()["code"], queued.json()["job_status"]) == (409, "not_ready", "queued")
    for name, value in (("If-None-Match", "*"), ("If-Match", '"x"'), ("Range", "bytes=0-9")):
        conditional = api.get(f"/jobs/{training_job}/curve", headers={name: value})
        assert (conditional.status_code, "ETag" in conditional.headers) == (409, False), "of what is not there"
    held = worker(training_job)
    held.progress(412, 1000, 14.0)
    running = api.get(f"/jobs/{training_job}/curve")
    assert running.status_code == 409
    assert running.json()["progress"] == {"step": 412, "total": 1000, "eta_seconds": 14.0}
    assert running.headers["Retry-After"] == "10", "points are stored as often, however long the job takes"
    assert "step 412 of 1,000" in running.json()["detail"]
    held.fail("out of memory")
    failed = api.get(f"/jobs/{training_job}/curve").json()
    assert (failed["code"], failed["job_status"]) == ("no_result", "failed")
    assert "out of memory" in failed["detail"]


@pytest.fixture
def evaluated(training_job: str, worker: Callable[..., Worker]) -> tuple[str, str]:
    """A finished `meta_train` job and its finished evaluation."""
    outcome = worker(training_job).finish_training()
    assert outcome.follow_up is not None
    worker(outcome.follow_up.id).finish_evaluation(evaluation_result())
    return training_job, outcome.follow_up.id


def test_the_report_is_the_result_also_at_the_training_job(api: httpx.Client, evaluated: tuple[str, str]) -> None:
    training, evaluation = evaluated
    report = api.get(f"/jobs/{evaluation}/report")
    assert report.headers["content-type"] == "application/json"
    found = report.json()
    assert found["job"] == evaluation
    assert found["optimizer"] == api.get(f"/jobs/{evaluation}").json()["optimizer"]
    assert {key: found[key] for key in evaluation_result()} == evaluation_result()
    assert api.get(f"/jobs/{training}/report").json() == found
    again = api.get(f"/jobs/{evaluation}/report", headers={"If-None-Match": report.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_report_page_carries_all_it_needs(api: httpx.Client, evaluated: tuple[str, str]) -> None:
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    answer = api.get(f"/jobs/{evaluated[1]}/report", headers={"Accept": accept})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = answer.text
    for needed in ("Learned optimizer beats tuned Adam", "<svg", "0.31", "0.25 to 0.38", "93 %", "0.178", "123,456"):
        assert needed in page, needed
    for foreign in ("<script", "src=", "@import", "url("):
        assert foreign not in page.split("<svg")[0] + page.split("</svg>")[1], foreign
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    ElementTree.fromstring(svg)


def test_optimizers_stand_in_one_order_whatever_the_database_keeps(
    api: httpx.Client, evaluated: tuple[str, str]
) -> None:
    """Postgres sorts the keys of JSONB by their length."""
    report = api.get(f"/jobs/{evaluated[1]}/report").json()
    baselines = ["sgd", "nag", "rmsprop", "adam"]
    assert list(report["optimizers"]) == ["learned", *baselines]
    assert list(report["tuning"]) == baselines
    assert list(report["comparisons"]) == [*baselines, "best_baseline"]
    assert list(report["optimizers"]["sgd"]["curve"])[:3] == ["step", "mean", "median"]
    page = api.get(f"/jobs/{evaluated[1]}/report", headers={"Accept": "text/html"}).text
    verdict, *tables = page.split("<tbody>")[1:]
    assert "<td>after equal steps, at the end</td><td>Adam</td>" in verdict
    assert len(tables) == 6
    for table in tables:
        places = [table.index(f"<td>{label}</td>") for label in ("SGD", "NAG", "RMSprop", "Adam")]
        assert places == sorted(places)


def test_the_report_as_a_picture(api: httpx.Client, evaluated: tuple[str, str]) -> None:
    answer = api.get(f"/jobs/{evaluated[1]}/report", headers={"Accept": "image/png"})
    assert answer.content.startswith(PNG_MAGIC)
    refused = api.get(f"/jobs/{evaluated[1]}/report", headers={"Accept": "text/csv"})
    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")


def test_a_report_that_is_not_ready_says_how_far_it_is(
    api: httpx.Client, training_job: str, worker: Callable[..., Worker]
) -> None:
    held = worker(training_job)
    held.progress(10)
    problem = api.get(f"/jobs/{training_job}/report").json()
    assert (problem["status"], problem["code"], problem["job"]) == (409, "not_ready", training_job)
    outcome = held.finish_training()
    assert outcome.follow_up is not None
    problem = api.get(f"/jobs/{training_job}/report").json()
    assert (problem["code"], problem["job"], problem["job_status"]) == ("not_ready", outcome.follow_up.id, "queued")
    curve = api.get(f"/jobs/{outcome.follow_up.id}/curve")
    assert (curve.status_code, curve.json()["code"]) == (404, "no_curve")
    api.post(f"/jobs/{outcome.follow_up.id}/cancel")
    problem = api.get(f"/jobs/{training_job}/report").json()
    assert (problem["status"], problem["code"]) == (409, "no_result")


def test_a_training_without_an_evaluation_has_no_report(api: httpx.Client, worker: Callable[..., Worker]) -> None:
    body = {"kind": "meta_train", "family": "quadratic", "evaluate": False}
    job = api.post("/jobs", json=body).json()["id"]
    worker(job).finish_training()
    problem: dict[str, Any] = api.get(f"/jobs/{job}/report").json()
    assert (problem["status"], problem["code"]) == (409, "no_result")
    assert "evaluate" in problem["detail"]
