"""The search for the best recipe."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx

from gradsmith.answers import record
from gradsmith.calls.base import M, Resource, call, given, path
from gradsmith.programs import Call
from gradsmith.sweeps import Search
from gradsmith.types import Job, Price


class Sweeps(Resource[M]):
    """`client.sweeps`. A sweep is a job: `client.jobs` waits for it, cancels it with all its children, and retries it;
    `client.jobs.list(sweep=...)` has its children."""

    @call
    def create(
        self,
        family: str,
        recipe: Mapping[str, Any],
        *,
        sampler: str | None = None,
        trials: int | None = None,
        parallel: int | None = None,
        halving: Mapping[str, int] | None = None,
        tasks: Mapping[str, Any] | None = None,
        seed: int | Sequence[int] | None = None,
        evaluate: bool | None = None,
        evaluation: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Call[Job]:
        """Start a sweep and return at once: `create("quadratic", {"meta_learning_rate": [0.001, 0.01]})`.

        recipe: values that differ from the family's recipe. A list in the place of a value is swept, and so is a range
            such as {"low": 0.001, "high": 0.1, "log": True}
        sampler: "grid" (the default for lists), "random" (for ranges) or "tpe"
        trials: how many there are, for random and tpe; default 20
        parallel: most children that wait or run at a time; default 4
        halving: {"rungs": 3, "reduction": 3} for successive halving
        seed: of the search and of every child; a list is swept
        evaluate: False: do not measure the best child's optimizer against tuned baselines afterwards
        The others are those of `client.jobs.create`.

        Raises InvalidRequest, whose `.errors` name the fields.
        """
        body = given(
            {
                "kind": "sweep", "family": family, "recipe": recipe, "sampler": sampler, "trials": trials,
                "parallel": parallel, "halving": halving, "tasks": tasks, "seed": seed, "evaluate": evaluate,
                "evaluation": evaluation, "resources": resources, "metadata": metadata,
            }
        )  # fmt: skip
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return Call("POST", "/jobs", record(Job.from_json), body=body, headers=headers)

    @call
    def price(
        self,
        family: str,
        recipe: Mapping[str, Any],
        *,
        sampler: str | None = None,
        trials: int | None = None,
        parallel: int | None = None,
        halving: Mapping[str, int] | None = None,
        tasks: Mapping[str, Any] | None = None,
        seed: int | Sequence[int] | None = None,
        evaluate: bool | None = None,
        evaluation: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Call[Price]:
        """Tell what `create` with the same arguments would need: the memory of the largest trial, and the seconds of
        one worker for all trials and the evaluation of the best. Nothing is queued.

        Raises as `create` does.
        """
        body = given(
            {
                "kind": "sweep", "family": family, "recipe": recipe, "sampler": sampler, "trials": trials,
                "parallel": parallel, "halving": halving, "tasks": tasks, "seed": seed, "evaluate": evaluate,
                "evaluation": evaluation, "resources": resources, "metadata": metadata,
            }
        )  # fmt: skip
        return Call("POST", "/jobs", record(Price.from_json), params={"dry_run": "true"}, body=body)

    @call
    def get(self, sweep: str | Job) -> Call[Search]:
        """What it has tried, and which is the best so far. Raises NotFound, also for another kind of job."""
        return Call("GET", _path(sweep) + "/search", record(Search.from_json))

    @call
    def picture(self, sweep: str | Job, image_format: Literal["png", "svg"] = "png") -> Call[bytes]:
        """Scores by trial with the best so far, and against each swept field."""
        return Call("GET", f"{_path(sweep)}/search.{image_format}", _bytes, accept="*/*")


def _path(sweep: str | Job) -> str:
    return path("jobs", sweep.id if isinstance(sweep, Job) else sweep)


def _bytes(response: httpx.Response) -> bytes:
    return response.content
