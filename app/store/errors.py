"""What the store refuses, as a tree. `app.errors` gives each branch its HTTP status, in one place.

StoreError
  NotFound              JobNotFound  OptimizerNotFound  EvaluationNotFound                     404
  Conflict              JobFinished  JobNotFinished                                            409
  LeaseLost             (workers only: another attempt owns the job now)
  IdempotencyConflict   the key came before with another request                               422
  IdempotencyInFlight   the first request with this key has not ended                          409, Retry-After: 1
  BadCursor             `after` is not a cursor of this list                                   400
  BadEventId            `Last-Event-ID` or `after` is no `<attempt>-<sequence>`                400
  CorruptCurve          stored points that cannot be read                                      500
  DatabaseUnavailable   it cannot be opened, or a writer waited too long                       503
  SchemaMismatch        the database is not migrated, or for another version of the code       503
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of all; `str(error)` is written for users."""


class NotFound(StoreError):
    pass


class JobNotFound(NotFound):
    def __init__(self, job_id: str) -> None:
        super().__init__(f"There is no job {job_id!r} in this workspace. GET /jobs lists those that exist.")
        self.job_id = job_id


class OptimizerNotFound(NotFound):
    def __init__(self, reference: str, available: str) -> None:
        super().__init__(f"There is no optimizer {reference!r}. {available}")
        self.reference = reference


class EvaluationNotFound(NotFound):
    pass


class Conflict(StoreError):
    pass


class JobFinished(Conflict):
    """The job has a terminal status that this request would have to change."""

    def __init__(self, job_id: str, status: str, advice: str) -> None:
        super().__init__(f"Job {job_id} has {_ENDED.get(status, status)}; {advice}")
        self.job_id = job_id
        self.status = status


class JobNotFinished(Conflict):
    """The job must have ended before this can be done."""

    def __init__(self, job_id: str, status: str, advice: str) -> None:
        super().__init__(f"Job {job_id} is {status}; {advice}")
        self.job_id = job_id
        self.status = status


class LeaseLost(StoreError):
    """Another attempt owns the job now, or it has ended: the worker must leave at once and write nothing more."""

    def __init__(self, job_id: str, attempt: int) -> None:
        super().__init__(f"Attempt {attempt} of job {job_id} no longer holds its lease.")
        self.job_id = job_id
        self.attempt = attempt


class IdempotencyConflict(StoreError):
    def __init__(self, key: str) -> None:
        super().__init__(
            f"Idempotency-Key {key!r} was used for a different request in the last 24 hours. Choose a new key."
        )


class IdempotencyInFlight(StoreError):
    def __init__(self, key: str) -> None:
        super().__init__(f"The first request with Idempotency-Key {key!r} is still being answered. Try again shortly.")


class BadCursor(StoreError):
    def __init__(self) -> None:
        super().__init__(
            "`after` is not a cursor of this list. Pass the `next` of a page with the same filters, unchanged."
        )


class BadEventId(StoreError):
    def __init__(self, text: str) -> None:
        super().__init__(f"Event id {text!r} is not of the form <attempt>-<sequence>, such as 1-42.")


class CorruptCurve(StoreError):
    pass


class DatabaseUnavailable(StoreError):
    pass


class DatabaseBusy(DatabaseUnavailable):
    """Another writer, or all connections, took longer than this one could wait."""


class SchemaMismatch(StoreError):
    pass


_ENDED = {"succeeded": "succeeded", "failed": "failed", "cancelled": "been cancelled"}
