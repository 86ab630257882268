"""What POST /jobs makes of a `preview`, and what it refuses."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.report.preview import preview, preview_page
from app.settings import Settings
from workshop.serving import serving
from workshop.working import preview_result

BODY: dict[str, Any] = {
    "kind": "preview",
    "family": "rosenbrock",
    "seed": 5,
    "evaluation": {"horizon": 10, "tuning_tasks": 4, "baselines": ["adam", "sgd"], "bootstrap_samples": 100},
    "metadata": {"look": "first"},
}


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"family": "rosenbrok"}, "unknown_family", "Did you mean 'rosenbrock'?"),
        (
            {"evaluation": {"test_tasks": 4}},
            "invalid_request",
            "'test_tasks' is not a field here; did you mean 'tuning_tasks'?",
        ),
        ({"resources": {"processes": 2}}, "invalid_request", "runs in one process"),
        ({"resources": {"backend": "native"}}, "invalid_request", "has no rule for the backend native"),
        ({"tasks": {"dimension": -1}}, "invalid_request", "tasks/dimension: -1 is too small; send 2 or more"),
        (
            {"evaluation": {"tuning_tasks": 65_536, "horizon": 10_000, "baselines": ["adam", "sgd", "nag"]}},
            "job_too_large",
            "Lower evaluation.tuning_tasks or evaluation.horizon.",
        ),
    ],
)
def test_what_cannot_be_previewed_is_refused(
    standing_api: httpx.Client, changes: dict[str, Any], code: str, words: str
) -> None:
    answer = standing_api.post("/jobs", json=BODY | changes)
    assert (answer.status_code // 100, answer.json()["code"]) == (4, code), answer.text
    assert words in answer.json()["detail"], answer.json()["detail"]


def test_a_services_backend_for_rules_does_not_refuse_a_preview(settings: Settings) -> None:
    with serving(settings.model_copy(update={"backend": "native"})) as url:
        answer = httpx.post(f"{url}/jobs", json=BODY)
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"]["resources"]["backend"] == "auto"


def test_a_page_and_a_picture_show_whatever_was_measured() -> None:
    ugly = preview_result("<b>&") | {"tuning_tasks": 1, "coordinates_per_task": 1}
    curve = ugly["optimizers"]["adam"]["curve"]
    curve["mean"] = [1.0] + [None] * (len(curve["mean"]) - 1)  # it diverged
    page = preview_page(ugly, job="<script>")
    assert "<b>" not in page
    assert "<script>" not in page
    assert "1 validation task of 1 coordinate, 20 steps" in page
    assert preview(ugly) == preview.__wrapped__(ugly)
