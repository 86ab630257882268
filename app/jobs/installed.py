"""What an optimizer was trained with, where all that it needs is still installed on this server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from app.http.problems import FieldError, Problem
from app.jobs.resolve import found_family
from app.store.families import DeclaredFamilies
from models.families import FAMILIES, problems_in_words
from models.spec import FamilySpec, Recipe
from models.task_spec import TaskSpec


def trained_on(optimizer: str, stored: Mapping[str, Any], declared: DeclaredFamilies) -> tuple[FamilySpec, TaskSpec]:
    """The family that an optimizer was trained on as it is here, and the tasks that it was trained on.

    stored: the family in the spec of its training. Raises Problem `not_installed`.
    """
    name, plugin = stored["name"], stored.get("plugin")
    family = found_family(name, declared)
    if family is None:
        source = f"the plug-in {plugin}" if plugin else "another version of Gradsmith"
        raise _not_installed(
            f"{optimizer} was trained on {name!r}, a family of {source}, which this server does not have. Install it "
            f"here and for the workers, or send a family that is here: {', '.join(FAMILIES)}.{problems_in_words()}"
        )
    try:
        return family, type(family.tasks).model_validate(stored["tasks"])
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise _not_installed(
            f"{optimizer} was trained on tasks of {name!r} {_made_by(plugin)}, and they do not fit {name!r} "
            f"{_made_by(family.plugin)}, which this server has: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}. "
            f"Install that version, or send the family {name!r}, to measure on its own tasks."
        ) from error


def recipe_of(optimizer: str, stored: Mapping[str, Any]) -> Recipe:
    """The recipe that an optimizer was trained with. Raises Problem `not_installed` where its rule is not known here.

    stored: the recipe in the spec of its training
    """
    try:
        return Recipe.model_validate(stored)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise _not_installed(
            f"This server cannot run the rule of {optimizer}, which another version of Gradsmith trained: "
            f"{'.'.join(map(str, wrong['loc']))} is {wrong['input']!r} ({wrong['msg']}). Install that version here and "
            f"for the workers, or send another optimizer."
        ) from error


def _made_by(plugin: str | None) -> str:
    return f"as {plugin} makes it" if plugin else "as Gradsmith makes it"


def _not_installed(detail: str) -> Problem:
    wrong = FieldError(location="body", pointer="/optimizer", code="not_installed", message=detail)
    return Problem("not_installed", detail, errors=[wrong])
