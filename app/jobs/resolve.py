"""Resolves a request into a spec without defaults, or refuses it and says why."""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from app.http.problems import FieldError, Problem, field_errors, invalid_request
from app.jobs.overrides import partial
from app.jobs.schemas import EvaluateRequest, MetaTrainRequest
from app.store.errors import OptimizerNotFound
from app.store.jobs import JobRepository
from app.store.references import REFERENCE_FORMS, is_reference
from app.store.registry import Registry
from app.store.tables import OptimizerRow
from models.families import FAMILIES, problems_in_words
from models.machine import usable_memory_bytes
from models.memory import follow_up_estimate_bytes, memory_estimate_bytes
from models.spec import (
    DEVICE_OF,
    BackendName,
    EvaluateSpec,
    EvaluationPlan,
    FamilySpec,
    MetaTrainSpec,
    Recipe,
    Resources,
    Spec,
    overridden,
    with_tasks,
)
from models.task_spec import TaskSpec


def meta_train_spec(request: MetaTrainRequest, backend: BackendName = "auto") -> MetaTrainSpec:
    """backend: what a job runs on that names none. Raises Problem `unknown_family` or `invalid_request`."""
    family = known_family(request.family)
    family = _changed(family, family.tasks, request.tasks)
    recipe = _overridden(family.recipe, request.recipe, "recipe")
    assert isinstance(recipe, Recipe)
    with _refused_at("resources", "processes"):
        return MetaTrainSpec(
            family=family,
            seed=_seed(request.seed),
            recipe=recipe,
            evaluate=request.evaluate,
            # what was trained for a horizon is measured over it, unless the request says otherwise
            evaluation=_plan(family, request.evaluation, recipe.horizon),
            resources=_resources(request.resources, backend),
        )


def evaluate_spec(
    request: EvaluateRequest, registry: Registry, jobs: JobRepository, backend: BackendName = "auto"
) -> EvaluateSpec:
    """backend: as for `meta_train_spec`. Raises Problem `unknown_optimizer`, `unknown_family` or `invalid_request`."""
    optimizer = known_optimizer(request.optimizer, registry)
    training = jobs.get(optimizer.job).spec
    family = known_family(request.family or optimizer.family)
    tasks = family.tasks
    if request.family is None:
        with _refused_at("tasks"):  # where the family's plug-in has another version by now
            tasks = type(tasks).model_validate(training["family"]["tasks"])
    family = _changed(family, tasks, request.tasks)
    trained = Recipe.model_validate(training["recipe"])
    with _refused_at("resources", "processes"):
        return EvaluateSpec(
            optimizer=optimizer.id,
            rule=trained.rule,
            rules=trained.rules,
            family=family,
            seed=_seed(request.seed),
            evaluation=_plan(family, request.evaluation, trained.horizon),
            resources=_resources(request.resources, backend),
        )


def known_family(name: str) -> FamilySpec:
    """Raises Problem `unknown_family`, which says what there is and what may have been meant."""
    family = FAMILIES.get(name)
    if family is not None:
        return family
    detail, suggestion = no_such_family(name)
    error = FieldError(location="body", pointer="/family", code="unknown_family", message=detail)
    raise Problem("unknown_family", detail, errors=[error], suggestion=suggestion)


def no_such_family(name: str) -> tuple[str, str | None]:
    """What to say of a name that no family has, and which one may have been meant."""
    close = difflib.get_close_matches(name, FAMILIES, n=1, cutoff=0.5)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    detail = f"There is no family {name!r}.{meant} Families: {', '.join(FAMILIES)}.{problems_in_words()}"
    return detail, close[0] if close else None


def _changed(family: FamilySpec, tasks: TaskSpec, changes: dict[str, Any]) -> FamilySpec:
    """The family with `tasks`, some fields of which are changed. Raises Problem `invalid_request`."""
    if changes:
        strict = partial(type(tasks))
        with _refused_at("tasks", model=strict):
            strict.model_validate(changes)
            tasks = overridden(tasks, changes)
    return with_tasks(family, tasks) if tasks != family.tasks else family


@cache
def _own_memory_bytes() -> int:
    """This machine's: a container's limits do not change while its process runs, and reading them is no small part of
    a POST."""
    return usable_memory_bytes()


def refuse_too_large(spec: MetaTrainSpec | EvaluateSpec, worker_memory_bytes: int | None) -> None:
    """Raises Problem `job_too_large` when a worker with this much memory (default: this machine's) cannot hold the job,
    or the evaluation that follows it."""
    estimate = max(memory_estimate_bytes(spec), follow_up_estimate_bytes(spec))
    limit = worker_memory_bytes if worker_memory_bytes is not None else _own_memory_bytes()
    if estimate <= limit:
        return
    several = " or resources.processes" if isinstance(spec, MetaTrainSpec) and spec.resources.processes > 1 else ""
    raise Problem(
        "job_too_large",
        f"This job needs about {estimate / 2**30:,.1f} GiB of memory and a worker has {limit / 2**30:,.1f} GiB. "
        f"Lower recipe.tasks, recipe.validation_tasks, evaluation.test_tasks or recipe.unroll_steps{several}.",
        memory_estimate_bytes=estimate,
        memory_limit_bytes=limit,
    )


def known_optimizer(reference: str, registry: Registry) -> OptimizerRow:
    """What a body's `optimizer` names. Raises Problem `unknown_optimizer`, which says what there is."""
    try:
        if not is_reference(reference):
            raise OptimizerNotFound(reference, REFERENCE_FORMS)
        return registry.resolve(reference)
    except OptimizerNotFound as error:
        wrong = FieldError(location="body", pointer="/optimizer", code="unknown_optimizer", message=str(error))
        raise Problem("unknown_optimizer", str(error), errors=[wrong]) from error


def _seed(given: int | None) -> int:
    # 53 bits survive JavaScript's numbers
    return secrets.randbits(53) if given is None else given


def _plan(family: FamilySpec, changes: BaseModel, horizon: int) -> EvaluationPlan:
    plan = _overridden(family.evaluation.model_copy(update={"horizon": horizon}), changes, "evaluation")
    assert isinstance(plan, EvaluationPlan)
    return plan


def _resources(changes: BaseModel, backend: BackendName) -> Resources:
    named = changes.model_dump(exclude_unset=True)
    # The service's own choice is no reason to refuse a job for a device that it does not run on.
    fits = named.get("device", "cpu") == DEVICE_OF.get(backend, named.get("device", "cpu"))
    resources = _overridden(Resources(backend=backend) if fits else Resources(), changes, "resources")
    assert isinstance(resources, Resources)
    return resources


def _overridden(default: Spec, changes: BaseModel, within: str) -> Any:
    """What no field can know alone, such as a horizon that its windows do not fill, is found here."""
    with _refused_at(within):
        return overridden(default, changes.model_dump(exclude_unset=True))


@contextmanager
def _refused_at(*within: str, model: type[BaseModel] | None = None) -> Iterator[None]:
    """What pydantic refuses, as `invalid_request`. within: where in the request that is; model: what should be there"""
    try:
        yield
    except ValidationError as error:
        raise invalid_request(field_errors(error.errors(include_url=False), within=within, model=model)) from error
