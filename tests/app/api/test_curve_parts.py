"""A part of a curve, and the curves of several jobs, against the whole one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from app.store.curves import Points
from app.store.events import JobEvent
from workshop.working import Worker

POINTS = 12_000


def event(worker: Worker, first: int, last: int) -> JobEvent:
    steps = np.arange(first, last + 1)
    loss = 10 / np.sqrt(steps) * (1 + 0.3 * np.sin(steps))
    validation = [float(step) if step % 500 == 0 else None for step in steps]
    columns: Any = (steps.tolist(), loss.tolist(), [0.5] * len(steps), validation, [1e-3] * len(steps))
    return JobEvent.metrics(worker.next_id(), Points(*columns, [False] * len(steps)))


@pytest.fixture
def long_job(training_job: str, worker: Callable[..., Worker]) -> str:
    claimed = worker(training_job)
    for first in range(1, POINTS, 4000):
        claimed.record(*[event(claimed, at, at + 99) for at in range(first, first + 4000, 100)])
    return training_job


def test_a_part_is_the_whole_curve_between_its_steps(api: httpx.Client, long_job: str) -> None:
    whole = api.get(f"/jobs/{long_job}/curve").json()
    part = api.get(f"/jobs/{long_job}/curve?from_step=4090&to_step=4500").json()
    assert part["total_points"] == whole["total_points"] == POINTS
    for column in ("step", "loss", "validation", "skipped"):
        assert part[column] == whole[column][4089:4500]
    assert api.get(f"/jobs/{long_job}/curve?from_step={POINTS + 1}").json()["step"] == []


@pytest.mark.parametrize(("first", "last"), [(1, POINTS), (3000, 11_000), (5000, 5060)])
def test_a_thinned_part_keeps_its_lowest_and_highest(api: httpx.Client, long_job: str, first: int, last: int) -> None:
    whole = np.array(api.get(f"/jobs/{long_job}/curve").json()["loss"])[first - 1 : last]
    asked = {"from_step": first, "to_step": last, "max_points": 60}
    part = api.get(f"/jobs/{long_job}/curve", params=asked).json()
    assert 30 < len(part["step"]) <= 60
    assert first <= part["step"][0] < first + 500
    assert last - 500 < part["step"][-1] <= last
    assert (min(part["loss"]), max(part["loss"])) == (whole.min(), whole.max())


def test_a_thinned_part_has_its_points_all_over(api: httpx.Client, long_job: str) -> None:
    """Chunks at its ends are read whole, those between them as overviews: neither takes the other's room."""
    part = api.get(f"/jobs/{long_job}/curve?from_step=2000&max_points=60").json()["step"]
    fifths = np.histogram(part, bins=5, range=(2000, POINTS))[0]
    assert fifths.min() > fifths.max() / 2


def test_the_validated_points_are_those_with_a_validation(api: httpx.Client, long_job: str) -> None:
    found = api.get(f"/jobs/{long_job}/curve?validated=true").json()
    assert found["step"] == list(range(500, POINTS + 1, 500))
    assert found["validation"] == [float(step) for step in found["step"]]


def test_a_part_of_a_resumed_job_has_no_point_that_was_taken_back(
    api: httpx.Client, training_job: str, worker: Callable[..., Worker]
) -> None:
    first = worker(training_job)
    first.record(event(first, 1, 300))
    first.fail("lost")
    assert api.post(f"/jobs/{training_job}/retry").status_code == 202
    second = worker(training_job, 2)
    second.record(second.event("resumed", {"from_step": 100}), event(second, 101, 120))
    part = api.get(f"/jobs/{training_job}/curve?from_step=90").json()
    assert part["step"] == list(range(90, 121))
    assert part["total_points"] == 120


def test_each_part_has_a_tag_of_its_own(api: httpx.Client, long_job: str) -> None:
    tags = [
        api.get(f"/jobs/{long_job}/curve.json?{query}").headers["ETag"]
        for query in ("", "from_step=5", "from_step=6", "to_step=5", "validated=true")
    ]
    assert len(set(tags)) == len(tags)
    again = api.get(f"/jobs/{long_job}/curve.json?from_step=5", headers={"If-None-Match": tags[1]})
    assert again.status_code == 304


def test_lines_of_several_jobs_are_in_the_order_of_the_request(api: httpx.Client, long_job: str) -> None:
    other = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic"}).json()["id"]
    asked = {"job": [other, long_job], "max_points": 50}
    answer = api.get("/curves", params=asked)
    empty, line = answer.json()["data"]
    assert (empty["job"], empty["step"], empty["status"]) == (other, [], "queued")
    assert line["job"] == long_job
    whole = api.get(f"/jobs/{long_job}/curve").json()
    exact = dict(zip(whole["step"], whole["loss"], strict=True))
    assert line["loss"] == pytest.approx([exact[step] for step in line["step"]], rel=1e-6)
    assert 25 <= len(line["step"]) <= 50
    assert api.get("/curves", params=asked, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304


def test_lines_of_nobody_are_refused(api: httpx.Client) -> None:
    assert api.get("/curves").status_code == 422
    assert api.get("/curves?job=job_1").status_code == 404
    assert api.get("/curves?job=job_0198f0c2a4b07e3f9d5c1b2a3d4e5f60").status_code == 404


def test_events_without_metrics_are_all_the_others(
    api: httpx.Client, training_job: str, worker: Callable[..., Worker]
) -> None:
    claimed = worker(training_job)
    claimed.record(event(claimed, 1, 10), claimed.event("log", {"message": "half", "level": "info"}))
    claimed.finish_training()
    kinds = {
        metrics: [
            line.removeprefix("event: ")
            for line in api.get(f"/jobs/{training_job}/events", params={"metrics": metrics}).text.splitlines()
            if line.startswith("event: ")
        ]
        for metrics in ("true", "false")
    }
    assert kinds["false"] == ["status", "log", "done"]
    assert kinds["true"] == ["status", "metrics", "log", "done"]
