"""GET /doctor: what the doctor finds on the machine of this API process."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.api.dependencies import CallerDep, ServicesDep
from app.http.problems import Problem, responses
from app.store.tables import DEFAULT_WORKSPACE

router = APIRouter(tags=["health"])


class DoctorFinding(BaseModel):
    check: str = Field(description="What was looked at, such as `database` or `kernel`.")
    outcome: Literal["ok", "warn", "fail"] = Field(description="`warn`: it works, but not as one would wish.")
    found: str
    advice: str = Field(description="The next step; empty where there is nothing to do.")


class Diagnosis(BaseModel):
    examined_at: datetime
    complete: bool = Field(description="False where the time was over before the last check.")
    healthy: bool = Field(description="Whether no check failed.")
    checks: list[DoctorFinding]


_EXAMPLE: dict[str, Any] = {
    "examined_at": "2026-11-30T09:00:00Z",
    "complete": True,
    "healthy": True,
    "checks": [{"check": "gpu", "outcome": "ok", "found": "none here", "advice": ""}],
}


@router.get(
    "/doctor",
    operation_id="health_doctor",
    summary="What the doctor finds on the server's machine",
    description=(
        "The checks of `gradsmith-server doctor`, save that of all stored data. The findings name folders, hosts and "
        "processes, so on a server with keys this needs one with the scope `admin`, of the workspace `default`. The "
        "doctor runs in a process of its own for some seconds; its findings stay for half a minute."
    ),
    responses={200: {"content": {"application/json": {"example": _EXAMPLE}}}, **responses()},
)
async def doctor_read(services: ServicesDep, caller: CallerDep, response: Response) -> Diagnosis:
    if caller.workspace != DEFAULT_WORKSPACE:
        raise Problem(
            "insufficient_scope",
            f"What the doctor finds is told to admins of the workspace {DEFAULT_WORKSPACE} alone.",
            required_scope="admin",
        )
    examined = await services.doctor.findings()
    response.headers["Cache-Control"] = "no-store"
    checks = [DoctorFinding(**finding) for finding in examined.findings]
    healthy = all(finding.outcome != "fail" for finding in checks)
    return Diagnosis(examined_at=examined.at, complete=examined.complete, healthy=healthy, checks=checks)
