"""The tasks of a declared family, with the data sets and the families that they name filled in."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from app.http.problems import FieldError, Problem, invalid_request, pointer_of
from app.jobs.overrides import partial
from app.jobs.resolve import changed, known_family, refused_at
from app.store.datasets import Datasets
from app.store.errors import DatasetNotFound
from app.store.families import DeclaredFamilies
from models.errors import DatasetRefused
from models.families import KINDS, MOST_MEMBERS, AugmentedSpec, Member, MixtureSpec, no_such_kind
from models.table_spec import Table, table_fields
from models.task_spec import TaskSpec


@dataclass(frozen=True)
class Workspace:
    """What names mean; None where there is nothing to name."""

    datasets: Datasets | None
    families: DeclaredFamilies | None


def declared_tasks(given: object, there: Workspace, within: tuple[str, ...] = ("tasks",)) -> TaskSpec:
    """within: where in the request the tasks are. Raises Problem `invalid_request`, `data_set_missing` and
    `unknown_family`."""
    if not isinstance(given, dict):
        raise _refused(within, "model_type", "send an object with the field `kind`")
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise _refused((*within, "kind"), "unknown_kind", no_such_kind(kind))
    spec = KINDS[kind].spec
    filled = dict(given)
    for name, own in table_fields(spec).items():
        if name in given:
            filled[name] = _table(given[name], there.datasets, own, (*within, name))
    if spec is AugmentedSpec and "tasks" in given:
        filled["tasks"] = declared_tasks(given["tasks"], there, (*within, "tasks"))
    if spec is MixtureSpec and isinstance(given.get("families"), list):
        at = (*within, "families")
        members = given["families"]
        if len(members) > MOST_MEMBERS:
            raise _refused(at, "too_long", f"{len(members)} families; send {MOST_MEMBERS} at most")
        filled["families"] = [_member(each, there, (*at, str(number))) for number, each in enumerate(members)]
    with refused_at(*within, model=spec):
        partial(spec).model_validate(filled)
        tasks = spec.model_validate(filled)
    for name in table_fields(spec):
        if there.datasets is not None and isinstance(getattr(tasks, name), Table):
            wrong = tasks.misfit(there.datasets.inputs(given[name]))
            if wrong is not None:
                raise _refused((*within, name), "unfitting_inputs", wrong)
    return tasks


def _member(given: object, there: Workspace, within: tuple[str, ...]) -> object:
    """One family of a mixture: of a name, with the fields that change, or of tasks that are written out."""
    if not isinstance(given, dict):
        return given  # which the spec refuses
    name, at = given.get("family", ""), (*within, "tasks")
    if not isinstance(name, str):
        raise _refused((*within, "family"), "string_type", "send a name of GET /families")
    if name:
        family = known_family(name, there.families, pointer_of((*within, "family")))
        changes = given.get("tasks", {})
        if not isinstance(changes, dict):
            raise _refused(at, "model_type", "send an object with the fields that change")
        tasks = changed(family, family.tasks, changes, at).tasks
    elif "tasks" not in given:
        words = "send `family`, a name of GET /families, or `tasks`, an object with `kind`"
        raise _refused((*within, "family"), "missing", words)
    else:
        tasks = declared_tasks(given["tasks"], there, at)
    with refused_at(*within, model=Member):
        return partial(Member).model_validate(given | {"tasks": tasks}).model_dump(exclude_unset=True) | {
            "tasks": tasks
        }


def _refused(within: tuple[str, ...], code: str, message: str) -> Problem:
    return invalid_request([FieldError(location="body", pointer=pointer_of(within), code=code, message=message)])


def _table(name: object, datasets: Datasets | None, own: tuple[str, ...], within: tuple[str, ...]) -> object:
    """What a spec holds of the data set of that name. own: names of the server's data sets that the field
    takes"""
    if isinstance(name, str) and name in own:
        return name
    pointer = pointer_of(within)
    if not isinstance(name, str):
        message = "send the name of one of your data sets, which GET /datasets lists"
        raise invalid_request([FieldError(location="body", pointer=pointer, code="dataset_name", message=message)])
    try:
        if datasets is None:
            raise DatasetNotFound(name)
        return datasets.table(name).model_dump()
    except DatasetRefused as error:
        wrong = FieldError(location="body", pointer=pointer, code="dataset_unusable", message=str(error))
        raise invalid_request([wrong]) from error
    except DatasetNotFound as error:
        there = [*own, *(datasets.names() if datasets is not None else [])]
        close = difflib.get_close_matches(name, there, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        message = (
            f"There is no data set {name!r} in this workspace.{meant} Bring it with "
            f"`gradsmith data add FILE --name {name}` or POST /datasets."
        )
        wrong = FieldError(location="body", pointer=pointer, code="data_set_missing", message=message)
        raise Problem("data_set_missing", message, errors=[wrong]) from error
