"""What goes over the wire. Field names are the user's; the store's rows are turned into these in one place each."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

from app.api.overrides import partial
from app.store.tables import JOB_STATUSES
from models.spec import EvaluationPlan, Recipe, Resources
from models.task_spec import Tasks

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

MAX_LABELS = 16
LABEL_KEY_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
TAG_PATTERN = r"^[A-Za-z0-9_.-]{1,64}(=[^\x00]{0,512})?$"


def _storable(text: str) -> str:
    """Neither database keeps NUL or half a surrogate pair in text."""
    if "\x00" in text or re.search("[\ud800-\udfff]", text):
        raise ValueError("text with a NUL or half of a surrogate pair cannot be stored; leave that character out")
    return text


# For readers of the schema; half a surrogate pair is nothing that a pattern could name.
_WITHOUT_NUL: dict[str, Any] = {"pattern": r"^[^\u0000]*$"}
Name = Annotated[
    str, Strict(), Field(min_length=1, max_length=128, json_schema_extra=_WITHOUT_NUL), AfterValidator(_storable)
]
LabelKey = Annotated[str, Strict(), Field(pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, Strict(), Field(max_length=512, json_schema_extra=_WITHOUT_NUL), AfterValidator(_storable)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=MAX_LABELS)]
Tag = Annotated[str, Field(pattern=TAG_PATTERN), AfterValidator(_storable)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**63)]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class MetaTrainRequest(Request):
    """Train a rule on a family. What is left out comes from the family's recipe."""

    kind: Literal["meta_train"]
    family: Name = Field(description="A name of GET /families.")
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
    family: Name | None = Field(None, description="Default: the family that the optimizer was trained on.")
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


class NonFinite(BaseModel):
    index: int = Field(description="Position in the columns.")
    column: Literal["loss", "gradient_norm"]
    value: Literal["nan", "inf", "-inf"]


class CurveDocument(BaseModel):
    """Columns of equal length, by rising step. `validation` is null where none was measured."""

    job: str
    attempt: int
    status: JobStatus
    total_points: int = Field(description="Points of the whole curve; more than sent when it was thinned out.")
    step: list[int]
    loss: list[float | None]
    gradient_norm: list[float | None]
    validation: list[float | None]
    non_finite: list[NonFinite] = Field(description="What the nulls in `loss` and `gradient_norm` stand for.")


class Family(BaseModel):
    name: str
    title: str
    description: str
    tasks: Tasks
    coordinates_per_task: int = Field(description="Numbers that an optimizer of this family moves in each task.")
    recipe: Recipe = Field(description="How a rule is trained where a job says nothing else.")
    evaluation: EvaluationPlan


class FamilyDetail(Family):
    schemas: dict[str, dict[str, Any]] = Field(description="JSON schemas of `tasks`, `recipe` and `evaluation`.")


class EvaluationSummary(BaseModel):
    job: str = Field(description="Its report is at /jobs/{job}/report.")
    family: str
    verdict: dict[str, str] = Field(description="At the last step (`final`) and over the curve (`area`).")
    best_baseline: dict[str, Any] = Field(description="Against the best of all tuned baselines, by metric.")
    created_at: datetime


class Optimizer(BaseModel):
    id: str
    family: str
    version: int
    reference: str = Field(description="`<family>@<version>`; stands wherever the id does.")
    aliases: list[str] = Field(description="What names it now: `best`, `latest`, then your own. They move.")
    tags: dict[str, str] = Field(description="The labels (`metadata`) of the job that made it; they never change.")
    job: str
    sha256: str
    size_bytes: int
    validation_score: float | None = Field(description="Mean loss over the validation curves; `best` is the lowest.")
    automatic: bool = Field(
        description="Whether `latest` and `best` may name it; false where parameters that never move score as well."
    )
    card: dict[str, Any] = Field(description="What training recorded: cost, skipped steps, versions.")
    evaluations: list[EvaluationSummary]
    created_at: datetime


class AliasTarget(Request):
    """Where an alias is to point."""

    optimizer: Name = Field(
        description="An optimizer of the family: an id, `<family>@<version>` or `<family>@<alias>`; of an alias, what "
        "it names at this moment."
    )


class Alias(BaseModel):
    family: str
    alias: str
    reference: str = Field(description="`<family>@<alias>`; stands wherever an optimizer's id does.")
    optimizer: str = Field(description="The id of what it names now.")
    version: int = Field(description="The version of that optimizer.")
    created_at: datetime
    updated_at: datetime = Field(description="When it was moved last.")
    etag: str = Field(description="Its `ETag`, quotes and all: what it is now. Moving it takes this as `If-Match`.")


T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    data: list[T]
    has_more: bool
    next: str | None = Field(description="Pass it as `after` for the next page, with the same filters.")


class Health(BaseModel):
    status: Literal["ok", "degraded"]
    checks: dict[str, str] = {}
