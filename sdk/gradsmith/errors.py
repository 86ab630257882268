"""Every error that Gradsmith raises on purpose.

GradsmithError
├── MissingDependency        an optional package is not installed (also an ImportError)
├── UnknownRule              a rule of a kind that this version does not know
├── WeightsError             a weights file that cannot be used (also a ValueError)
│   ├── UnsupportedFormat    a format version or rule that this version does not read
│   ├── CorruptWeights       truncated, garbled, or not safetensors at all
│   ├── ShapeMismatch        tensors missing, left over, or of another shape than the rule's
│   └── NonFiniteWeights     NaN or infinity among the weights
├── UnknownSource            a text that names neither a weights file nor an optimizer (also a ValueError)
├── UnsupportedParameter     LearnedOptimizer was given something it cannot train (also a TypeError)
├── UnsupportedGradient      a gradient that LearnedOptimizer cannot use (also a RuntimeError)
├── StateMismatch            a state dict that belongs to another rule or model (also a ValueError)
├── TooManyCoordinates       a rule of fixed memory was given more parameters than fit (also a ValueError)
├── UnsendableValue          a value in a request that JSON cannot hold (also a TypeError)
├── ServiceError             something between you and the service
│   ├── ConnectionFailed     the server could not be reached, or went away
│   ├── InvalidResponse      an answer that is not what the API promises
│   ├── IntegrityFailed      weights that do not match their SHA-256
│   └── ResponseError        the server said no; see `.status`, `.code`, `.errors`, `.request_id`
│       ├── InvalidRequest   400, 413, 415, 422: `.errors` point at the fields
│       ├── Unauthorized     401
│       ├── Forbidden        403
│       ├── NotFound         404
│       ├── Conflict         409
│       │   ├── NotReady     409 for a result whose job still runs: `.progress`
│       │   └── PreconditionFailed   412: somebody else changed it since you saw it
│       ├── RateLimited      429: `.retry_after_seconds`
│       └── ServerError      5xx
├── JobFailed                the job that you waited for failed or was cancelled: `.job`
└── WaitTimeout              the job that you waited for still runs (also a TimeoutError): `.job`

OutsideTrainingWarning, a UserWarning, says that an optimizer is used far outside what it was trained for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradsmith.types import FieldError, Job, Progress


class OutsideTrainingWarning(UserWarning):
    """A learned optimizer is used far outside what it was trained for, or where it was measured to lose."""


class GradsmithError(Exception):
    """The root of all of them."""


class MissingDependency(GradsmithError, ImportError):
    """An optional package is needed and is not installed."""


# --- rules and weights --------------------------------------------------------------------------------------------


class UnknownRule(GradsmithError, ValueError):
    """A rule's configuration names a kind, or a setting, that this version does not know."""


class WeightsError(GradsmithError, ValueError):
    """A weights file that cannot be used."""


class UnsupportedFormat(WeightsError):
    """A format version or a rule that this version of gradsmith does not read; a newer one may."""


class CorruptWeights(WeightsError):
    """The bytes are truncated, garbled, or no safetensors file."""


class ShapeMismatch(WeightsError):
    """Tensors are missing, left over, or of another shape than the named rule has."""


class NonFiniteWeights(WeightsError):
    """A weight is NaN or infinite."""


# --- the drop-in optimizer ----------------------------------------------------------------------------------------


class UnknownSource(GradsmithError, ValueError):
    """What should name a rule is neither a file nor the reference of an optimizer."""


class UnsupportedParameter(GradsmithError, TypeError):
    """A parameter that a learned optimizer cannot train: complex, integer, sparse."""


class UnsupportedGradient(GradsmithError, RuntimeError):
    """A gradient that a learned optimizer cannot use: a wrapper of numbers that are elsewhere, or of another shape."""


class StateMismatch(GradsmithError, ValueError):
    """A state dict, or a change of the parameters in mid-run, that does not fit the state being kept."""


# --- the service --------------------------------------------------------------------------------------------------


class TooManyCoordinates(GradsmithError, ValueError):
    """A rule with a memory of fixed size is to move more coordinates together than that has places for."""


class UnsendableValue(GradsmithError, TypeError):
    """A value in a request that JSON cannot hold; the message names its field."""


class ServiceError(GradsmithError):
    """Something between you and the service went wrong."""


class ConnectionFailed(ServiceError):
    """The server could not be reached, or went away, and the retries did not help."""


class InvalidResponse(ServiceError):
    """The answer is not what the API promises; is there really a Gradsmith server at this address?"""


class IntegrityFailed(ServiceError):
    """Downloaded bytes do not match the SHA-256 that the server names."""


class ResponseError(ServiceError):
    """The server answered with an error (RFC 9457 problem+json).

    detail: the server's own words, without the request that the message ends with
    status: the HTTP status code
    code: the machine-readable kind of the error, for example "job_not_found"; empty when the answer carried none
    errors: what is wrong with which field of the request (JSON pointers); empty where that does not apply
    request_id: quote it when you report a problem
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        detail: str = "",
        code: str = "",
        errors: tuple[FieldError, ...] = (),
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(message)
        self.detail = detail or message
        self.status = status
        self.code = code
        self.errors = errors
        self.request_id = request_id
        self.retry_after_seconds = retry_after_seconds
        self.progress = progress


class InvalidRequest(ResponseError):
    """The request does not fit: `.errors` name the fields."""


class Unauthorized(ResponseError):
    """The server wants an API key: `Client(api_key=...)` or the environment variable GRADSMITH_API_KEY."""


class Forbidden(ResponseError):
    """The API key is good, and its scope is too small."""


class NotFound(ResponseError):
    """No such job, optimizer or family."""


class Conflict(ResponseError):
    """The thing is in a state in which this cannot be done."""


class NotReady(Conflict):
    """The result does not exist yet: its job is queued or running. `.progress` says how far it is, when known."""


class PreconditionFailed(Conflict):
    """It is no longer as you saw it: somebody else changed it. Look at it again, and decide."""


class RateLimited(ResponseError):
    """Too many requests or jobs; `.retry_after_seconds` says when to come again, when known."""


class ServerError(ResponseError):
    """The server failed (5xx), also after retries."""


class JobFailed(GradsmithError):
    """The job that you waited for ended as failed or cancelled; `.job` is its last record."""

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message)
        self.job = job


class WaitTimeout(GradsmithError, TimeoutError):
    """The job that you waited for has not ended in the time you gave; `.job` is its last record."""

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message)
        self.job = job
