"""What goes over the wire. Field names are the user's; the store's rows are turned into these in one place each."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from app.http.fields import Description, Name, Request
from app.jobs.schemas import JobStatus
from models.datasets.inspection import Inspection
from models.spec import EvaluationPlan, Recipe
from models.task_spec import Tasks


class NonFinite(BaseModel):
    index: int = Field(description="Position in the columns.")
    column: Literal["loss", "gradient_norm"]
    value: Literal["nan", "inf", "-inf"]


class CurveDocument(BaseModel):
    """Columns of equal length, by rising step."""

    job: str
    attempt: int
    status: JobStatus
    total_points: int = Field(description="Points of the whole curve; more than sent when it was thinned out.")
    step: list[int]
    loss: list[float | None]
    gradient_norm: list[float | None]
    validation: list[float | None] = Field(description="Null where none was measured.")
    learning_rate: list[float | None] = Field(description="Null where an older version stored the point without it.")
    skipped: list[bool] = Field(
        description="Whether the meta-step changed nothing, because its loss or gradient was not finite."
    )
    non_finite: list[NonFinite] = Field(description="What the nulls in `loss` and `gradient_norm` stand for.")


class Family(BaseModel):
    name: str
    title: str
    description: str
    tasks: Tasks
    coordinates_per_task: int = Field(description="Numbers that an optimizer of this family moves in each task.")
    recipe: Recipe = Field(description="How a rule is trained where a job says nothing else.")
    evaluation: EvaluationPlan
    plugin: str | None = Field(description="The plug-in that brought it, with its version; null for Gradsmith's own.")
    declared: bool = Field(description="Whether it is of your workspace alone, by POST /families.")


class PluginProblem(BaseModel):
    plugin: str = Field(description="Its name and version, the name of its file, or the family that it declared.")
    reason: str


class FamilyDetail(Family):
    schemas: dict[str, dict[str, Any]] = Field(description="JSON schemas of `tasks`, `recipe` and `evaluation`.")


class Pays(BaseModel):
    """Whether it pays to use an optimizer."""

    advice: Literal["use", "use_by_steps", "no_difference", "do_not_use", "unknown"] = Field(
        description="By the criterion that it was trained for, against the best tuned baseline. use_by_steps: it wins "
        "after as many steps, not after as many seconds."
    )
    answer: str = Field(
        description="Two sentences: the ratios of losses in steps, in seconds and on held-out data; what making it "
        "took, after how many runs that has paid, and where it must not be used."
    )


class EvaluationSummary(BaseModel):
    job: str = Field(description="Its report is at /jobs/{job}/report.")
    family: str
    overrides: dict[str, Any] = Field(description="What the job changed of the family's tasks.")
    verdict: dict[str, str] = Field(
        description="After equal steps: at the end (`final`, the mean of the last five) and over the curve (`area`)."
    )
    verdict_in_seconds: dict[str, str] | None = Field(
        description="The same in equal time, on the machine of the evaluation; null where an older version made it."
    )
    break_even: dict[str, Any] | None = Field(
        description="After how many `runs` training has paid, or why `never`; null where an older version made it."
    )
    best_baseline: dict[str, Any] = Field(description="Against the best of all tuned baselines, by metric.")
    decides: bool = Field(
        description="Whether `pays` of the optimizer rests on it: the newest on the tasks of the training, but one "
        "with fewer baselines takes nothing back."
    )
    pays: Pays = Field(description="What this evaluation says to whoever asks whether to use the optimizer.")
    created_at: datetime


class Uploaded(BaseModel):
    """Where an optimizer comes from that was not made here."""

    by: str | None = Field(description="The id of the key that brought it; null on a server without keys.")
    at: datetime
    source: str | None = Field(description="Where it comes from, in the words of who brought it.")
    file_sha256: str = Field(description="Of the file that came; without its card it has `sha256`.")
    claims: dict[str, Any] = Field(
        description="What its file says was measured elsewhere, under the name `reference`. Nobody has checked it here."
    )


class OptimizerChange(Request):
    """What may change of an optimizer; what is left out stays."""

    description: Description | None = Field(None, description="In your own words.")
    archived: bool | None = Field(None, description="Whether lists, `latest` and `best` pass over it.")


class Optimizer(BaseModel):
    id: str
    family: str
    version: int
    reference: str = Field(description="`<family>@<version>`; stands wherever the id does.")
    aliases: list[str] = Field(description="What names it now: `best`, `latest`, then your own. They move.")
    tags: dict[str, str] = Field(description="The labels (`metadata`) of the job that made it; they never change.")
    job: str | None = Field(description="What made it; null of one that was uploaded.")
    sha256: str
    size_bytes: int
    validation_score: float | None = Field(description="Mean loss over the validation curves; `best` is the lowest.")
    overrides: dict[str, Any] = Field(
        description="What its job changed of the family's tasks; `best` compares only optimizers where this is empty."
    )
    automatic: bool = Field(
        description="Whether `latest` and `best` may name it; false where parameters that never move score as well, "
        "and of an uploaded one until it was evaluated here."
    )
    tuned: bool = Field(
        description="Whether it is a tuned baseline, which an evaluation registered: `best` may name it, `latest` does "
        "not."
    )
    stands_for: str | None = Field(
        description="For a learned schedule that an evaluation made (`evaluation.family_tier`): the optimizer that it "
        "is as good as, and in whose place `best` names it. `latest` does not name it."
    )
    pays: Pays = Field(description="Should I use it? From its newest evaluation on the tasks that it was trained on.")
    card: dict[str, Any] = Field(description="What training recorded: cost, skipped steps, versions.")
    description: str = Field(description="Its users' own words.")
    archived_at: datetime | None = Field(description="Since when lists, `latest` and `best` pass over it.")
    uploaded: Uploaded | None = Field(description="Where it comes from; null of one that was made here.")
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


class Families(Page[Family]):
    problems: list[PluginProblem] = Field(
        description="Plug-ins that this server could not load, so that their families are missing."
    )


class Dataset(Inspection):
    name: str
    sha256: str = Field(description="Of the file's bytes, which are kept once.")
    size_bytes: int
    created_at: datetime


class DatasetDownload(BaseModel):
    """How the newest download stands. It is gone once the data set is ready."""

    status: Literal["running", "failed", "interrupted"] = Field(
        description="`interrupted` when it ended without a word, as by a restart: fetch it again."
    )
    file: str | None = Field(description="What it receives now.")
    received_bytes: int = Field(description="Of that file.")
    total_bytes: int | None = Field(description="Of that file; null while it is unknown.")
    error: str | None = Field(description="Why it failed, by address.")


class BuiltInDataset(BaseModel):
    """A data set of the server's own families."""

    name: str
    ready: bool = Field(description="Whether its files are in the data folder of the server.")
    fetchable: bool = Field(
        description="Whether the server can download it; others `gradsmith-server data import` brings."
    )
    alternative: bool = Field(description="Whether it is another form of a data set, which nobody misses.")
    families: list[str] = Field(description="The families here that need it.")
    download: DatasetDownload | None


class Datasets(Page[Dataset]):
    built_in: list[BuiltInDataset] = Field(description="Those of the server's own families, and whether they are here.")


class Health(BaseModel):
    status: Literal["ok", "degraded"]
    checks: dict[str, str] = {}
