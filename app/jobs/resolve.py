"""Parts of a request that several kinds of jobs have: each filled in, or refused with the reason."""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ValidationError

from app.http.problems import FieldError, Problem, field_errors, invalid_request, pointer_of
from app.jobs.overrides import partial
from app.store.errors import OptimizerNotFound
from app.store.families import DeclaredFamilies
from app.store.references import REFERENCE_FORMS, is_reference
from app.store.registry import Registry
from app.store.tables import OptimizerRow
from models.families import FAMILIES, problems_in_words
from models.spec import (
    DEVICE_OF,
    IDLE_RULE,
    NO_ROOM,
    UNSUITED_BACKEND,
    BackendName,
    EvaluationPlan,
    FamilySpec,
    PreviewPlan,
    Recipe,
    Resources,
    Spec,
    overridden,
    unfitting,
    with_tasks,
)
from models.table_spec import table_fields
from models.task_spec import TaskSpec

_SHOWN = 60  # names in an error


def found_family(name: str, declared: DeclaredFamilies | None) -> FamilySpec | None:
    """The family of that name: the server's own, else the one that the workspace declared. declared: None where
    nobody asks the database"""
    family = FAMILIES.get(name)
    return family if family is not None or declared is None else declared.find(name)


def known_family(name: str, declared: DeclaredFamilies | None, pointer: str = "/family") -> FamilySpec:
    """Raises Problem `unknown_family`, which says what there is and what may have been meant. pointer: where the name
    is in the body"""
    family = found_family(name, declared)
    if family is not None:
        return family
    detail, suggestion = no_such_family(name, declared)
    error = FieldError(location="body", pointer=pointer, code="unknown_family", message=detail)
    raise Problem("unknown_family", detail, errors=[error], suggestion=suggestion)


def no_such_family(name: str, declared: DeclaredFamilies | None) -> tuple[str, str | None]:
    """What to say of a name that no family has, and which one may have been meant."""
    names = [*FAMILIES, *(declared.names() if declared else [])]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    detail = (
        f"There is no family {name!r}.{meant} Families: {', '.join(names[:_SHOWN])}"
        f"{' and more' if len(names) > _SHOWN else ''}. POST /families declares one of your own.{problems_in_words()}"
    )
    return detail, close[0] if close else None


def changed(
    family: FamilySpec, tasks: TaskSpec, changes: dict[str, Any], within: tuple[str, ...] = ("tasks",)
) -> FamilySpec:
    """The family with `tasks`, some fields of which are changed. Raises Problem `invalid_request`. within: where in the
    body the changes are"""
    if changes:
        _refuse_tables(tasks, changes, within)
        strict = partial(type(tasks))
        with refused_at(*within, model=strict):
            strict.model_validate(changes)
            asked: TaskSpec = overridden(tasks, changes)
        if (narrowed := asked.narrowed(tasks)) is not None:
            field, message = narrowed
            pointer = pointer_of((*within, field))
            raise invalid_request([FieldError(location="body", pointer=pointer, code="narrowed", message=message)])
        tasks = asked
    return with_tasks(family, tasks) if tasks != family.tasks else family


def _refuse_tables(tasks: TaskSpec, changes: dict[str, Any], within: tuple[str, ...]) -> None:
    """A job keeps its family's tables: whoever knows the SHA-256 of another workspace's file must not read it so."""
    for field in sorted(tasks.nested & changes.keys()):
        message = "a job keeps the families that its family is made of; declare another family with POST /families"
        raise invalid_request(
            [FieldError(location="body", pointer=pointer_of((*within, field)), code="nested", message=message)]
        )
    for field, own in table_fields(type(tasks)).items():
        given = changes.get(field)
        if field not in changes or (isinstance(given, str) and given in own):
            continue
        message = "a job keeps the table of its family; declare another family with POST /families"
        if own:
            close = difflib.get_close_matches(str(given), own, n=1)
            meant = f" (did you mean {close[0]!r}?)" if close else ""
            message = (
                f"a job may name {', '.join(own)} here{meant}; for a table of yours declare a family, POST /families"
            )
        pointer = "/" + "/".join((*within, field))
        raise invalid_request([FieldError(location="body", pointer=pointer, code="dataset", message=message)])


def known_optimizer(reference: str, registry: Registry) -> OptimizerRow:
    """What a body's `optimizer` names. Raises Problem `unknown_optimizer`, which says what there is."""
    try:
        if not is_reference(reference):
            raise OptimizerNotFound(reference, REFERENCE_FORMS)
        return registry.resolve(reference)
    except OptimizerNotFound as error:
        wrong = FieldError(location="body", pointer="/optimizer", code="unknown_optimizer", message=str(error))
        raise Problem("unknown_optimizer", str(error), errors=[wrong]) from error


def seed_of(given: int | None) -> int:
    # 53 bits survive JavaScript's numbers
    return secrets.randbits(53) if given is None else given


def plan_of(family: FamilySpec, changes: BaseModel, recipe: Recipe, horizon: int) -> EvaluationPlan:
    """What a rule was trained for is what it is measured by, on the same kind of data, unless the request says
    otherwise. Raises Problem `invalid_request`."""
    usual = {"horizon": horizon, "on": recipe.on if family.tasks.parts_data else "training"}
    plan = laid_over(family.evaluation.model_copy(update=usual), changes, "evaluation")
    assert isinstance(plan, EvaluationPlan)
    require_fitting(plan, family)
    return plan


def require_fitting(plan: EvaluationPlan | PreviewPlan, family: FamilySpec) -> None:
    """Raises Problem `invalid_request` where the plan cannot be carried out on the family's tasks."""
    if (found := unfitting(plan, family.tasks, family.name)) is not None:
        field, message = found
        wrong = FieldError(location="body", pointer=f"/evaluation/{field}", code="unfitting_plan", message=message)
        raise invalid_request([wrong])


def resources_of(changes: BaseModel, backend: BackendName) -> Resources:
    named = changes.model_dump(exclude_unset=True)
    # The service's own choice is no reason to refuse a job for a device that it does not run on.
    fits = named.get("device", "cpu") == DEVICE_OF.get(backend, named.get("device", "cpu"))
    resources = laid_over(Resources(backend=backend) if fits else Resources(), changes, "resources")
    assert isinstance(resources, Resources)
    return resources


def laid_over(default: Spec, changes: BaseModel | dict[str, Any], within: str) -> Any:
    """What no field can know alone, such as a horizon that its windows do not fill, is found here."""
    given = changes if isinstance(changes, dict) else changes.model_dump(exclude_unset=True)
    if not given:
        return default  # which has been validated
    with refused_at(within):
        return overridden(default, given)


_PLACES = {IDLE_RULE: ("recipe", "rules"), NO_ROOM: ("recipe", "rule"), UNSUITED_BACKEND: ("resources",)}
"""Where in a request what only the whole spec can refuse is."""


@contextmanager
def refused_at(*within: str, model: type[BaseModel] | None = None) -> Iterator[None]:
    """What pydantic refuses, as `invalid_request`. within: where in the request that is; model: what should be there"""
    try:
        yield
    except ValidationError as error:
        errors = error.errors(include_url=False)
        place = _PLACES.get(errors[0]["type"], within)
        raise invalid_request(field_errors(errors, within=place, model=model)) from error
