"""Records as the API sends them, for the client's tests."""

from __future__ import annotations

from typing import Any


def job_json(**changes: Any) -> dict[str, Any]:
    return {
        "id": "job_1",
        "kind": "meta_train",
        "family": "quadratic",
        "status": "running",
        "status_reason": None,
        "attempt": 1,
        "queue_position": None,
        "progress": {"step": 3, "total": 10, "eta_seconds": 1.5},
        "optimizer": None,
        "parent": None,
        "evaluation": None,
        "metadata": {"team": "a"},
        "spec": {"seed": 4},
        "runtime": {},
        "created_at": "2026-01-02T03:04:05.678Z",
        "started_at": None,
        "finished_at": None,
    } | changes


def problem_json(status: int, code: str, **members: Any) -> dict[str, Any]:
    return {
        "type": f"/docs#problem-{code}",
        "title": "Title",
        "status": status,
        "detail": f"what is wrong with {code}",
        "instance": "/jobs",
        "code": code,
        "request_id": "req_7",
        "errors": [],
    } | members
