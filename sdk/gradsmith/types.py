"""What the API answers, as frozen values. Filled in `from_json`; unknown fields of a newer server are kept in `raw`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong with a request.

    pointer: JSON pointer to the field, for example "/recipe/horizon"; empty for the whole body
    code: machine-readable kind, for example "greater_than_equal"
    message: for people
    """

    pointer: str
    code: str
    message: str


@dataclass(frozen=True)
class Progress:
    """How far a job is. step and total count meta-steps (or parts of an evaluation); `eta_seconds` is None while
    nothing can be said."""

    step: int
    total: int
    eta_seconds: float | None


@dataclass(frozen=True)
class Job:
    """One piece of work."""

    id: str
