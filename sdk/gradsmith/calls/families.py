"""What can be trained on."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from gradsmith.answers import items, record
from gradsmith.calls.base import M, Resource, call, given, listing, path
from gradsmith.programs import Call, Items
from gradsmith.types import Family, FamilyPreview


class Families(Resource[M]):
    """`client.families`: what can be trained on."""

    @listing
    def list(self) -> Call[Items[Family]]:
        """All families."""
        return Call("GET", "/families", items(Family.from_json))

    @call
    def get(self, name: str) -> Call[Family]:
        """One family; `.raw["schemas"]` holds the JSON schemas of its spec. Raises NotFound."""
        return Call("GET", path("families", name), record(Family.from_json))

    @call
    def create(
        self,
        name: str,
        tasks: Mapping[str, Any],
        *,
        title: str | None = None,
        description: str | None = None,
        recipe: Mapping[str, Any] | None = None,
        evaluation: Mapping[str, Any] | None = None,
    ) -> Call[Family]:
        """Declare a family of your workspace: its tasks are of a kind that the server has, such as "expression".

        A family never changes: the same call again returns it, another one with its name raises Conflict.
        recipe, evaluation: what differs from what is usual for the kind
        """
        body = given(
            {
                "name": name, "tasks": tasks, "title": title, "description": description, "recipe": recipe,
                "evaluation": evaluation,
            }
        )  # fmt: skip
        return Call("POST", "/families", record(Family.from_json), body=body)

    @call
    def preview(
        self,
        name: str,
        *,
        tasks: Mapping[str, Any] | None = None,
        seed: int | None = None,
        recipe: Mapping[str, Any] | None = None,
        evaluation: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
    ) -> Call[FamilyPreview]:
        """Start a preview: a worker tunes Adam, draws its curve, and times a few steps of a training and its
        evaluation, so that `client.jobs.price` knows their seconds.

        The arguments are those of the training that is priced, as in `client.jobs.create`.
        Raises NotFound, InvalidRequest, and RateLimited when your quota is full.
        """
        body = given({"tasks": tasks, "seed": seed, "recipe": recipe, "evaluation": evaluation, "resources": resources})
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        where = path("families", name) + "/preview"
        return Call("POST", where, record(FamilyPreview.from_json), body=body, headers=headers)
