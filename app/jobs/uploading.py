"""What an uploaded weights file is on this server: its family, and what it was made with as far as its card says so.

Nothing that a card says is believed where it matters: the family and its tasks are those of this server, and the score
by which `best` compares comes from an evaluation here.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.http.fields import Name, storable_json
from app.http.problems import FieldError, Problem
from app.jobs.resolve import changed, found_family, no_such_family
from app.store.families import DeclaredFamilies
from gradsmith.rules.weight_shapes import members
from gradsmith.rules.weights_file import WeightsFile
from models.spec import REST, FamilySpec, Recipe


class Spent(BaseModel):
    seconds: float = Field(ge=0, allow_inf_nan=False)
    gradient_evaluations: int = Field(0, ge=0)


class Cost(BaseModel):
    training: Spent
    selection: Spent


class Training(BaseModel):
    """What training recorded of itself."""

    model_config = ConfigDict(extra="allow")

    cost: Cost | None = None


class FileCard(BaseModel):
    """The parts of a file's card that are read. They are claims of whoever wrote the file."""

    family: Name | None = None
    reference: Name | None = None
    overrides: dict[str, Any] = {}
    seed: int | None = Field(None, ge=0, lt=2**63)
    recipe: dict[str, Any] | None = None
    training: Training = Training()
    validation_score: float | None = Field(None, allow_inf_nan=False)
    evaluations: list[dict[str, Any]] = Field([], max_length=100)


class Elsewhere(BaseModel):
    """card: as the registry keeps it; made_with: the family, recipe and seed that an evaluation asks for; claims: what
    was measured elsewhere"""

    family: str
    card: dict[str, Any]
    made_with: dict[str, Any]
    claims: dict[str, Any]


def elsewhere(file: WeightsFile, family: str | None, declared: DeclaredFamilies) -> Elsewhere:
    """family: the caller's choice; default: what the file says. Raises Problem `optimizer_refused`, `unknown_family`"""
    told = _card_of(file)
    chosen = _family(told, family, declared)
    own = told.family in (None, chosen.name)
    try:
        chosen = changed(chosen, chosen.tasks, told.overrides if own else {})
    except Problem as problem:
        raise _refused(f"the tasks that its card names do not fit {chosen.name} here: {problem.detail}") from problem
    recipe = _recipe(file, told.recipe if own else None, chosen)
    seed = told.seed if told.seed is not None and own else 0
    training = told.training.model_dump(mode="json", exclude_none=True)
    its, trained = chosen.model_dump(mode="json"), recipe.model_dump(mode="json")
    card = {
        "family": chosen.name,
        "tasks": its["tasks"],
        "overrides": chosen.overrides,
        "seed": seed,
        "horizon": recipe.horizon,
        "recipe": trained,
        "training": training if own else {},
    }
    claims = told.model_dump(
        mode="json", include={"reference", "family", "validation_score", "evaluations"}, exclude_none=True
    )
    claims["recipe_told"] = own and told.recipe is not None
    made_with = {"family": its, "recipe": trained, "seed": seed}
    return Elsewhere(family=chosen.name, card=card, made_with=made_with, claims=claims)


def _card_of(file: WeightsFile) -> FileCard:
    given = file.card if file.card is not None else {"family": file.extra.get("family")}
    try:
        storable_json(given)
        return FileCard.model_validate(given)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = ".".join(map(str, wrong["loc"]))
        raise _refused(f"its card cannot be read: {place} {wrong['msg'][:200]}; fetch it again") from error
    except ValueError as error:
        raise _refused(f"its card cannot be kept: {error}") from error


def _family(told: FileCard, family: str | None, declared: DeclaredFamilies) -> FamilySpec:
    name = family if family is not None else told.family
    if name is None:
        raise _refused("it does not say which family it is for; send ?family=NAME")
    found = found_family(name, declared)
    if found is None:
        detail, suggestion = no_such_family(name, declared)
        if family is None:
            detail = f"The file is for a family that is not here; declare it first, or send ?family=NAME. {detail}"
        error = FieldError(location="query", pointer="/family", code="unknown_family", message=detail)
        raise Problem("unknown_family", detail, errors=[error], suggestion=suggestion)
    return found


def _recipe(file: WeightsFile, told: dict[str, Any] | None, family: FamilySpec) -> Recipe:
    """What it was trained with as its card says, else the family's recipe with its rule. Without a mixture: it is
    scored here on one family."""
    rules = members(file.rule)
    if told is None:
        plain = {pattern: config.plain() for pattern, config in rules.items()}
        usual = family.recipe.model_dump(mode="json")
        rest = plain.pop(REST, usual["rule"])
        return Recipe.model_validate(
            {**usual, "rule": rest, "rules": plain, "mixture": [], "sampled_coordinates": None}
        )
    try:
        recipe = Recipe.model_validate({**told, "mixture": []})
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = ".".join(map(str, wrong["loc"]))
        raise _refused(
            f"its card has a recipe that this server cannot read: {place}: {wrong['msg'][:200]}; send the file without "
            "its card, which GET /optimizers/<id>/weights gives"
        ) from error
    known = {REST: recipe.rule, **recipe.rules}
    for pattern, config in rules.items():
        if pattern not in known or known[pattern].config.plain() != config.plain():
            raise _refused(
                f"its card is that of another optimizer: the rule for {pattern!r} is {config.in_words()} in the file, "
                f"and {known[pattern].config.in_words() if pattern in known else 'none'} in the recipe of the card"
            )
    return recipe


def _refused(why: str) -> Problem:
    return Problem("optimizer_refused", f"The weights file cannot be used: {why}.")
