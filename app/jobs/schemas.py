"""What goes over the wire of a job. Field names are the user's."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, Field, Strict

from app.http.fields import Labels, Name, Request, Seed
from app.jobs.overrides import partial
from app.store.tables import JOB_STATUSES
from models.spec import EvaluationPlan, Recipe, Resources

if TYPE_CHECKING:  # classes made at run time have no name that a type checker can use
    RecipeOverrides: TypeAlias = BaseModel
    EvaluationPlanOverrides: TypeAlias = BaseModel
    ResourcesOverrides: TypeAlias = BaseModel
else:
    RecipeOverrides = partial(Recipe)
    EvaluationPlanOverrides = partial(EvaluationPlan)
    ResourcesOverrides = partial(Resources)

JobStatus = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
JobKind = Literal["meta_train", "evaluate"]
assert JobStatus.__args__ == JOB_STATUSES  # type: ignore[attr-defined]


def _refuse_what_is_no_object(value: Any) -> Any:
    """In its own words: who sends a number here means another field."""
    if isinstance(value, dict):
        return value
    raise ValueError(
        'send a JSON object with the fields of the family\'s tasks that change, such as {"hidden": [16]}; how many '
        "tasks are trained side by side is recipe.tasks"
    )


TaskOverrides = Annotated[
    dict[str, Any],
    BeforeValidator(_refuse_what_is_no_object),
    Field(
        description="Fields of the family's tasks that change, such as `hidden` of `digits-mlp`. Their schema is "
        "`schemas.tasks` of `GET /families/{name}`."
    ),
]


class MetaTrainRequest(Request):
    """Train a rule on a family. What is left out comes from the family's recipe."""

    kind: Literal["meta_train"]
    family: Name = Field(description="A name of GET /families.")
    tasks: TaskOverrides = Field(default_factory=dict)
    seed: Seed | None = Field(None, description="Default: a fresh random one, recorded in the job.")
    recipe: RecipeOverrides = Field(default_factory=RecipeOverrides)
    evaluate: Annotated[bool, Strict()] = Field(
        True, description="Measure the result against tuned baselines afterwards, by an `evaluate` job of its own."
    )
    evaluation: EvaluationPlanOverrides = Field(default_factory=EvaluationPlanOverrides)
    resources: ResourcesOverrides = Field(default_factory=ResourcesOverrides)
    metadata: Labels = Field(default_factory=dict, description="Your own labels; GET /jobs filters by them.")


class EvaluateRequest(Request):
    """Measure an optimizer of the registry against tuned baselines on held-out tasks."""

    kind: Literal["evaluate"]
    optimizer: Name = Field(description="An id, `<family>@<version>` or `<family>@<alias>`, such as `quadratic@best`.")
    family: Name | None = Field(
        None, description="Default: the family that the optimizer was trained on, with the tasks of its training."
    )
    tasks: TaskOverrides = Field(default_factory=dict)
    seed: Seed | None = Field(None, description="Default: a fresh random one, recorded in the job.")
    evaluation: EvaluationPlanOverrides = Field(default_factory=EvaluationPlanOverrides)
    resources: ResourcesOverrides = Field(default_factory=ResourcesOverrides)
    metadata: Labels = Field(default_factory=dict, description="Your own labels; GET /jobs filters by them.")


JobRequest = Annotated[MetaTrainRequest | EvaluateRequest, Field(discriminator="kind")]


class Progress(BaseModel):
    step: int = Field(description="Meta-steps done, or parts of an evaluation.")
    total: int
    eta_seconds: float | None = Field(description="Null while nothing can be said.")


class Job(BaseModel):
    id: str
    kind: JobKind
    family: str
    status: JobStatus
    status_reason: str | None = Field(
        description="In words: why it failed or was cancelled, what a queued job waits for (no worker, no Redis), or "
        "why `latest` and `best` will not name what a job that succeeded made."
    )
    attempt: int = Field(description="Counts from 1; a retry or a lost worker begins another.")
    queue_position: int | None = Field(description="0 is next; null unless queued.")
    progress: Progress
    optimizer: str | None = Field(description="What it made, or what it measures.")
    parent: str | None = Field(description="Of an evaluation: the `meta_train` job that asked for it.")
    evaluation: str | None = Field(description="Of a `meta_train` job: the newest `evaluate` job of its result.")
    metadata: dict[str, str]
    spec: dict[str, Any] = Field(description="The resolved job: every value that it runs with, defaults included.")
    runtime: dict[str, Any] = Field(description="Where it ran: torch version, threads and so on; empty while queued.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
