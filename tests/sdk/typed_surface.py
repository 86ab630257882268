"""What `mypy --strict` knows of both clients; checked with the rest by `./run check`, and never run.

An ignore that nothing needs is an error, so each of those below says that mypy refuses the line.
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from gradsmith import AsyncClient, Client
from gradsmith.events import Event
from gradsmith.executors import RawResponse
from gradsmith.pages import AsyncPage, Page
from gradsmith.programs import Items
from gradsmith.types import Curve, Job


def blocking(client: Client) -> None:
    job = assert_type(client.jobs.create(family="quadratic", seed=1), Job)
    assert_type(client.jobs.wait(job, timeout_seconds=1.0, progress=True), Job)
    assert_type(client.with_options(timeout=5).jobs.curve(job.id, max_points=10), Curve)
    assert_type(client.optimizers.pull("quadratic@best"), bytes)
    assert_type(client.optimizers.pull("quadratic@best", "file"), Path)
    page = assert_type(client.jobs.list(limit=2), Page[Job])
    for each in page:
        assert_type(each, Job)
    for event in client.jobs.stream(job):
        assert_type(event, Event)
    raw = client.with_raw_response
    assert_type(raw.jobs.get("job_1"), RawResponse[Job])
    assert_type(raw.jobs.list().parse(), Items[Job])
    assert_type(raw.optimizers.pull("quadratic@best").parse(), bytes)
    client.jobs.get(3)  # type: ignore[arg-type]
    client.jobs.list(page=2)  # type: ignore[call-arg]
    raw.jobs.wait("job_1")  # type: ignore[arg-type]


async def awaited(client: AsyncClient) -> None:
    job = assert_type(await client.jobs.create(family="quadratic", seed=1), Job)
    assert_type(await client.jobs.wait(job, timeout_seconds=1.0, progress=True), Job)
    assert_type(await client.with_options(timeout=5).jobs.curve(job.id, max_points=10), Curve)
    assert_type(await client.optimizers.pull("quadratic@best"), bytes)
    assert_type(await client.optimizers.pull("quadratic@best", "file"), Path)
    assert_type(await client.jobs.list(limit=2), AsyncPage[Job])
    async for each in client.jobs.list():
        assert_type(each, Job)
    async for event in client.jobs.stream(job):
        assert_type(event, Event)
    assert_type(await client.with_raw_response.jobs.get("job_1"), RawResponse[Job])
    await client.jobs.get(3)  # type: ignore[arg-type]
    _ = client.jobs.get("job_1").id  # type: ignore[attr-defined]
