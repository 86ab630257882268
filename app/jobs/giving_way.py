"""Defaults that give way: a field of the family's recipe that a request does not name, and that does not fit what it
names, is as if the recipe had it not. What a request names is refused in words instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.spec import Recipe


def fitting(recipe: Recipe, given: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """`given`, with what the recipe's other fields change to beside it.

    recipe: the family's; given: fields of a request's recipe; processes: that the job has
    """

    def value(name: str) -> Any:
        return given.get(name, getattr(recipe, name))

    changes: dict[str, Any] = {}
    if processes > 1:
        changes["pool"] = 1  # a pool is trained in one process
    if {"starts", "start_steps"}.isdisjoint(given) and recipe.starts * recipe.start_steps >= value("meta_steps"):
        changes["starts"] = 1
    shortest, horizon, unroll = recipe.shortest_horizon, value("horizon"), value("unroll_steps")
    if shortest is not None and isinstance(horizon, int) and isinstance(unroll, int) and unroll > 0:
        changes |= {"shortest_horizon": None} if shortest > horizon or shortest % unroll else {}
    if "horizon" in given:
        changes["validation_horizons"] = ()  # the family's were chosen for its own horizon
    if given.get("rules"):
        changes["mixture"] = ()
    return {**changes, **given}
