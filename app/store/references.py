"""References: what stands for an optimizer, and where that is.

`opt_...`, `<family>@<version>`, `<family>@latest` (the newest version that was trained), `<family>@best` (the lowest
validation score, the older version of equals) or `<family>@<alias>`. `latest` and `best` pass over optimizers that are
not `automatic`, which are worse than standing still or were uploaded and not evaluated here, and over those that were
archived. `best` also passes over those whose job changed the family's
tasks: losses on different tasks do not compare. Nor do scores of different criteria (`Recipe.criterion`): `best`
compares those of the family's own recipe, and where there are none, those of the newest optimizer's. It may name a
tuned baseline, which evaluations register, so that it is never worse; and where an evaluation found a learned schedule
that does as well as what `best` would name, it names the schedule.
"""

from __future__ import annotations

import difflib
import re
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, bindparam, case, func, literal, or_, select
from sqlalchemy.orm import Session

from app.store.aliases import RESERVED, is_alias
from app.store.errors import OptimizerNotFound
from app.store.ids import is_id
from app.store.tables import AliasRow, DeletedOptimizerRow, OptimizerRow
from models.families import FAMILIES

REFERENCE_FORMS = "Optimizers are named opt_..., <family>@<version> or <family>@<alias>, such as quadratic@best."
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class Located(NamedTuple):
    """Where an optimizer is, whatever it was called by."""

    id: str
    family: str
    version: int
    sha256: str


# Made once, and of plain tables: to make a statement, or objects of its rows, takes SQLAlchemy longer than the database
# needs to answer.
_OPTIMIZERS, _ALIASES = OptimizerRow.__table__.c, AliasRow.__table__.c
_EVERY = select(_OPTIMIZERS.id, _OPTIMIZERS.family, _OPTIMIZERS.version, _OPTIMIZERS.sha256).where(
    _OPTIMIZERS.workspace == bindparam("workspace")
)
_OF_FAMILY = _EVERY.where(_OPTIMIZERS.family == bindparam("family"))
_BY_ID = _EVERY.where(_OPTIMIZERS.id == bindparam("id"))
_BY_VERSION = _OF_FAMILY.where(_OPTIMIZERS.version == bindparam("name"))
_BY_ALIAS = _EVERY.where(
    _OPTIMIZERS.id == _ALIASES.optimizer,
    _ALIASES.workspace == bindparam("workspace"),
    _ALIASES.family == bindparam("family"),
    _ALIASES.alias == bindparam("name"),
)


def nameable(optimizers: Any) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Which optimizers `latest` and `best` may name. optimizers: a table or an alias of it"""
    return optimizers.automatic, optimizers.archived_at.is_(None)


def compared_criterion(optimizers: Any, workspace: Any, family: Any) -> Select[Any]:
    """The criterion whose scores `best` compares. optimizers: a table or an alias of it, another than the one that
    `best` is looked for in; workspace, family: expressions"""
    own = case(
        {name: each.recipe.criterion for name, each in FAMILIES.items()}, value=optimizers.family, else_=literal("")
    )
    named = (optimizers.workspace == workspace, optimizers.family == family, *nameable(optimizers))
    chosen = select(optimizers.criterion).where(*named, optimizers.own_tasks, optimizers.validation_score.is_not(None))
    own_first = case((optimizers.criterion == own, 0), else_=1)
    return chosen.order_by(own_first, optimizers.version.desc()).limit(1)


_AUTOMATIC = _OF_FAMILY.where(*nameable(_OPTIMIZERS))


def _best() -> Select[Any]:
    """The lowest score; where schedules stand for what has it, the one of these with the lowest."""
    every = OptimizerRow.__table__.alias().c
    criterion = compared_criterion(OptimizerRow.__table__.alias().c, bindparam("workspace"), bindparam("family"))
    lowest = (
        select(every.id)
        .where(
            *(every.workspace == bindparam("workspace"), every.family == bindparam("family"), *nameable(every)),
            *(every.own_tasks, every.validation_score.is_not(None), every.criterion == criterion.scalar_subquery()),
        )
        .order_by(every.validation_score, every.version)
        .limit(1)
        .subquery()
    )
    itself_last = case((_OPTIMIZERS.id == lowest.c.id, 1), else_=0)
    chosen = or_(_OPTIMIZERS.id == lowest.c.id, _OPTIMIZERS.stands_for == lowest.c.id)
    return _AUTOMATIC.where(chosen).order_by(itself_last, _OPTIMIZERS.validation_score, _OPTIMIZERS.version).limit(1)


_TRAINED = _AUTOMATIC.where(~_OPTIMIZERS.tuned, _OPTIMIZERS.stands_for.is_(None))
_RESERVED = {"latest": _TRAINED.order_by(_OPTIMIZERS.version.desc()).limit(1), "best": _best()}


def locate(session: Session, workspace: str, reference: str) -> Located:
    """Where the optimizer is. Raises OptimizerNotFound, which lists what there is."""
    family, separator, name = reference.partition("@")
    if separator:
        found = named(session, workspace, family, name)
    else:
        found = _first(session, _BY_ID, workspace=workspace, id=reference)
    if found is None:
        if (gone := _deleted(session, workspace, reference, family, name)) is not None:
            raise OptimizerNotFound(reference, f"It was deleted on {gone:%Y-%m-%d}. " + _available(session, workspace))
        if not separator:
            raise OptimizerNotFound(reference, _available(session, workspace))
        raise OptimizerNotFound(reference, _why_not(name) + _available(session, workspace, family, name))
    return found


def named(session: Session, workspace: str, family: str, name: str) -> Located | None:
    """What `<family>@<name>` stands for now; None where that is nothing."""
    if name in RESERVED:
        return _first(session, _RESERVED[name], workspace=workspace, family=family)
    if is_version(name):
        return _first(session, _BY_VERSION, workspace=workspace, family=family, name=int(name))
    return _first(session, _BY_ALIAS, workspace=workspace, family=family, name=name) if is_alias(name) else None


def is_version(name: str) -> bool:
    """Whether what stands behind the @ counts a version; it is an alias otherwise."""
    return _VERSION.fullmatch(name) is not None


def is_reference(text: str) -> bool:
    """Whether `text` has the form of an optimizer's id or of `<family>@<version or alias>`."""
    return (
        is_id("opt", text) or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}@[A-Za-z0-9_.-]{1,64}", text) is not None
    )


def _deleted(session: Session, workspace: str, reference: str, family: str, name: str) -> datetime | None:
    """When the optimizer of that id or version was deleted."""
    query = select(DeletedOptimizerRow.deleted_at).where(DeletedOptimizerRow.workspace == workspace)
    if is_version(name):
        query = query.where(DeletedOptimizerRow.family == family, DeletedOptimizerRow.version == int(name))
    elif name:
        return None
    else:
        query = query.where(DeletedOptimizerRow.id == reference)
    return session.scalar(query)


def _first(session: Session, statement: Select[Any], **values: Any) -> Located | None:
    found = session.execute(statement, values).first()
    return None if found is None else Located(*found)


def _why_not(name: str) -> str:
    if name in RESERVED or is_version(name):
        return ""
    if is_alias(name):
        return f"{name!r} is no alias of that family. "
    return f"{name!r} is no version (they count from 1) and no alias (latest, best, or one of yours). "


def _available(session: Session, workspace: str, family: str = "", name: str = "") -> str:
    counted = session.execute(
        select(OptimizerRow.family, func.count())
        .where(OptimizerRow.workspace == workspace)
        .group_by(OptimizerRow.family)
        .order_by(OptimizerRow.family)
    )
    counts = {name: count for name, count in counted}  # noqa: C416  (a row is no pair to mypy)
    # a family that exists was meant, whether it has optimizers or not
    known = [] if family in FAMILIES else [*counts, *FAMILIES]
    close = difflib.get_close_matches(family, known, n=1, cutoff=0.5)
    meant = f"Did you mean {close[0]}@{name}? " if close else ""
    if not counts:
        return f"{meant}None is registered yet: POST /jobs with a family trains the first."
    if family in counts:
        versions = session.scalars(
            select(OptimizerRow.version)
            .where(OptimizerRow.workspace == workspace, OptimizerRow.family == family)
            .order_by(OptimizerRow.version.desc())
            .limit(20)
        ).all()
        shown = ", ".join(f"{family}@{version}" for version in sorted(versions))
        more = " and older ones" if counts[family] > len(versions) else ""
        own = "".join(f", {family}@{alias}" for alias in _some_aliases(session, workspace, family))
        return f"There are {shown}{more}{own}{_reserved_names(session, workspace, family)}."
    shown = ", ".join(f"{each} ({count})" for each, count in counts.items())
    return f"{meant}Families with optimizers: {shown}. GET /optimizers lists them."


def _reserved_names(session: Session, workspace: str, family: str) -> str:
    if named(session, workspace, family, "latest") is None:
        return (
            f". None of them beats parameters that never move, so {family}@latest and {family}@best name none; "
            "train again with a lower recipe.meta_learning_rate"
        )
    return f", {family}@latest, and {family}@best once one has a validation score on the family's own tasks"


def _some_aliases(session: Session, workspace: str, family: str) -> list[str]:
    query = select(AliasRow.alias).where(AliasRow.workspace == workspace, AliasRow.family == family)
    return list(session.scalars(query.order_by(AliasRow.alias).limit(20)))
