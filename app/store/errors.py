"""What the store refuses, as a tree. `app.http.problems` gives each branch its HTTP status, in one place.

StoreError
  NotFound              JobNotFound  OptimizerNotFound  EvaluationNotFound  AliasNotFound      404
                        DatasetNotFound
  Conflict              JobFinished  JobNotFinished  FamilyExists  TooManyFamilies             409
                        DatasetExists  DatasetNeeded  TooManyDatasets  OptimizerNeeded
  LeaseLost             (workers only: another attempt owns the job now)
  IdempotencyConflict   the key came before with another request                               422
  IdempotencyInFlight   the first request with this key has not ended                          409, Retry-After: 1
  AliasMoved            the alias is not as its mover saw it                                   412
  AliasReserved         `latest` and `best` move by themselves                                 422
  KeyNotFound  LastAdminKey  QuotaExceeded    of API keys                                      404, 409, 429
  BadCursor             `after` is not a cursor of this list                                   400
  BadEventId            `Last-Event-ID` or `after` is no `<attempt>-<sequence>`                400
  DamagedData           stored bytes are not those that were written                           500
    DamagedWeights        do not match their SHA-256
    CorruptCurve          points that cannot be read
  DatabaseUnavailable   it cannot be opened, or a writer waited too long                       503
  SchemaMismatch        the database is not migrated, or for another version of the code       503
    SchemaIncomplete    tables or columns were lost since it was migrated                      503
"""

from __future__ import annotations

from collections.abc import Sequence

from app.commands import command


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


class AliasNotFound(NotFound):
    def __init__(self, family: str, alias: str, reserved: str | None = None) -> None:
        self.family, self.alias = family, alias
        if reserved is not None:
            message = f"{alias!r} is no alias of yours: it {reserved}, and moves by itself. GET /optimizers/"
            super().__init__(f"{message}{family}@{alias} shows which that is.")
        else:
            super().__init__(
                f"Family {family} has no alias {alias!r} in this workspace. GET /families/{family}/aliases lists those "
                "that exist; PUT with If-None-Match: * makes one."
            )


class AliasMoved(StoreError):
    """The alias is not as the mover saw it: `optimizer` and `tag` are what it is now, None when there is none."""

    def __init__(self, family: str, alias: str, optimizer: str | None, tag: str | None) -> None:
        reference = f"{family}@{alias}"
        if optimizer is None:
            super().__init__(f"{reference} does not exist (any more). PUT with If-None-Match: * makes it.")
        else:
            super().__init__(
                f'{reference} names {optimizer} now (ETag "{tag}"), which is not what you saw. Look at it, then send '
                "that ETag as If-Match if you still want to change it."
            )
        self.optimizer, self.tag = optimizer, tag


class AliasReserved(StoreError):
    def __init__(self, alias: str, meaning: str) -> None:
        super().__init__(f"{alias!r} is reserved: it {meaning}, and moves by itself. Choose another name.")
        self.alias = alias


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


class FamilyExists(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"The family {name!r} is declared already, with other tasks, recipe or words, and a family never changes: "
            f"what was trained on it would compare with nothing. Choose another name, such as {name}-2; "
            f"GET /families/{name} shows what is declared."
        )
        self.name = name


class TooManyFamilies(Conflict):
    def __init__(self, most: int) -> None:
        super().__init__(
            f"This workspace has {most:,} families, which is the most that it may have. Vary the tasks of one in the "
            "job that names it (`tasks`) in place of declaring another."
        )


class DatasetNotFound(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"There is no data set {name!r} in this workspace. GET /datasets lists those that exist.")


class DatasetExists(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"The data set {name!r} exists already, with other bytes or roles, and a data set never changes. Choose "
            f"another name, such as {name}-2; GET /datasets/{name} shows what it is."
        )


class DatasetNeeded(Conflict):
    def __init__(self, name: str, families: Sequence[str]) -> None:
        super().__init__(
            f"The data set {name!r} is needed by {', '.join(families[:5])}{' and more' if len(families) > 5 else ''}: "
            "families never change, and their jobs read it."
        )


class TooManyDatasets(Conflict):
    def __init__(self, most: int) -> None:
        super().__init__(f"This workspace has {most:,} data sets, which is the most. Delete one that nothing needs.")


class OptimizerNeeded(Conflict):
    """needing: what needs it, in words"""

    def __init__(self, reference: str, needing: Sequence[str]) -> None:
        super().__init__(
            f"{reference} is needed by {', '.join(needing[:5])}{' and more' if len(needing) > 5 else ''}, so it cannot "
            f'be deleted. PATCH it with {{"archived": true}}: then lists, `latest` and `best` pass over it.'
        )


class KeyNotFound(NotFound):
    def __init__(self, key_id: str) -> None:
        super().__init__(f"There is no key {key_id!r} in this workspace. GET /keys lists those that exist.")


class LastAdminKey(Conflict):
    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"Key {key_id} is the last one of its workspace that may make keys. Make another with scope admin first; "
            f"or revoke it on the server's machine: {command('keys revoke')}."
        )


class QuotaExceeded(StoreError):
    def __init__(self, limit: int, active: int) -> None:
        super().__init__(
            f"This key has {active:,} queued and running jobs and may have {limit:,}. Wait until one has ended, or "
            "cancel one."
        )
        self.limit, self.active = limit, active


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


class DamagedData(StoreError):
    """The database returned other bytes than were written. Asking again does not help."""


class DamagedWeights(DamagedData):
    def __init__(self, optimizer: str, reference: str, expected: str, found: str) -> None:
        super().__init__(
            f"The stored weights of optimizer {optimizer} ({reference}) are damaged: their SHA-256 is {found[:12]}..., "
            f"and {expected[:12]}... was recorded. They are not served. The server's operator can restore a backup "
            f"({command('doctor')} lists all damaged data). Or train it again: the same recipe and seed on the same "
            "type of machine give equal bytes, which replace the damaged ones."
        )
        self.optimizer = optimizer


class CorruptCurve(DamagedData):
    pass


class DatabaseUnavailable(StoreError):
    pass


class DatabaseBusy(DatabaseUnavailable):
    """Another writer, or all connections, took longer than this one could wait."""


class RowLocked(DatabaseBusy):
    """Another transaction keeps a row for longer than this one could wait."""


class SchemaMismatch(StoreError):
    pass


class SchemaIncomplete(SchemaMismatch):
    """It is at this version's revision and `lacks` some of what that made: migrating does nothing about it."""

    def __init__(self, shown: str, lacks: str) -> None:
        super().__init__(
            f"The database {shown} is broken: it lacks {lacks}, and migrating does not bring that back. Stop the "
            f"service and put a backup in its place; {command('doctor')} says how."
        )
        self.lacks = lacks


_ENDED = {"succeeded": "succeeded", "failed": "failed", "cancelled": "been cancelled"}
