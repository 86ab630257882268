"""Waiting for a job, over failures that may pass."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from gradsmith.answers import failure_of
from gradsmith.errors import ConnectionFailed, JobFailed, ResponseError, WaitTimeout
from gradsmith.programs import Call, Program, Send, Sleep
from gradsmith.retries import Options, pause_seconds, worth_retrying

if TYPE_CHECKING:
    import httpx

    from gradsmith.types import Job

_PACKAGE = str(Path(__file__).parent)


def until_succeeded(
    asked: Call[Job],
    options: Options,
    timeout_seconds: float | None,
    poll_seconds: float,
    progress: bool | Callable[[Job], object],
) -> Program[Job]:
    """The job once it has succeeded; see `Jobs.wait`. asked: the call that gives it as it is"""
    from gradsmith.progress import Bar

    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    seen: Job | None = None
    failures = 0
    with Bar() if progress is True else nullcontext(progress or None) as shown:
        while True:
            try:
                response: httpx.Response = yield Send(asked)
                if not response.is_success:
                    raise failure_of(response)
            except (ConnectionFailed, ResponseError) as failure:
                failures += 1
                left = math.inf if deadline is None else deadline - time.monotonic()
                lasting = isinstance(failure, ResponseError) and not worth_retrying(failure)
                if lasting or failures >= options.failures_in_a_row or (left <= 0 and seen is None):
                    raise
                wanted = failure.retry_after_seconds if isinstance(failure, ResponseError) else None
                pause = pause_seconds(failures, wanted)
            else:
                failures = 0
                seen = asked.read(response)
                if shown is not None:
                    shown(seen)
                if seen.finished:
                    return _succeeded(seen)
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
            yield Sleep(min(pause, max(left, 0.0)))


def _succeeded(job: Job) -> Job:
    if job.status != "succeeded":
        reason = f": {job.status_reason}" if job.status_reason else ""
        raise JobFailed(f"job {job.id} ended as {job.status}{reason}", job)
    if job.status_reason is not None:
        said = f"job {job.id} succeeded, but {job.status_reason}"
        warnings.warn(said, UserWarning, stacklevel=_outside(sys._getframe()))
    return job


def _outside(frame: FrameType | None) -> int:
    """How many frames up the caller of this package is: executors differ in how many they add."""
    level = 1
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level
