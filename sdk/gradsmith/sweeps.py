"""`client.sweeps`: the search for the best recipe."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import quote

from gradsmith.resources import given, parsed
from gradsmith.transport import Transport
from gradsmith.types import Job


@dataclass(frozen=True)
class Trial:
    """One training of a sweep.

    number: counts from 0
    rung: of successive halving, from 0; 0 without it
    values: what was swept, such as "recipe.meta_steps", with its value here
    job: the id of the training
    score: its validation score, lower is better; None where there is none
    best_so_far: the lowest score up to this trial, by number
    seconds: that its last attempt ran; None until it has ended
    """

    number: int
    rung: int
    values: dict[str, Any]
    job: str
    status: str
    reason: str | None
    optimizer: str | None
    score: float | None
    best_so_far: float | None
    seconds: float | None


@dataclass(frozen=True)
class Search:
    """What a sweep has tried.

    criterion: what the scores are of: the same validation tasks for all trials
    total: how many trials there will be
    best: the best so far; the sweep's `optimizer` is its
    fields: the names of what was swept
    """

    job: str
    status: str
    criterion: str
    total: int
    best: Trial | None
    fields: list[str]
    trials: list[Trial]
    raw: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Search:
        names = [each.name for each in fields(Trial)]
        trials = [Trial(**{name: each.get(name) for name in names}) for each in raw["trials"]]
        return cls(
            job=raw["job"],
            status=raw["status"],
            criterion=raw["criterion"],
            total=raw["total"],
            best=next((trial for trial in trials if trial.number == raw["best"]), None),
            fields=[each["name"] for each in raw["fields"]],
            trials=trials,
            raw=raw,
        )


class Sweeps:
    """A sweep is a job: `client.jobs` waits for it, cancels it with all its children, and retries it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

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
    ) -> Job:
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
        return parsed(self._transport.request("POST", "/jobs", body=body, headers=headers), Job.from_json)

    def get(self, sweep: str | Job) -> Search:
        """What it has tried, and which is the best so far. Raises NotFound, also for another kind of job."""
        return parsed(self._transport.request("GET", _path(sweep)), Search.from_json)

    def picture(self, sweep: str | Job, image_format: str = "png") -> bytes:
        """Scores by trial with the best so far, and against each swept field. image_format: "png" or "svg"."""
        return self._transport.request("GET", f"{_path(sweep)}.{image_format}").content


def _path(sweep: str | Job) -> str:
    return "/jobs/" + quote(sweep.id if isinstance(sweep, Job) else sweep, safe="") + "/search"
