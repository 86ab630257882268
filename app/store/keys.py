"""API keys and workspaces. A key is known by its id; of its secret the SHA-256 is kept and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from app.store.errors import KeyNotFound, LastAdminKey, QuotaExceeded
from app.store.pages import Page, page_of
from app.store.sessions import now
from app.store.sql import clock, insert_if_absent
from app.store.tables import DEFAULT_WORKSPACE, JobRow, KeyRow, WorkspaceRow

_ACTIVE = ("queued", "running", "cancelling")
_DEVICES = ("cpu", "gpu")  # only to use the whole of an index
# A sweep counts as one job, however many of its children run.
_ACTIVE_JOBS = (JobRow.status.in_(_ACTIVE), JobRow.device.in_(_DEVICES), JobRow.sweep.is_(None))
_USABLE = and_(KeyRow.revoked_at.is_(None), or_(KeyRow.expires_at.is_(None), KeyRow.expires_at > clock()))


class KeyRepository:
    """The keys of one workspace, within the caller's transaction."""

    def __init__(self, session: Session, workspace: str = DEFAULT_WORKSPACE) -> None:
        self._session = session
        self._workspace = workspace

    def create(
        self,
        key_id: str,
        sha256: str,
        *,
        name: str,
        scopes: Sequence[str],
        expires_at: datetime | None = None,
        max_active_jobs: int | None = None,
    ) -> KeyRow:
        """`sha256`: of the whole token, in hexadecimal. The workspace is made when there is none of that name."""
        insert_if_absent(self._session, WorkspaceRow, id=self._workspace, created_at=clock())
        row = KeyRow(
            id=key_id,
            workspace=self._workspace,
            name=name,
            scopes=list(scopes),
            sha256=sha256,
            max_active_jobs=max_active_jobs,
            created_at=now(self._session),
            expires_at=expires_at,
        )
        self._session.add(row)
        self._session.flush()
        return row

    def get(self, key_id: str) -> KeyRow:
        """Raises KeyNotFound, also for a key of another workspace."""
        row = self._session.scalar(select(KeyRow).where(KeyRow.id == key_id, KeyRow.workspace == self._workspace))
        if row is None:
            raise KeyNotFound(key_id)
        return row

    def page(self, *, limit: int = 20, after: str | None = None) -> Page[KeyRow]:
        """Newest first, the expired and revoked among them. Raises BadCursor."""
        query = select(KeyRow).where(KeyRow.workspace == self._workspace)
        return page_of(self._session, query, KeyRow.id, limit, after, ["keys", self._workspace])

    def revoke(self, key_id: str, *, even_the_last: bool = False) -> KeyRow:
        """Revokes the key, which is refused from now on. Revoking it again changes nothing.

        Raises KeyNotFound, and LastAdminKey where no other key of the workspace could make new ones, unless
        `even_the_last`.
        """
        # One revocation a workspace at a time, or two could each take the other's key for the one that is left.
        self._session.execute(
            select(WorkspaceRow.id).where(WorkspaceRow.id == self._workspace).with_for_update(key_share=True)
        )
        row = self.get(key_id)
        if row.revoked_at is not None:
            return row
        others = self._session.scalars(select(KeyRow).where(KeyRow.workspace == self._workspace, _USABLE))
        usable = {key.id for key in others if "admin" in key.scopes}
        if not even_the_last and usable == {key_id}:
            raise LastAdminKey(key_id)
        row.revoked_at = now(self._session)
        self._session.flush()
        return row


def find(session: Session, key_id: str) -> KeyRow | None:
    """The key of that id in whichever workspace, usable or not: what whoever verifies a token asks for."""
    return session.get(KeyRow, key_id)


def every(session: Session) -> list[KeyRow]:
    """The keys of all workspaces by workspace and age: for whoever runs the server."""
    return list(session.scalars(select(KeyRow).order_by(KeyRow.workspace, KeyRow.id)))


def status_of(row: KeyRow) -> Literal["active", "expired", "revoked"]:
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= datetime.now(UTC) else "active"


def any_usable(session: Session) -> bool:
    """Whether there is a key at all that is neither revoked nor expired."""
    return session.scalar(select(KeyRow.id).where(_USABLE).limit(1)) is not None


def note_use(session: Session, used: Mapping[str, datetime]) -> None:
    """`last_used_at` of each key by its id; it never goes back."""
    for key_id, moment in sorted(used.items()):  # in one order, or two processes could wait for each other
        later = or_(KeyRow.last_used_at.is_(None), KeyRow.last_used_at < moment)
        session.execute(update(KeyRow).where(KeyRow.id == key_id, later).values(last_used_at=moment))


@dataclass
class Quota:
    """How many jobs of a key are queued or running, and how many may be; None: any number."""

    limit: int | None
    active: int

    def take(self) -> None:
        """Room for one more. Raises QuotaExceeded."""
        if self.limit is not None and self.active >= self.limit:
            raise QuotaExceeded(self.limit, self.active)
        self.active += 1


def quotas(
    session: Session, key_ids: Collection[str], default_limit: int | None, *, besides: str | None = None
) -> dict[str, Quota]:
    """Quotas of these keys. Their rows stay locked until the transaction ends, so of two requests for the last place
    one waits and is refused.

    `default_limit` is for keys without a limit of their own; None: no limit. `besides` is a job that is not counted.
    """
    if not key_ids:
        return {}
    # In one order everywhere: two transactions never wait for each other. FOR UPDATE, and no less: whoever inserts a
    # job of this key shares its row, and is waited for.
    own = select(KeyRow.id, KeyRow.max_active_jobs).where(KeyRow.id.in_(key_ids)).order_by(KeyRow.id).with_for_update()
    limits = {key_id: default_limit if limit is None else limit for key_id, limit in session.execute(own)}
    counted = (
        select(JobRow.api_key, func.count())
        .where(*_ACTIVE_JOBS, JobRow.api_key.in_(key_ids), JobRow.id != (besides or ""))
        .group_by(JobRow.api_key)
    )
    active = {key_id: count for key_id, count in session.execute(counted)}  # noqa: C416  (a row is no pair to mypy)
    return {key_id: Quota(limit, active.get(key_id, 0)) for key_id, limit in limits.items()}
