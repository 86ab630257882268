"""The one place where what went wrong becomes an HTTP answer: RFC 9457 `application/problem+json`.

The store and the science raise their own errors and know no status codes; `TRANSLATIONS` gives each its code, and
`CATALOGUE` gives each code its status and title. Endpoints raise `Problem` for what only HTTP knows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.http import security, wording
from app.http.expected_body import expected_body
from app.http.paths import Paths
from app.store import errors as store
from models import errors as models

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Kind:
    status: int
    title: str
    remedy: str  # what to do about it; shown in /docs


CATALOGUE: dict[str, Kind] = {
    "invalid_json": Kind(400, "The body is not JSON", "Send one JSON object, encoded as UTF-8."),
    "invalid_http": Kind(400, "That is not HTTP", "Send HTTP/1.1: a request line, headers, an empty line, the body."),
    "bad_cursor": Kind(400, "The cursor is unknown", "Pass `next` of a page with the same filters, unchanged."),
    "bad_event_id": Kind(400, "That is no event id", "Pass the `id` of an event, such as 1-42, unchanged."),
    "unauthenticated": Kind(401, "An API key is needed", "Send `Authorization: Bearer gs_<id>_<secret>`."),
    "invalid_key": Kind(401, "The API key is not valid", "See `detail`; an admin makes keys with POST /keys."),
    "insufficient_scope": Kind(403, "The key may not do this", "Use a key with the scope `required_scope`."),
    "cross_origin": Kind(403, "A page of another origin may not do this", "Call from a program, or the server's page."),
    "keys_required": Kind(403, "This server serves loopback only", "Bind it to 127.0.0.1, or set GRADSMITH_AUTH=on."),
    "not_found": Kind(404, "There is nothing at this path", "See /docs for the paths that exist."),
    "job_not_found": Kind(404, "No such job", "List the jobs with GET /jobs."),
    "optimizer_not_found": Kind(404, "No such optimizer", "List the optimizers with GET /optimizers."),
    "family_not_found": Kind(404, "No such family", "List the families with GET /families."),
    "dataset_not_found": Kind(404, "No such data set", "List the data sets with GET /datasets."),
    "alias_not_found": Kind(404, "No such alias", "List the family's aliases with GET /families/{name}/aliases."),
    "key_not_found": Kind(404, "No such key", "List the keys with GET /keys."),
    "no_curve": Kind(404, "This kind of job has no loss curve", "What such a job measured is at /jobs/{id}/report."),
    "no_search": Kind(404, "This kind of job searches nothing", "Sweeps have trials: GET /jobs?kind=sweep lists them."),
    "method_not_allowed": Kind(405, "The path does not know this method", "See the `Allow` header."),
    "not_acceptable": Kind(406, "None of the accepted media types is on offer", "See `detail` for those on offer."),
    "too_slow": Kind(408, "The request came too slowly", "Send it again at one go, over a connection that holds."),
    "not_ready": Kind(409, "Not ready yet", "Follow /jobs/{id}/events; `progress` says how far it is."),
    "job_finished": Kind(409, "The job's status does not allow this", "Look at the job: GET /jobs/{id}."),
    "job_not_finished": Kind(409, "The job has not ended yet", "Wait for it, or cancel it first."),
    "no_result": Kind(409, "The job ended without a result", "See `detail`; POST /jobs/{id}/retry runs it again."),
    "not_measured": Kind(
        409, "No evaluation of the optimizer shows its updates", "See `detail`: POST /jobs evaluates it."
    ),
    "family_exists": Kind(409, "The name has another family", "Choose another name; a family never changes."),
    "too_many_families": Kind(409, "The workspace has its most families", "Change `tasks` in the job instead."),
    "dataset_exists": Kind(409, "The name has another data set", "Choose another name; a data set never changes."),
    "dataset_needed": Kind(409, "A family is made of the data set", "Keep it; the families are in `detail`."),
    "too_many_datasets": Kind(409, "The workspace has its most data sets", "Delete one that nothing needs."),
    "optimizer_needed": Kind(409, "The optimizer is needed", "Archive it; what needs it is in `detail`."),
    "last_admin_key": Kind(409, "It is the last key that may make keys", "Make another with scope admin first."),
    "idempotency_in_flight": Kind(409, "A twin of this request is still running", "Try again after `Retry-After`."),
    "precondition_failed": Kind(412, "It is not as you saw it", "GET it again; decide; send its new ETag as If-Match."),
    "body_too_large": Kind(413, "The body is too large", "Send less; the limit is in `limit_bytes` or `limit_values`."),
    "unsupported_media_type": Kind(415, "Bodies are JSON", "Send `Content-Type: application/json`."),
    "range_not_satisfiable": Kind(416, "The range lies outside the bytes", "See `Content-Range` for their length."),
    "host_not_allowed": Kind(421, "This server has another name", "Add the Host to GRADSMITH_ALLOWED_HOSTS."),
    "invalid_request": Kind(422, "The request does not fit", "Each of `errors` names a place and what is wrong there."),
    "dataset_refused": Kind(422, "The file cannot be used", "See `detail`; nothing of the file was kept."),
    "optimizer_refused": Kind(422, "The weights file cannot be used", "See `detail`; nothing of the file was kept."),
    "unknown_family": Kind(422, "No such family", "GET /families lists what can be trained on."),
    "unknown_optimizer": Kind(422, "No such optimizer", "GET /optimizers lists what there is."),
    "not_installed": Kind(422, "What it needs is not installed here", "Install what `detail` names, or send others."),
    "data_set_missing": Kind(422, "A data set is not here", "Bring it with the command in `detail`, then send again."),
    "job_too_large": Kind(422, "The job needs more memory than a worker has", "Ask for fewer tasks at once."),
    "alias_reserved": Kind(422, "That alias moves by itself", "Choose a name other than `latest` and `best`."),
    "idempotency_conflict": Kind(422, "The Idempotency-Key was used for another request", "Use a fresh key."),
    "precondition_required": Kind(428, "Say what you saw", "Send If-Match with the ETag of GET, or If-None-Match: *."),
    "rate_limited": Kind(429, "Too many calls", "Go on after `Retry-After`; `RateLimit` says where you stand."),
    "quota_exceeded": Kind(429, "The key has as many jobs as it may", "Wait until one ends, or cancel one."),
    "headers_too_large": Kind(431, "The headers are too large", "Send fewer or shorter headers, and a shorter URL."),
    "internal": Kind(500, "Something broke on our side", "Report the `request_id`; the server's log has the details."),
    "damaged_data": Kind(500, "Stored data is damaged", "Do not try again; `detail` names it and the next step."),
    "store_unavailable": Kind(503, "A store cannot be used", "Try again after `Retry-After`."),
}

TRANSLATIONS: dict[type[Exception], str] = {
    store.JobNotFound: "job_not_found",
    store.OptimizerNotFound: "optimizer_not_found",
    store.AliasNotFound: "alias_not_found",
    store.AliasMoved: "precondition_failed",
    store.AliasReserved: "alias_reserved",
    store.EvaluationNotFound: "not_ready",
    store.JobFinished: "job_finished",
    store.JobNotFinished: "job_not_finished",
    store.IdempotencyConflict: "idempotency_conflict",
    store.IdempotencyInFlight: "idempotency_in_flight",
    store.KeyNotFound: "key_not_found",
    store.FamilyExists: "family_exists",
    store.TooManyFamilies: "too_many_families",
    store.DatasetNotFound: "dataset_not_found",
    store.DatasetExists: "dataset_exists",
    store.DatasetNeeded: "dataset_needed",
    store.TooManyDatasets: "too_many_datasets",
    store.OptimizerNeeded: "optimizer_needed",
    store.LastAdminKey: "last_admin_key",
    store.QuotaExceeded: "quota_exceeded",
    store.BadCursor: "bad_cursor",
    store.BadEventId: "bad_event_id",
    store.DamagedData: "damaged_data",
    store.DatabaseUnavailable: "store_unavailable",
    store.SchemaMismatch: "store_unavailable",
    models.BlobsUnavailable: "store_unavailable",
    models.DatasetRefused: "dataset_refused",
    models.UnknownKind: "not_installed",
    models.SpecUnreadable: "not_installed",
}

# Messages that name hosts and folders are for the log; callers get these.
UNTOLD: dict[type[Exception], str] = {
    store.DatabaseUnavailable: "The database cannot be reached, or is busy. Try again.",
    store.SchemaMismatch: "The database is not migrated to this version, or broken. GET /readyz says which it is.",
    models.BlobsUnavailable: "The bucket of the data sets cannot be used; nothing was changed. Try again.",
}

# A body may hold a hundred thousand fields that do not exist.
MOST_ERRORS = 100

# Answers that say when to come back.
RETRY_AFTER_SECONDS = {"idempotency_in_flight": 1, "store_unavailable": 2, "quota_exceeded": 60}


class FieldError(BaseModel):
    """One thing that is wrong, and where: a JSON pointer into the part of the request that `location` names."""

    location: str = Field(description="`body`, `query`, `path` or `header`.")
    pointer: str = Field(description="RFC 6901; the empty string is the whole of it.")
    code: str
    message: str


class ProblemDocument(BaseModel):
    """RFC 9457. `code` is for programs, `detail` for people; some codes carry members of their own."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str | None
    errors: list[FieldError] = []


class Problem(Exception):
    """An answer that is not a success. `members` are further members of the document, for programs."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.members = members


def document_of(
    code: str, detail: str, *, instance: str, request_id: str | None, errors: Sequence[FieldError] = ()
) -> dict[str, Any]:
    """The members that every problem has."""
    kind = CATALOGUE[code]
    document = ProblemDocument(
        type=f"/docs#problem-{code}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=instance,
        code=code,
        request_id=request_id,
        errors=list(errors),
    )
    return document.model_dump()  # Python's mode: the JSON mode refuses lone surrogates


def response_of(request: Request, problem: Problem) -> Response:
    """The document. Its JSON is ASCII, so that a lone surrogate echoed from the request cannot break the answer."""
    kind = CATALOGUE[problem.code]
    request_id = request.scope.get("state", {}).get("request_id")
    document = document_of(
        problem.code,
        problem.detail,
        instance=request.scope.get("path", ""),
        request_id=request_id,
        errors=problem.errors,
    )
    content = security.without_keys(json.dumps(document | problem.members))
    # the answer to a bug passes no middleware
    headers = security.headers(request.scope.get("scheme", "http")) | {"Cache-Control": "no-store"} | problem.headers
    if problem.code in RETRY_AFTER_SECONDS:
        headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS[problem.code]))
    if request_id is not None:
        headers.setdefault("X-Request-Id", request_id)
    return Response(content, kind.status, headers, media_type=MEDIA_TYPE)


def pointer_of(location: Sequence[str | int]) -> str:
    """`("recipe", "horizon")` -> `/recipe/horizon` (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def field_errors(
    errors: Sequence[Mapping[str, Any]],
    *,
    location: str = "body",
    within: Sequence[str] = (),
    model: type[BaseModel] | None = None,
) -> list[FieldError]:
    """pydantic's errors (`ValidationError.errors()`) as ours; `within` is where in the request the model sits, and
    `model` is what the whole body should be, where that is known."""
    return [
        FieldError(
            location=location,
            pointer=pointer_of((*within, *error["loc"])),
            code=error["type"],
            message=wording.in_words(error, model),
        )
        for error in wording.deepest(errors)
    ]


def _of_validation(request: Request, exc: RequestValidationError) -> Problem:
    expected = expected_body(request.scope.get("route"))
    errors: list[FieldError] = []
    for error in wording.deepest(exc.errors())[:MOST_ERRORS]:
        location, *path = error["loc"]
        if error["type"] == "json_invalid":
            reason = error.get("ctx", {}).get("error", "it does not parse")
            return Problem("invalid_json", f"The body is not JSON: {reason} at character {path[0] if path else 0}.")
        if location == "body" and not path and not error["type"].startswith("union_tag"):
            found = "is missing" if error["type"] == "missing" else f"is {wording.shown(error['input'])}"
            message = f"{found}; send a JSON object such as {expected.example}"
            errors.append(FieldError(location="body", pointer="", code=error["type"], message=message))
            continue
        model = None
        if location == "body":
            model = expected.model
            # pydantic puts the tag that it took into the path of a body that is a union
            if model is None and path and (model := expected.by_tag.get(str(path[0]))) is not None:
                path = path[1:]
            if error["type"].startswith("union_tag"):
                path = [*path, "kind"]
                error = dict(error) | {"ctx": dict(error["ctx"]) | {"models": expected.by_tag}}
        errors.extend(field_errors([dict(error) | {"loc": path}], location=str(location), model=model))
    return invalid_request(errors)


def invalid_request(errors: Sequence[FieldError]) -> Problem:
    """422 whose `detail` is the first error in words."""
    first = errors[0]
    more = f" ({len(errors) - 1} more in `errors`)" if len(errors) > 1 else ""
    where = f"{first.pointer.lstrip('/')}:" if first.pointer else f"The {first.location}"
    return Problem("invalid_request", f"{where} {first.message}{more}", errors=errors)


def _of_http(request: Request, exc: HTTPException) -> Problem:
    headers = dict(exc.headers or {})
    path = request.scope.get("path", "")
    match exc.status_code:
        case 404:
            return Problem("not_found", f"There is nothing at {path}.", headers=headers)
        case 405:
            allowed = ", ".join(request.app.state.methods_at(path))
            detail = f"{path} takes {allowed}, not {request.method}."
            return Problem("method_not_allowed", detail, headers={"Allow": allowed})
        case 400:  # FastAPI's, when reading the body failed in a way that is no JSONDecodeError
            detail = "The body cannot be read: it is not UTF-8, is nested too deeply, or holds a number without end."
            return Problem("invalid_json", detail, headers=headers)
    raise RuntimeError(f"no code for {exc.status_code} {HTTPStatus(exc.status_code).phrase}: raise Problem") from exc


def _of_any(request: Request, exc: Exception) -> Problem:
    if isinstance(exc, Problem):
        return exc
    if isinstance(exc, RequestValidationError):
        return _of_validation(request, exc)
    if isinstance(exc, HTTPException):
        return _of_http(request, exc)
    if isinstance(exc, OperationalError | InterfaceError):
        log.error("database unavailable: %s", exc)
        return Problem("store_unavailable", "The database cannot be reached.")
    for known in type(exc).__mro__:
        if known in TRANSLATIONS:
            code = TRANSLATIONS[known]
            if CATALOGUE[code].status >= 500:
                log.error("%s %s: %s", request.method, request.url.path, exc)
            return Problem(code, UNTOLD.get(known, str(exc)))
    request_id = request.scope.get("state", {}).get("request_id")
    log.error("%s %s failed, request %s", request.method, request.url.path, request_id, exc_info=exc)
    return Problem("internal", "Something broke on our side; the server's log says what, under this request_id.")


def problem_response(request: Request, exc: Exception) -> Response:
    """The answer to whatever went wrong, foreseen or not; what was not is logged."""
    return response_of(request, _of_any(request, exc))


def install(app: FastAPI, paths: Paths) -> None:
    """Every error of `app`, foreseen or not, is answered as a problem document. `paths` are all that it has."""
    app.state.methods_at = paths.methods_at

    async def answer(request: Request, exc: Exception) -> Response:
        return problem_response(request, exc)

    foreseen = (Problem, RequestValidationError, HTTPException, OperationalError, InterfaceError, store.StoreError)
    for kind in (*foreseen, models.ModelsError, Exception):
        app.add_exception_handler(kind, answer)


def responses(*codes: str, public: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of an operation that may answer with these codes: one entry a status, each with its examples.

    `public`: it needs no key on a server with keys.
    """
    entries: dict[int | str, dict[str, Any]] = {}
    admission = () if public else ("unauthenticated", "invalid_key", "insufficient_scope", "rate_limited")
    for code in (*codes, *admission, "host_not_allowed", "internal", "store_unavailable"):
        add_response(entries, code)
    return entries


def add_response(entries: dict[int | str, dict[str, Any]], code: str) -> None:
    """Say in an operation's `responses` that it may answer with this code."""
    kind = CATALOGUE[code]
    status = str(kind.status)
    if status not in entries:
        content = {"schema": {"$ref": "#/components/schemas/ProblemDocument"}, "examples": {}}
        entries[status] = {"description": kind.title, "content": {MEDIA_TYPE: content}}
    examples = entries[status]["content"][MEDIA_TYPE]["examples"]
    if code in examples:
        return
    if examples:
        entries[status]["description"] += f"; {kind.title[0].lower()}{kind.title[1:]}"
    examples[code] = {"$ref": f"#/components/examples/{code}"}
