"""API keys of the caller's workspace: make, list, revoke. Their secrets are shown once and kept nowhere."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Path, Request, Response
from pydantic import AwareDatetime, BaseModel, Field, Strict, field_validator
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.api.dependencies import After, CallerDep, IdempotencyKey, Limit, ServicesDep, only_parameters
from app.api.schemas import Page
from app.auth import Scope, tokens
from app.auth.issue import issue
from app.http import fields
from app.http.fields import Name
from app.http.problems import responses
from app.store.errors import KeyNotFound
from app.store.idempotency import Answer, KeyedRequest, fingerprint, once
from app.store.ids import is_id
from app.store.keys import KeyRepository, status_of
from app.store.tables import KeyRow

router = APIRouter(tags=["keys"])

_SALT = "salt"  # kept beside the stored headers, and never sent
KEY_ID = "key_0198f0c2a4b07e3f9d5c1b2a3d4e5f60"
_EXAMPLE: dict[str, Any] = {
    "id": KEY_ID,
    "name": "nightly training",
    "workspace": "default",
    "scopes": ["read", "submit"],
    "status": "active",
    "max_active_jobs": None,
    "created_at": "2026-11-24T09:00:00.000000Z",
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": None,
}
_NEW_EXAMPLE = _EXAMPLE | {"token": "gs_0198f0c2a4b07e3f9d5c1b2a3d4e5f60_" + "0123456789abcdef" * 3}


class KeyRequest(fields.Request):
    """A key of your own workspace."""

    name: Name = Field(description="What it is for; so that you know later which one to revoke.")
    scopes: list[Scope] = Field(
        ["submit"],
        min_length=1,
        max_length=3,
        description="`read`, `submit` (which holds read) or `admin` (which holds both).",
    )
    expires_at: AwareDatetime | None = Field(None, description="When it ends, with a time zone. Default: never.")
    max_active_jobs: Annotated[int, Strict()] | None = Field(
        None, ge=1, le=1_000_000, description="Most queued and running jobs. Default: the server's."
    )

    @field_validator("expires_at")
    @classmethod
    def _in_the_future(cls, moment: datetime | None) -> datetime | None:
        if moment is None:
            return None
        if moment <= datetime.now(UTC):
            raise ValueError("it has passed already; name a moment in the future, or leave it out")
        try:
            return moment.astimezone(UTC)
        except OverflowError as error:
            raise ValueError("it lies beyond the year 9999") from error


class Key(BaseModel):
    """What is known of a key. Nothing here lets anybody use it."""

    id: str
    name: str
    workspace: str
    scopes: list[Scope]
    status: Literal["active", "expired", "revoked"]
    max_active_jobs: int | None = Field(description="null: the server's own limit.")
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To about a minute.")


class NewKey(Key):
    token: str | None = Field(
        description="Send it as `Authorization: Bearer <token>`. Shown now and never again; null in a replay on a "
        "server without keys, which has nobody to prove that he may see it twice."
    )


KeyId = Annotated[str, Path(description="An id such as `key_...`; not the token, which belongs into no URL.")]


@router.post(
    "/keys",
    operation_id="keys_create",
    summary="Make an API key",
    description="The answer holds the key's `token`: keep it, for the server keeps only its SHA-256.",
    status_code=201,
    response_model=NewKey,
    responses={
        201: {
            "description": "Made. `Location` is the key's address.",
            "content": {"application/json": {"example": _NEW_EXAMPLE}},
            "headers": {
                "Location": {"schema": {"type": "string"}},
                "Idempotent-Replayed": {
                    "description": "`true` when the Idempotency-Key had this answer already.",
                    "schema": {"type": "string"},
                },
            },
        },
        **responses(
            "invalid_json", "cross_origin", "idempotency_in_flight", "body_too_large", "unsupported_media_type",
            "invalid_request", "idempotency_conflict",
        ),
    },
)  # fmt: skip
def keys_create(
    body: Annotated[
        KeyRequest,
        Body(
            openapi_examples={
                "smallest": {"summary": "May submit jobs", "value": {"name": "nightly training"}},
                "reader": {
                    "summary": "May look, until the end of the year 2099",
                    "value": {"name": "dashboard", "scopes": ["read"], "expires_at": "2099-12-31T23:59:59Z"},
                },
            }
        ),
    ],
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    bearer = request.headers.get("authorization", "").partition(" ")[2].strip() if caller.api_key else ""

    def create(session: Session) -> Answer:
        salt = secrets.token_hex(16)
        # A replay must show the same token, and the stored answer must not hold it: so whoever may replay can derive
        # it anew, from his own token and the salt that is stored.
        repeatable = idempotency_key is not None and bearer
        row, token = issue(
            session,
            workspace=caller.workspace,
            name=body.name,
            scopes=body.scopes,
            expires_at=body.expires_at,
            max_active_jobs=body.max_active_jobs,
            secret=tokens.derived_secret(bearer, salt) if repeatable else None,
        )
        made.append(token)
        content = NewKey(**_fields(row), token=None).model_dump_json().encode()
        return Answer(201, {"Location": f"/keys/{row.id}", _SALT: salt}, content)

    made: list[str] = []
    asked = body.model_dump(mode="json", exclude_unset=True)
    keyed = None
    if idempotency_key is not None:
        by = caller.api_key or ""
        keyed = KeyedRequest(caller.workspace, by, idempotency_key, fingerprint("POST", "/keys", asked))
    answer = once(services.database, keyed, create)
    new = NewKey.model_validate_json(answer.body)
    headers = dict(answer.headers)
    salt = headers.pop(_SALT)
    if not answer.replayed:
        new.token = made[-1]
    elif bearer:
        new.token = tokens.token_of(new.id, tokens.derived_secret(bearer, salt))
    headers |= {"Cache-Control": "no-store"} | ({"Idempotent-Replayed": "true"} if answer.replayed else {})
    return Response(new.model_dump_json(), answer.status_code, headers, media_type="application/json")


@router.get(
    "/keys",
    operation_id="keys_list",
    summary="List the workspace's keys, newest first",
    description="The expired and revoked ones too; never their secrets.",
    responses={
        200: {"content": {"application/json": {"example": {"data": [_EXAMPLE], "has_more": False, "next": None}}}},
        **responses("bad_cursor", "invalid_request"),
    },
    dependencies=[Depends(only_parameters("limit", "after"))],
)
def keys_list(services: ServicesDep, caller: CallerDep, limit: Limit = 20, after: After = None) -> Page[Key]:
    with services.database.read() as session:
        page = KeyRepository(session, caller.workspace).page(limit=limit, after=after)
    return Page[Key](data=[Key(**_fields(row)) for row in page.rows], has_more=page.has_more, next=page.next)


@router.get(
    "/keys/{key_id}",
    operation_id="keys_get",
    summary="One key",
    responses={200: {"content": {"application/json": {"example": _EXAMPLE}}}, **responses("key_not_found")},
)
def keys_get(key_id: KeyId, services: ServicesDep, caller: CallerDep) -> Key:
    with services.database.read() as session:
        return Key(**_fields(KeyRepository(session, caller.workspace).get(_known(key_id))))


@router.delete(
    "/keys/{key_id}",
    operation_id="keys_revoke",
    summary="Revoke a key",
    description=(
        "It is refused from now on; by other API processes after a few seconds (`GRADSMITH_KEY_CACHE_SECONDS`). Its "
        "jobs go on. Revoking it again changes nothing. The last key that may make keys cannot be revoked here."
    ),
    status_code=204,
    responses={
        204: {"description": "It is revoked."},
        **responses("cross_origin", "key_not_found", "last_admin_key", "unsupported_media_type", "body_too_large"),
    },
)
async def keys_revoke(key_id: KeyId, services: ServicesDep, caller: CallerDep) -> Response:
    def revoke() -> None:
        with services.database.write() as session:
            KeyRepository(session, caller.workspace).revoke(_known(key_id))

    await run_in_threadpool(revoke)
    services.keys.forget(key_id)  # on the loop, where the key ring lives
    return Response(status_code=204)


def _known(key_id: str) -> str:
    """An id that is malformed names no key, and is never shown to the database."""
    if not is_id("key", key_id):
        raise KeyNotFound(key_id)
    return key_id


def _fields(row: KeyRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "workspace": row.workspace,
        "scopes": row.scopes,
        "status": status_of(row),
        "max_active_jobs": row.max_active_jobs,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
        "last_used_at": row.last_used_at,
    }
