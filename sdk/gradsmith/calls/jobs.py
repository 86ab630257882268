"""Trainings, evaluations and previews."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from gradsmith.answers import items, record
from gradsmith.calls.base import M, Resource, call, feed, given, listing, path, program
from gradsmith.events import Event
from gradsmith.programs import Call, Feed, Items, Program
from gradsmith.stream import follow
from gradsmith.types import Curve, Job, Price, Report
from gradsmith.waiting import until_succeeded


class Jobs(Resource[M]):
    """`client.jobs`. Wherever a job is asked for, its id or a `Job` will do."""

    @call
    def create(
        self,
        kind: str = "meta_train",
        *,
        family: str | None = None,
        optimizer: str | None = None,
        tasks: Mapping[str, Any] | None = None,
        seed: int | None = None,
        recipe: Mapping[str, Any] | None = None,
        evaluate: bool | None = None,
        evaluation: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Call[Job]:
        """Start a job and return at once: `create(family="quadratic")` is enough to train a rule.

        kind: "meta_train" (needs `family`), "evaluate" (needs `optimizer`, an id or such as "quadratic@best") or
            "preview" (needs `family`: tunes baselines on it and trains nothing)
        tasks: values that differ from the family's tasks, for example {"hidden": [16], "activation": "relu"}
        seed: default: a random one, recorded in the job; for an evaluation 0, so that baselines are tuned once
        recipe: values that differ from the family's recipe, for example {"meta_steps": 300, "rule": {"layers": 1}}
        evaluate: False: do not measure the result against tuned baselines afterwards
        evaluation: values that differ from the family's plan, for example {"test_tasks": 128}
        metadata: your own labels
        idempotency_key: default: a random one, so that a retry after a lost connection never starts a second job;
            give one of your own to make that hold across runs of your program

        Numbers and arrays of numpy and torch are sent as numbers and lists. Raises InvalidRequest, whose `.errors` name
        the fields; RateLimited when your quota is full.
        """
        body = given(
            {
                "kind": kind, "family": family, "optimizer": optimizer, "tasks": tasks, "seed": seed, "recipe": recipe,
                "evaluate": evaluate, "evaluation": evaluation, "resources": resources, "metadata": metadata,
            }
        )  # fmt: skip
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return Call("POST", "/jobs", record(Job.from_json), body=body, headers=headers)

    @call
    def price(
        self,
        kind: str = "meta_train",
        *,
        family: str | None = None,
        optimizer: str | None = None,
        tasks: Mapping[str, Any] | None = None,
        seed: int | None = None,
        recipe: Mapping[str, Any] | None = None,
        evaluate: bool | None = None,
        evaluation: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Call[Price]:
        """Tell what `create` with the same arguments would need: memory, seconds, time in the queue. Nothing is queued.

        Raises as `create` does.
        """
        body = given(
            {
                "kind": kind, "family": family, "optimizer": optimizer, "tasks": tasks, "seed": seed, "recipe": recipe,
                "evaluate": evaluate, "evaluation": evaluation, "resources": resources, "metadata": metadata,
            }
        )  # fmt: skip
        return Call("POST", "/jobs", record(Price.from_json), params={"dry_run": "true"}, body=body)

    @call
    def get(self, job: str | Job) -> Call[Job]:
        """The job as it is now. Raises NotFound."""
        return Call("GET", _path(job), record(Job.from_json))

    @listing
    def list(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        family: str | None = None,
        sweep: str | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> Call[Items[Job]]:
        """Jobs, newest first. sweep: the id of one, for its children; limit: so many a page."""
        params = {"status": status, "kind": kind, "family": family, "sweep": sweep, "limit": limit, "after": after}
        params |= {f"metadata.{name}": value for name, value in (metadata or {}).items()}
        return Call("GET", "/jobs", items(Job.from_json), params=given(params))

    @feed
    def stream(self, job: str | Job, *, after: str | None = None) -> Feed[Event]:
        """Everything that the job says, from its first event (or behind the event with id `after`) until it is done.

        Comes live while the job runs. A lost connection is taken up again where it broke: no event is lost, none
        comes twice. Ends after the DoneEvent of the newest attempt: a job that was retried has one for each.

        Raises NotFound, and ConnectionFailed when the server stays away.
        """
        return follow(_path(job) + "/events", after, self._executor.options)

    @program
    def wait(
        self,
        job: str | Job,
        *,
        timeout_seconds: float | None = None,
        poll_seconds: float = 0.5,
        progress: bool | Callable[[Job], object] = False,
    ) -> Program[Job]:
        """Wait until the job has succeeded, and return it. A server that is away for a while (a restart, an upgrade) is
        waited for, as in `stream`.

        progress: True draws a bar, in a notebook below the cell, else on stderr; a function is called with the job
            each time that it was asked for

        Warns (UserWarning) when what it made is worse than parameters that never move, so that "latest" and "best" will
        not name it. Raises JobFailed when it failed or was cancelled, WaitTimeout when `timeout_seconds` have passed;
        the job itself runs on then. Raises NotFound, and ConnectionFailed when the server stays away.
        """
        asked = Call("GET", _path(job), record(Job.from_json))
        return until_succeeded(asked, self._executor.options, timeout_seconds, poll_seconds, progress)

    @call
    def cancel(self, job: str | Job) -> Call[Job]:
        """Ask the job to stop: a queued one is cancelled at once, a running one within seconds.

        Raises Conflict when it has already succeeded or failed.
        """
        return Call("POST", _path(job) + "/cancel", record(Job.from_json))

    @call
    def retry(self, job: str | Job) -> Call[Job]:
        """Start another attempt of a job that failed or was cancelled.

        It goes on from the last checkpoint where there is one, else from the start.

        Raises Conflict when it has not ended, or has succeeded.
        """
        return Call("POST", _path(job) + "/retry", record(Job.from_json), repeatable=False)

    @call
    def curve(self, job: str | Job, *, max_points: int | None = None) -> Call[Curve]:
        """The loss curve so far; `max_points` thins it out and keeps its spikes. Raises NotReady before it begins."""
        params = {} if max_points is None else {"max_points": max_points, "method": "minmax"}
        return Call("GET", _path(job) + "/curve", record(Curve.from_json), params=params)

    @call
    def report(self, job: str | Job) -> Call[Report]:
        """The result of an `evaluate` or `preview` job. Raises NotReady, with `.progress`, while it runs."""
        return Call("GET", _path(job) + "/report", record(Report.from_json))

    @call
    def report_png(self, job: str | Job) -> Call[bytes]:
        """The report as a picture. Raises NotReady, with `.progress`, while the job runs."""
        return Call("GET", _path(job) + "/report", _bytes, accept="image/png")

    @call
    def report_html(self, job: str | Job) -> Call[str]:
        """The report as a self-contained page. Raises NotReady, with `.progress`, while the job runs."""
        return Call("GET", _path(job) + "/report", _text, accept="text/html")


def _path(job: str | Job) -> str:
    return path("jobs", job.id if isinstance(job, Job) else job)


def _bytes(response: httpx.Response) -> bytes:
    return response.content


def _text(response: httpx.Response) -> str:
    return response.text
