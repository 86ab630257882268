"""When a call is made again: what may pass, how long to wait, and when to give up."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradsmith import errors
from gradsmith.answers import failure_of
from gradsmith.programs import Call, Program, Send, Sleep, Work

if TYPE_CHECKING:
    import httpx

TRIES = 5
FAILURES_IN_A_ROW = 10  # where a job is followed: about 90 seconds of trying, which a restart of the server fits in
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0

_RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Options:
    """What `with_options` changes. None: as usual.

    timeout: seconds that connecting, sending and each wait for bytes may take, or an `httpx.Timeout`
    max_retries: further tries after a failure that may pass
    """

    timeout: float | httpx.Timeout | None = None
    max_retries: int | None = None

    def __post_init__(self) -> None:
        if self.max_retries is not None and self.max_retries < 0:
            raise ValueError(f"max_retries is 0 or more, not {self.max_retries}")
        if isinstance(self.timeout, int | float) and not self.timeout > 0:
            raise ValueError(f"timeout is in seconds, above 0, not {self.timeout}; httpx.Timeout(None) has none")

    @property
    def tries(self) -> int:
        """Tries of one call."""
        return TRIES if self.max_retries is None else self.max_retries + 1

    @property
    def failures_in_a_row(self) -> int:
        """Failures after which a job is no longer followed."""
        return FAILURES_IN_A_ROW if self.max_retries is None else self.max_retries + 1


def answered(call: Call[Any], options: Options) -> Program[httpx.Response]:
    """The answer, a success (2xx). Lost connections, 429 and 5xx are tried again, `Retry-After` is heeded.

    Raises ConnectionFailed, or the ResponseError that the status stands for.
    """
    if call.file is not None:
        params: Mapping[str, Any] = {**call.params, "sha256": (yield Work(partial(_sha256, call.file)))}
        call = replace(call, params=params)
    tries = options.tries if call.repeatable else 1
    for number in itertools.count(1):
        try:
            response: httpx.Response = yield Send(call)
        except errors.ConnectionFailed:
            if number >= tries:
                raise
            yield Sleep(pause_seconds(number))
            continue
        if response.is_success:
            return response
        failure = failure_of(response)
        if number >= tries or not worth_retrying(failure):
            raise failure
        yield Sleep(pause_seconds(number, failure.retry_after_seconds))
    raise AssertionError("unreachable: the last try returns or raises")


def pause_seconds(tries: int, retry_after_seconds: float | None = None) -> float:
    """How long to wait after so many failures in a row: what the server asks for, else doubling, with jitter."""
    if retry_after_seconds is not None:
        return retry_after_seconds
    longest: float = min(FIRST_PAUSE_SECONDS * 2 ** min(tries - 1, 30), LONGEST_PAUSE_SECONDS)
    return longest * random.uniform(0.5, 1.0)


def worth_retrying(failure: errors.ResponseError) -> bool:
    """True when the same request may succeed soon."""
    if (failure.retry_after_seconds or 0) > LONGEST_PAUSE_SECONDS:
        return False  # better to tell than to hang
    if failure.code == "damaged_data":
        return False  # a 500 that lasts until its operator acts
    return failure.status in _RETRIED_STATUSES or failure.code == "idempotency_in_flight"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
