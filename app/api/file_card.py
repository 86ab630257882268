"""What a weights file says of its optimizer once it has left: what `LearnedOptimizer` warns by, and what an upload to
another server brings along."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from app.api.schemas import EvaluationSummary, Optimizer
from models.spec import FamilySpec, Recipe


def file_card(document: Optimizer, made_with: dict[str, Any]) -> dict[str, Any]:
    """made_with: the family, recipe and seed. What this version cannot read of them is left out."""
    training = {name: value for name, value in document.card.get("training", {}).items() if name != "runtime"}
    return {
        "reference": document.reference,
        "id": document.id,
        "family": document.family,
        "tasks": made_with["family"]["tasks"],
        "overrides": document.overrides,
        "coordinates": _coordinates(made_with["family"]),
        "seed": made_with["seed"],
        "recipe": made_with["recipe"],
        **_of_recipe(made_with["recipe"]),
        "training": training,
        "validation_score": document.validation_score,
        "automatic": document.automatic,
        "tuned": document.tuned,
        "stands_for": document.stands_for,
        "uploaded": None if document.uploaded is None else document.uploaded.model_dump(mode="json"),
        "evaluations": [_told(each) for each in document.evaluations],
        "created_at": document.created_at.isoformat(),
    }


def _of_recipe(stored: dict[str, Any]) -> dict[str, Any]:
    try:
        recipe = Recipe.model_validate(stored)
    except ValidationError:
        return {}
    horizon = max(recipe.horizon, *recipe.horizons_validated)
    return {"horizon": horizon, "objective": recipe.objective, "criterion": recipe.criterion}


def _coordinates(family: dict[str, Any]) -> int | None:
    try:
        return FamilySpec.model_validate(family).tasks.coordinates_per_task
    except ValidationError:
        return None


def _told(evaluation: EvaluationSummary) -> dict[str, Any]:
    """Its verdicts, and the names of the baselines that they are against."""
    best = evaluation.best_baseline
    return {
        "family": evaluation.family,
        "overrides": evaluation.overrides,
        "verdict": evaluation.verdict,
        "verdict_in_seconds": evaluation.verdict_in_seconds,
        "best_baseline": {name: best[name].get("baseline") for name in ("final", "area") if name in best},
        "decides": evaluation.decides,
        "created_at": evaluation.created_at.isoformat(),
    }
