"""What the API answers, as frozen values.

Fields that a newer server adds are ignored here and kept in `raw`, the JSON as it came.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from gradsmith.pages import AsyncPage as AsyncPage
from gradsmith.pages import Page as Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

TERMINAL_STATUSES = frozenset({"succeeded", "failed", "cancelled"})
_GOING_ON = frozenset({"queued", "running", "cancelling"})


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong with a request.

    location: the part of the request: "body", "query", "path" or "header"
    pointer: JSON pointer into it, for example "/recipe/horizon"; empty for all of it
    code: machine-readable kind, for example "greater_than_equal"
    message: for people
    """

    location: str
    pointer: str
    code: str
    message: str

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> FieldError:
        return cls(
            location=str(raw.get("location", "body")),
            pointer=str(raw.get("pointer", "")),
            code=str(raw.get("code", "")),
            message=str(raw.get("message", "")),
        )


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    step, total: meta-steps of a training, parts of an evaluation or a preview; total is 0 while it is unknown
    eta_seconds: time left; None while nothing can be said
    """

    step: int
    total: int
    eta_seconds: float | None

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | None) -> Progress:
        raw = raw or {}
        return cls(step=raw.get("step") or 0, total=raw.get("total") or 0, eta_seconds=raw.get("eta_seconds"))


@dataclass(frozen=True)
class Job:
    """One piece of work.

    kind: "meta_train", "evaluate", "preview" or "sweep"
    status: queued -> running -> succeeded, failed or cancelled, with cancelling between
    status_reason: why it failed or was cancelled, in words; for a training that succeeded, why "latest" and "best" will
        not name its optimizer
    attempt: counts from 1; a retry or a lost worker begins another
    queue_position: 0 is next; None unless queued
    optimizer: id of the optimizer that it made, or that it measures
    parent: for an evaluation, the id of the training job that requested it
    evaluation: of a training, the id of the newest evaluation of its result
    sweep: of a child of a sweep, the id of that
    trial: of a child of a sweep, its number from 0
    price: predicted_seconds, actual_seconds and what the prediction rests on; None while it is queued
    metadata: your own labels
    spec: the resolved job: every value that it runs with, defaults included
    runtime: where it ran (torch version, threads); empty while queued
    """

    id: str
    kind: str
    family: str
    status: str
    status_reason: str | None
    attempt: int
    queue_position: int | None
    progress: Progress
    optimizer: str | None
    parent: str | None
    evaluation: str | None
    sweep: str | None
    trial: int | None
    metadata: dict[str, str]
    spec: dict[str, Any] = field(repr=False)
    runtime: dict[str, Any] = field(repr=False)
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    raw: dict[str, Any] = field(repr=False, compare=False)
    price: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """True once it succeeded, failed or was cancelled, or ended in a way that a newer server has."""
        ended_otherwise = self.status not in _GOING_ON and self.finished_at is not None
        return self.status in TERMINAL_STATUSES or ended_otherwise

    def _repr_html_(self) -> str:
        from gradsmith.html import job

        return job(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Job:
        return cls(
            id=raw["id"],
            kind=raw["kind"],
            family=raw["family"],
            status=raw["status"],
            status_reason=raw.get("status_reason"),
            attempt=raw.get("attempt", 1),
            queue_position=raw.get("queue_position"),
            progress=Progress.from_json(raw.get("progress")),
            optimizer=raw.get("optimizer"),
            parent=raw.get("parent"),
            evaluation=raw.get("evaluation"),
            sweep=raw.get("sweep"),
            trial=(raw.get("trial") or {}).get("number"),
            metadata=raw.get("metadata") or {},
            spec=raw.get("spec") or {},
            runtime=raw.get("runtime") or {},
            created_at=_moment(raw.get("created_at")),
            started_at=_moment(raw.get("started_at")),
            finished_at=_moment(raw.get("finished_at")),
            raw=raw,
            price=raw.get("price"),
        )


@dataclass(frozen=True)
class Price:
    """What a job is predicted to need. Nothing was queued.

    memory_bytes: of the job and of the evaluation behind it, whichever is larger
    seconds: training, selection, tuning, evaluation and total; None where nothing like it was measured on the server
    rests_on: which jobs or which calibration the seconds come from, in words
    advice: how to learn the seconds, where they are None
    error: p10, p50 and p90 of actual over predicted seconds, and of how many finished jobs
    queue: jobs, workers, and seconds until a worker is free for it
    spec: the resolved job: every value that it would run with
    """

    kind: str
    family: str
    coordinates_per_task: int
    memory_bytes: int
    seconds: dict[str, float] | None
    rests_on: tuple[str, ...]
    advice: str | None
    error: dict[str, Any]
    queue: dict[str, Any]
    notes: tuple[str, ...]
    spec: dict[str, Any] = field(repr=False)
    raw: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Price:
        return cls(
            kind=raw["kind"],
            family=raw["family"],
            coordinates_per_task=raw["coordinates_per_task"],
            memory_bytes=raw["memory_bytes"],
            seconds=raw["seconds"],
            rests_on=tuple(raw["rests_on"]),
            advice=raw.get("advice"),
            error=raw["error"],
            queue=raw["queue"],
            notes=tuple(raw.get("notes") or ()),
            spec=raw["spec"],
            raw=raw,
        )


@dataclass(frozen=True)
class FamilyPreview:
    """A preview of a family, which a worker draws.

    job: the preview job; `client.jobs.report(job)` has what it measured, `client.jobs.report_png(job)` its picture
    price: of training on the family, from what was measured before this preview
    """

    job: Job
    price: Price

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> FamilyPreview:
        return cls(job=Job.from_json(raw["job"]), price=Price.from_json(raw["price"]))


@dataclass(frozen=True)
class Optimizer:
    """One immutable trained artifact of the registry.

    reference: "<family>@<version>"; stands wherever the id does
    aliases: names that point here now and may move: "best", "latest", your own
    tags: the labels (`metadata`) of the job that made it; they never change
    job: id of the training that made it; None of one that was uploaded
    sha256: of the weights file
    size_bytes: of the weights file
    validation_score: mean loss over the validation curves; "best" is the lowest
    overrides: what its job changed of the family's tasks; "best" compares only optimizers where this is empty
    automatic: whether "latest" and "best" may name it; False where parameters that never move score as well
    tuned: whether it is a tuned baseline, which an evaluation registered: "best" may name it, "latest" does not
    stands_for: of a learned schedule that an evaluation made, the id of the optimizer that it is as good as, and in
        whose place "best" names it; else None
    advice: whether to use it, for programs: "use", "use_by_steps" (it wins in steps, not in seconds), "no_difference",
        "do_not_use", or "unknown" where it was not measured on its own tasks
    answer: should I use it? Two sentences: ratios against the best tuned baseline, cost, break-even, and where not
    card: what training recorded: cost, skipped steps, versions
    description: its users' own words
    archived: whether lists, "latest" and "best" pass over it
    uploaded: of one that was made elsewhere: by whom, when, from what, and what its file claims; else None
    evaluations: summaries of its evaluations: verdict, the best baseline, the job with the report
    """

    id: str
    family: str
    version: int
    reference: str
    aliases: tuple[str, ...]
    tags: dict[str, str]
    job: str | None
    sha256: str
    size_bytes: int | None
    validation_score: float | None
    overrides: dict[str, Any]
    automatic: bool
    tuned: bool
    stands_for: str | None
    advice: str
    answer: str = field(repr=False)
    card: dict[str, Any] = field(repr=False)
    evaluations: tuple[dict[str, Any], ...] = field(repr=False)
    created_at: datetime | None
    raw: dict[str, Any] = field(repr=False, compare=False)
    description: str = ""
    archived: bool = False
    uploaded: dict[str, Any] | None = field(default=None, repr=False)

    def _repr_html_(self) -> str:
        from gradsmith.html import optimizer

        return optimizer(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Optimizer:
        return cls(
            id=raw["id"],
            family=raw["family"],
            version=raw["version"],
            reference=raw.get("reference") or f"{raw['family']}@{raw['version']}",
            aliases=tuple(raw.get("aliases") or ()),
            tags=raw.get("tags") or {},
            job=raw.get("job"),
            sha256=raw["sha256"],
            size_bytes=raw.get("size_bytes"),
            validation_score=raw.get("validation_score"),
            overrides=raw.get("overrides") or {},
            automatic=raw.get("automatic", True),
            tuned=raw.get("tuned", False),
            stands_for=raw.get("stands_for"),
            advice=(raw.get("pays") or {}).get("advice", "unknown"),
            answer=(raw.get("pays") or {}).get("answer", ""),
            card=raw.get("card") or {},
            evaluations=tuple(raw.get("evaluations") or ()),
            created_at=_moment(raw.get("created_at")),
            raw=raw,
            description=raw.get("description") or "",
            archived=raw.get("archived_at") is not None,
            uploaded=raw.get("uploaded"),
        )


@dataclass(frozen=True)
class Alias:
    """A name of yours for an optimizer, as it was when you saw it.

    reference: "<family>@<alias>"; stands wherever an optimizer's id does
    optimizer: the id of what it names
    version: the version of that optimizer
    etag: the state that was seen, which moving it takes
    """

    family: str
    alias: str
    reference: str
    optimizer: str
    version: int
    created_at: datetime | None
    updated_at: datetime | None
    etag: str = field(repr=False)
    raw: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Alias:
        return cls(
            family=raw["family"],
            alias=raw["alias"],
            reference=raw["reference"],
            optimizer=raw["optimizer"],
            version=raw["version"],
            created_at=_moment(raw.get("created_at")),
            updated_at=_moment(raw.get("updated_at")),
            etag=raw["etag"],
            raw=raw,
        )


@dataclass(frozen=True)
class Family:
    """A named distribution of optimization tasks.

    tasks: what is drawn, for example {"kind": "quadratic", "dimension": 10, ...}
    coordinates_per_task: numbers that an optimizer moves in each task
    declared: whether it is of your workspace alone, by `client.families.create`
    recipe: how a rule is trained where a job says nothing else
    evaluation: how an optimizer is measured where a job says nothing else
    """

    name: str
    title: str
    description: str
    coordinates_per_task: int | None
    tasks: dict[str, Any] = field(repr=False)
    recipe: dict[str, Any] = field(repr=False)
    evaluation: dict[str, Any] = field(repr=False)
    raw: dict[str, Any] = field(repr=False, compare=False)
    declared: bool = False

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Family:
        return cls(
            name=raw["name"],
            title=raw.get("title", ""),
            description=raw.get("description", ""),
            coordinates_per_task=raw.get("coordinates_per_task"),
            tasks=raw.get("tasks") or {},
            recipe=raw.get("recipe") or {},
            evaluation=raw.get("evaluation") or {},
            raw=raw,
            declared=bool(raw.get("declared", False)),
        )


@dataclass(frozen=True)
class Dataset:
    """A table of your workspace.

    sha256: of the file's bytes
    format: "csv", "npz" or "safetensors"
    inputs, target, group: the roles of columns, by name; None where there is none
    classes: the target's values where they are few, else empty
    columns: what each column holds: name, type, missing, low, high, mean, distinct, examples
    groups: count, smallest, median, largest and too_small (left out); None without a group
    """

    name: str
    sha256: str
    size_bytes: int
    format: str
    rows: int
    inputs: tuple[str, ...]
    target: str | None
    group: str | None
    classes: tuple[str, ...]
    columns: tuple[dict[str, Any], ...] = field(repr=False)
    groups: dict[str, Any] | None
    preview: tuple[tuple[str, ...], ...] = field(repr=False)
    raw: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Dataset:
        return cls(
            name=raw["name"],
            sha256=raw["sha256"],
            size_bytes=raw["size_bytes"],
            format=raw["format"],
            rows=raw["rows"],
            inputs=tuple(raw["inputs"]),
            target=raw.get("target"),
            group=raw.get("group"),
            classes=tuple(raw.get("classes") or ()),
            columns=tuple(raw.get("columns") or ()),
            groups=raw.get("groups"),
            preview=tuple(tuple(row) for row in raw.get("preview") or ()),
            raw=raw,
        )


@dataclass(frozen=True)
class BuiltInDataset:
    """A data set of the server's own families.

    ready: whether its files are in the server's data folder
    fetchable: whether the server can download it; others `gradsmith-server data import` brings
    families: those that need it
    download: status ("running", "failed" or "interrupted"), file, received_bytes, total_bytes and error of the newest
        download; None where there is none, or where it has succeeded
    """

    name: str
    ready: bool
    fetchable: bool
    families: tuple[str, ...]
    download: dict[str, Any] | None
    raw: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> BuiltInDataset:
        return cls(
            name=raw["name"],
            ready=raw["ready"],
            fetchable=raw["fetchable"],
            families=tuple(raw.get("families") or ()),
            download=raw.get("download"),
            raw=raw,
        )


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found on the server's machine.

    complete: False where its time was over before the last check
    healthy: whether no check failed
    checks: check, outcome ("ok", "warn" or "fail"), found and advice of each
    """

    examined_at: datetime | None
    complete: bool
    healthy: bool
    checks: tuple[dict[str, str], ...]
    raw: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Diagnosis:
        return cls(
            examined_at=_moment(raw.get("examined_at")),
            complete=raw["complete"],
            healthy=raw["healthy"],
            checks=tuple(raw["checks"]),
            raw=raw,
        )


@dataclass(frozen=True)
class Key:
    """An API key, without its secret.

    scopes: "read", "submit" (which includes read) or "admin" (which includes both)
    status: "active", "expired" or "revoked"
    token: what callers send; there once, in the answer of `keys.create`
    """

    id: str
    name: str
    workspace: str
    scopes: tuple[str, ...]
    status: str
    max_active_jobs: int | None
    created_at: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None
    token: str | None = field(repr=False)
    raw: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Key:
        return cls(
            id=raw["id"],
            name=raw["name"],
            workspace=raw["workspace"],
            scopes=tuple(raw["scopes"]),
            status=raw["status"],
            max_active_jobs=raw.get("max_active_jobs"),
            created_at=_moment(raw.get("created_at")),
            expires_at=_moment(raw.get("expires_at")),
            last_used_at=_moment(raw.get("last_used_at")),
            token=raw.get("token"),
            raw=raw,
        )


@dataclass(frozen=True)
class Curve:
    """A loss curve as columns of equal length, by rising meta-step.

    total_points: points of the whole curve; more than came when it was thinned out
    loss, gradient_norm: NaN and infinity where the run had them
    validation: None where none was measured
    learning_rate: None where an older version of the server stored the point without it
    skipped: whether the meta-step changed nothing, because its loss or gradient was not finite
    """

    job: str
    total_points: int
    step: tuple[int, ...]
    loss: tuple[float, ...]
    gradient_norm: tuple[float, ...]
    validation: tuple[float | None, ...]
    learning_rate: tuple[float | None, ...]
    skipped: tuple[bool, ...]
    raw: dict[str, Any] = field(repr=False, compare=False)

    def to_pandas(self) -> DataFrame:
        """A `pandas.DataFrame`, a row a point, indexed by step. Raises MissingDependency without pandas."""
        from gradsmith.curves import to_pandas

        frame: DataFrame = to_pandas(self)
        return frame

    def plot(self, ax: Axes | None = None, *, log: bool | None = None) -> Axes:
        """Draw loss and validation with matplotlib; returns the `matplotlib.axes.Axes`.

        ax: where to draw; default: a new figure
        log: whether the losses' axis is logarithmic; default: where all of them are above 0

        Raises MissingDependency without matplotlib.
        """
        from gradsmith.curves import plot

        drawn: Axes = plot(self, ax, log)
        return drawn

    @overload
    def to_csv(self, path: None = None) -> str: ...

    @overload
    def to_csv(self, path: str | os.PathLike[str]) -> Path: ...

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str | Path:
        """CSV with a line of names: returned, or written to `path`, which is returned. Empty: nothing was measured."""
        from gradsmith.curves import to_csv

        return to_csv(self, path)

    def to_tensorboard(self, folder: str | os.PathLike[str]) -> Path:
        """Write an event file that `tensorboard --logdir` shows as gradsmith/loss, .../validation and so on.

        folder: made where it is missing; returned. Raises MissingDependency without the package tensorboard.
        """
        from gradsmith.curves import to_tensorboard

        return to_tensorboard(self, folder)

    def _repr_html_(self) -> str:
        from gradsmith.html import curve

        return curve(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Curve:
        columns = {name: list(raw[name]) for name in ("loss", "gradient_norm")}
        for place in raw.get("non_finite") or ():  # JSON has no NaN: null, and this list says what it stands for
            columns[place["column"]][place["index"]] = float(place["value"])
        return cls(
            job=raw["job"],
            total_points=raw.get("total_points", len(raw["step"])),
            step=tuple(raw["step"]),
            loss=tuple(math.nan if value is None else value for value in columns["loss"]),
            gradient_norm=tuple(math.nan if value is None else value for value in columns["gradient_norm"]),
            validation=tuple(raw["validation"]),
            learning_rate=tuple(raw["learning_rate"]),
            skipped=tuple(raw["skipped"]),
            raw=raw,
        )


@dataclass(frozen=True)
class Report:
    """An evaluation's result: the learned optimizer against tuned baselines on held-out tasks.

    verdict: "wins", "ties" or "loses" against the best tuned baseline after equal steps, at the end (`final`, the mean
        of the last five steps) and over the area under the curve (`area`): by the 95 % interval of the ratio
        learned / baseline
    comparisons: the same, with numbers, for each baseline and for `best_baseline`, which names its `schedule` too
    tiers: the names of the baselines that are "tuned", of those that run "untuned" at their published defaults, and of
        what the "family" gives without a network, where that was asked for
    optimizers: curves and final losses of `learned` and of each baseline
    seconds: what each optimizer's step takes, and verdict and comparisons in equal time
    time_to_target: the targets, and each optimizer's performance profile in steps and in seconds
    break_even: after how many `runs` training has paid, or why `never`
    family_tier: the learned schedule, whether it is `as_good` and whether `best` takes it, and the learned starting
        point; empty where `evaluation.family_tier` was not asked for

    The three before it are empty where an older server made the evaluation.

    A preview has baselines alone, no comparisons, no verdict and 0 test tasks; `raw` has what it says beside them.
    """

    family: str
    horizon: int
    test_tasks: int
    verdict: dict[str, str]
    comparisons: dict[str, Any] = field(repr=False)
    optimizers: dict[str, Any] = field(repr=False)
    tiers: dict[str, list[str]] = field(repr=False)
    seconds: dict[str, Any] = field(repr=False)
    time_to_target: dict[str, Any] = field(repr=False)
    break_even: dict[str, Any] = field(repr=False)
    family_tier: dict[str, Any] = field(repr=False)
    raw: dict[str, Any] = field(repr=False, compare=False)

    def _repr_html_(self) -> str:
        from gradsmith.html import report

        return report(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Report:
        return cls(
            family=raw["family"],
            horizon=raw["horizon"],
            test_tasks=raw.get("test_tasks", 0),
            verdict=raw.get("verdict") or {},
            comparisons=raw.get("comparisons") or {},
            optimizers=raw["optimizers"],
            tiers=raw.get("tiers") or {},
            seconds=raw.get("seconds") or {},
            time_to_target=raw.get("time_to_target") or {},
            break_even=raw.get("break_even") or {},
            family_tier=raw.get("family_tier") or {},
            raw=raw,
        )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
