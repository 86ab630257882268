"""The API's nouns: jobs, optimizers, families."""

from __future__ import annotations

import hashlib
import math
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload
from urllib.parse import quote

import httpx

from gradsmith.errors import ConnectionFailed, IntegrityFailed, InvalidResponse, JobFailed, ResponseError, WaitTimeout
from gradsmith.events import Event
from gradsmith.stream import follow
from gradsmith.transport import FAILURES_IN_A_ROW, Transport, pause_seconds, worth_retrying
from gradsmith.types import Curve, Family, Job, Optimizer, Page, Report

T = TypeVar("T")

WEIGHTS_MEDIA_TYPE = "application/vnd.safetensors"


class Jobs:
    """`client.jobs`. Wherever a job is asked for, its id or a `Job` will do."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

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
    ) -> Job:
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

        Raises InvalidRequest, whose `.errors` name the fields; RateLimited when your quota is full.
        """
        fields = {
            "kind": kind,
            "family": family,
            "optimizer": optimizer,
            "tasks": tasks,
            "seed": seed,
            "recipe": recipe,
            "evaluate": evaluate,
            "evaluation": evaluation,
            "resources": resources,
            "metadata": metadata,
        }
        return parsed(
            self._transport.request(
                "POST",
                "/jobs",
                body={name: value for name, value in fields.items() if value is not None},
                headers={"Idempotency-Key": idempotency_key or str(uuid.uuid4())},
            ),
            Job.from_json,
        )

    def get(self, job: str | Job) -> Job:
        """The job as it is now. Raises NotFound."""
        return parsed(self._transport.request("GET", _path(job)), Job.from_json)

    def list(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        family: str | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> Page[Job]:
        """One page of jobs, newest first; `after=page.next` gives the following one."""
        params = {"status": status, "kind": kind, "family": family, "limit": limit, "after": after}
        params |= {f"metadata.{name}": value for name, value in (metadata or {}).items()}
        response = self._transport.request("GET", "/jobs", params=given(params))
        return parsed(response, lambda raw: Page.from_json(raw, Job.from_json))

    def stream(self, job: str | Job, *, after: str | None = None) -> Iterator[Event]:
        """Everything that the job says, from its first event (or behind the event with id `after`) until it is done.

        Comes live while the job runs. A lost connection is taken up again where it broke: no event is lost, none
        comes twice. Ends after the DoneEvent.

        Raises NotFound, and ConnectionFailed when the server stays away.
        """
        return follow(self._transport, _path(job) + "/events", after)

    def wait(self, job: str | Job, *, timeout_seconds: float | None = None, poll_seconds: float = 0.5) -> Job:
        """Wait until the job has succeeded, and return it. A server that is away for a while (a restart, an upgrade) is
        waited for, as in `stream`.

        Warns (UserWarning) when what it made is worse than parameters that never move, so that "latest" and "best" will
        not name it. Raises JobFailed when it failed or was cancelled, WaitTimeout when `timeout_seconds` have passed;
        the job itself runs on then. Raises NotFound, and ConnectionFailed when the server stays away.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        seen: Job | None = None
        failures = 0
        while True:
            try:
                seen = parsed(self._transport.request("GET", _path(job), tries=1), Job.from_json)
            except (ConnectionFailed, ResponseError) as failure:
                failures += 1
                left = math.inf if deadline is None else deadline - time.monotonic()
                lasting = isinstance(failure, ResponseError) and not worth_retrying(failure)
                if lasting or failures >= FAILURES_IN_A_ROW or (left <= 0 and seen is None):
                    raise
                asked = failure.retry_after_seconds if isinstance(failure, ResponseError) else None
                pause = pause_seconds(failures, asked)
            else:
                failures = 0
                if seen.status == "succeeded":
                    if seen.status_reason is not None:
                        warnings.warn(f"job {seen.id} succeeded, but {seen.status_reason}", UserWarning, stacklevel=2)
                    return seen
                if seen.finished:
                    reason = f": {seen.status_reason}" if seen.status_reason else ""
                    raise JobFailed(f"job {seen.id} ended as {seen.status}{reason}", seen)
                left = math.inf if deadline is None else deadline - time.monotonic()
                pause = poll_seconds
            if left <= 0 and seen is not None:
                raise WaitTimeout(
                    f"job {seen.id} {'was' if failures else 'is still'} {seen.status} after {timeout_seconds} s (step "
                    f"{seen.progress.step} of {seen.progress.total})"
                    f"{', and the server does not answer now' if failures else ''}. It runs on: wait again, or "
                    f"client.jobs.cancel({seen.id!r})",
                    seen,
                )
            time.sleep(min(pause, max(left, 0.0)))

    def cancel(self, job: str | Job) -> Job:
        """Ask the job to stop: a queued one is cancelled at once, a running one within seconds.

        Raises Conflict when it has already succeeded or failed.
        """
        return parsed(self._transport.request("POST", _path(job) + "/cancel"), Job.from_json)

    def retry(self, job: str | Job) -> Job:
        """Start another attempt of a job that failed or was cancelled; it goes on from its last checkpoint.

        Raises Conflict when it has not ended, or has succeeded.
        """
        return parsed(self._transport.request("POST", _path(job) + "/retry", tries=1), Job.from_json)

    def curve(self, job: str | Job, *, max_points: int | None = None) -> Curve:
        """The loss curve so far; `max_points` thins it out and keeps its spikes. Raises NotReady before it begins."""
        params = {} if max_points is None else {"max_points": max_points, "method": "minmax"}
        return parsed(self._transport.request("GET", _path(job) + "/curve", params=params), Curve.from_json)

    def report(self, job: str | Job) -> Report:
        """The result of an `evaluate` or `preview` job. Raises NotReady, with `.progress`, while it runs."""
        return parsed(self._transport.request("GET", _path(job) + "/report"), Report.from_json)

    def report_png(self, job: str | Job) -> bytes:
        """The report as a picture. Raises NotReady, with `.progress`, while the job runs."""
        return self._transport.request("GET", _path(job) + "/report", accept="image/png").content

    def report_html(self, job: str | Job) -> str:
        """The report as a self-contained page. Raises NotReady, with `.progress`, while the job runs."""
        return self._transport.request("GET", _path(job) + "/report", accept="text/html").text


class Optimizers:
    """`client.optimizers`. A reference is an id ("opt_...") or "<family>@<version>", "...@best", "...@latest", or an
    alias of yours."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        family: str | None = None,
        alias: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        archived: bool = False,
        limit: int = 20,
        after: str | None = None,
    ) -> Page[Optimizer]:
        """One page of the registry, newest first; `after=page.next` gives the following one.

        alias: those that it names now; without `family`, in every family
        tags: labels (`metadata`) of the job that made it, all of which must be there; None stands for any value
        archived: also those that were archived
        """
        tag = [name if value is None else f"{name}={value}" for name, value in (tags or {}).items()]
        hidden = True if archived else None
        params = {"family": family, "alias": alias, "tag": tag or None, "archived": hidden, "limit": limit}
        params = given(params | {"after": after})
        response = self._transport.request("GET", "/optimizers", params=params)
        return parsed(response, lambda raw: Page.from_json(raw, Optimizer.from_json))

    def get(self, reference: str) -> Optimizer:
        """The record of an optimizer: hash, scores, what training cost. Raises NotFound."""
        return parsed(self._transport.request("GET", _optimizer_path(reference)), Optimizer.from_json)

    @overload
    def pull(self, reference: str, path: None = None, *, card: bool = True) -> bytes: ...

    @overload
    def pull(self, reference: str, path: str | os.PathLike[str], *, card: bool = True) -> Path: ...

    def pull(self, reference: str, path: str | os.PathLike[str] | None = None, *, card: bool = True) -> bytes | Path:
        """Fetch the weights with their card: returns the bytes, or writes them to `path` and returns that. The card is
        what is known now, such as verdicts; `LearnedOptimizer` warns by it, and `upload` brings it to another server.

        card: False: the weights alone, whose SHA-256 is `Optimizer.sha256`

        The bytes are checked against the server's SHA-256 before anything is written, and the file appears whole or
        not at all. Raises NotFound, and IntegrityFailed when they do not match.
        """
        form = "/file" if card else "/weights"
        response = self._transport.request("GET", _optimizer_path(reference) + form, accept=WEIGHTS_MEDIA_TYPE)
        promised = response.headers.get("ETag", "").removeprefix("W/").strip('"')
        if not promised.startswith("sha256:"):
            raise InvalidResponse(
                f"the answer for {reference!r} carries no SHA-256 to check it by (ETag {promised!r}); is a Gradsmith "
                f"server at {self._transport.base_url}?"
            )
        found = hashlib.sha256(response.content).hexdigest()
        if promised != f"sha256:{found}":
            raise IntegrityFailed(
                f"the weights of {reference!r} arrived damaged: SHA-256 {found}, but the server names {promised}. "
                f"Pull again"
            )
        if path is None:
            return response.content
        return _write_whole(Path(path), response.content)

    def upload(
        self,
        path: str | os.PathLike[str],
        *,
        family: str | None = None,
        source: str | None = None,
        description: str | None = None,
    ) -> Optimizer:
        """Bring a weights file: one that `pull` fetched from another server, or that `gradsmith.rules.weights.dumps`
        wrote. It is checked, and kept whole or not at all. `latest` and `best` pass over it until it was evaluated:
        `client.jobs.create("evaluate", optimizer=found.id)`.

        family: default: the one that the file names, which must be known to the server
        source: where it comes from, in your words; default: the file's name

        The same file again returns the same optimizer. Raises InvalidRequest, which says what is wrong with the file,
        and OSError.
        """
        file = Path(path)
        with file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        said = {"family": family, "source": source or file.name[-128:], "description": description, "sha256": sha256}
        return parsed(self._transport.upload("/optimizers", file, params=given(said)), Optimizer.from_json)

    def update(self, reference: str, *, description: str) -> Optimizer:
        """Describe it in your own words. Raises NotFound."""
        return self._change(reference, {"description": description})

    def archive(self, reference: str, *, archived: bool = True) -> Optimizer:
        """Let lists, "latest" and "best" pass over it; with `archived=False`, no longer. Raises NotFound."""
        return self._change(reference, {"archived": archived})

    def delete(self, reference: str) -> None:
        """Forget it. Raises NotFound, and Conflict where an alias, a job or an evaluation needs it."""
        self._transport.request("DELETE", _optimizer_path(reference), tries=1)

    def _change(self, reference: str, fields: Mapping[str, Any]) -> Optimizer:
        response = self._transport.request("PATCH", _optimizer_path(reference), body=fields)
        return parsed(response, Optimizer.from_json)


class Families:
    """`client.families`: what can be trained on."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Page[Family]:
        """All families."""
        return parsed(self._transport.request("GET", "/families"), lambda raw: Page.from_json(raw, Family.from_json))

    def get(self, name: str) -> Family:
        """One family; `.raw["schemas"]` holds the JSON schemas of its spec. Raises NotFound."""
        return parsed(self._transport.request("GET", "/families/" + quote(name, safe="")), Family.from_json)

    def create(
        self,
        name: str,
        tasks: Mapping[str, Any],
        *,
        title: str | None = None,
        description: str | None = None,
        recipe: Mapping[str, Any] | None = None,
        evaluation: Mapping[str, Any] | None = None,
    ) -> Family:
        """Declare a family of your workspace: its tasks are of a kind that the server has, such as "expression".

        A family never changes: the same call again returns it, another one with its name raises Conflict.
        recipe, evaluation: what differs from what is usual for the kind
        """
        body = given(
            {
                "name": name, "tasks": tasks, "title": title, "description": description, "recipe": recipe,
                "evaluation": evaluation,
            }
        )  # fmt: skip
        return parsed(self._transport.request("POST", "/families", body=body), Family.from_json)


def _path(job: str | Job) -> str:
    return "/jobs/" + quote(job.id if isinstance(job, Job) else job, safe="")


def _optimizer_path(reference: str) -> str:
    return "/optimizers/" + quote(reference, safe="@")


def given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def parsed(response: httpx.Response, parse: Callable[[dict[str, Any]], T]) -> T:
    try:
        return parse(response.json())
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InvalidResponse(
            f"the answer of {response.request.method} {response.request.url} is not what the API promises "
            f"({error!r}); is a Gradsmith server there, and is it as new as this client?"
        ) from error


def _write_whole(path: Path, content: bytes) -> Path:
    """Write beside the target, then rename: whoever looks sees the old file or the new one, never half of one."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
