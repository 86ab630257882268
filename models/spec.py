"""What can be trained, and how: the torch-free vocabulary that the API, the store and the workers share.

A *family* is a named, immutable distribution of optimization tasks. A *job* trains a rule on a family
(`meta_train`), measures an optimizer against tuned baselines on held-out tasks of one (`evaluate`), or tunes baselines
on one's validation tasks, to see what it is (`preview`).
`resolve` fills every default that a request leaves out with the family's recipe, so that a stored job says
all there is to know about how it ran.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from gradsmith.rules.assignment import REST as REST
from models.baselines import BASELINES, DEFAULT_BASELINES
from models.rule_spec import USUAL, AnyRule, Assigned, RulePattern, assigned, without_default
from models.rule_spec import ByKind as ByKind
from models.rule_spec import RuleSpec as RuleSpec
from models.task_spec import Spec as Spec
from models.task_spec import Tasks, TaskSpec

if TYPE_CHECKING:  # a Literal that is made from the register says nothing to a type checker
    BaselineName: TypeAlias = str
else:
    BaselineName = Literal[tuple(BASELINES)]
BackendName = Literal["auto", "native", "torch", "triton", "reference"]
DEVICE_OF: dict[BackendName, Literal["cpu", "gpu"]] = {"native": "cpu", "triton": "gpu"}  # the others run on any
IDLE_RULE = "idle_rule"  # the type of the error, as pydantic has them, for a rule that has no part
MOST_THREADS = 256
MOST_PROCESSES = 64


class Split(StrEnum):
    """The namespace that a task's seed is drawn from. Training and selection never see `test`."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


# --- families ---------------------------------------------------------------------------------------------------


class Recipe(Spec):
    """How a rule is meta-trained. A *meta-step* is one window: `unroll_steps` inner steps, one meta-gradient."""

    rule: AnyRule = Field(
        USUAL, description="Default: an LSTM as its settings' defaults make it.", json_schema_extra=without_default
    )
    rules: dict[RulePattern, AnyRule] = Field(
        default_factory=dict,
        max_length=16,
        description="Other rules for some parts of a task, by pattern: a part's name, a glob over names such as "
        "`layer0.*`, or a role (`weight`, `bias`, `vector`). The most specific pattern wins. `rule` moves the rest; it "
        "may be sent as the entry `*`.",
    )
    meta_steps: int = Field(1000, ge=1, le=1_000_000)
    horizon: int = Field(100, ge=1, le=10_000, description="Inner steps of one trajectory.")
    unroll_steps: int = Field(20, ge=1, le=1000, description="Inner steps between truncations; divides the horizon.")
    tasks: int = Field(128, ge=1, le=65_536, description="Tasks trained side by side in one meta-step.")
    meta_learning_rate: float = Field(0.003, gt=0, le=1)
    final_learning_rate_ratio: float = Field(
        0.03, gt=0, le=1, description="The meta-learning rate decays along a cosine to this share of itself."
    )
    gradient_clip: float = Field(1.0, gt=0, le=1e6, description="The meta-gradient's norm is clipped here.")
    averaging: float = Field(
        0.95,
        ge=0,
        lt=1,
        description="What is validated and kept is a moving average of the weights with this decay a meta-step.",
    )
    validation_tasks: int = Field(128, ge=1, le=65_536)
    validation_interval: int = Field(50, ge=1, description="Meta-steps between validations; the best rule is kept.")
    plateau_patience: int = Field(
        4,
        ge=2,
        le=1000,
        description="After this many validations that neither move nor beat standing still, the rule starts anew.",
    )

    @model_validator(mode="before")
    @classmethod
    def _the_rest_is_the_rule(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("rules"), dict) and REST in given["rules"]:
            rules = dict(given["rules"])
            return given | {"rule": rules.pop(REST), "rules": rules}
        return given

    @property
    def output_scales(self) -> str:
        """The rules' output scales with their names and values, for advice."""
        named = {"rule": self.rule, **{f"rules[{pattern!r}]": rule for pattern, rule in self.rules.items()}}
        return " or ".join(f"{name}.output_scale (now {rule.output_scale:g})" for name, rule in named.items())

    @model_validator(mode="after")
    def _windows_fill_the_horizon(self) -> Recipe:
        if self.horizon % self.unroll_steps:
            raise ValueError(
                f"horizon {self.horizon} is not a multiple of unroll_steps {self.unroll_steps}; "
                f"choose an unroll that divides the horizon"
            )
        return self


class EvaluationPlan(Spec):
    """How an optimizer is measured. Every baseline gets the same tuning budget, on validation tasks."""

    horizon: int = Field(100, ge=1, le=10_000)
    test_tasks: int = Field(512, ge=2, le=65_536, description="Held-out tasks, the same for every optimizer.")
    tuning_tasks: int = Field(128, ge=1, le=65_536, description="Validation tasks that learning rates are tuned on.")
    baselines: tuple[BaselineName, ...] = Field(DEFAULT_BASELINES, min_length=1)
    bootstrap_samples: int = Field(2000, ge=100, le=100_000)


class PreviewPlan(Spec):
    """How baselines are tuned to see a family, on its validation tasks. It is small: a preview takes seconds."""

    horizon: int = Field(100, ge=1, le=10_000)
    tuning_tasks: int = Field(32, ge=1, le=65_536, description="Validation tasks, the same for every baseline.")
    baselines: tuple[BaselineName, ...] = Field(("adam",), min_length=1)
    bootstrap_samples: int = Field(2000, ge=100, le=100_000)


class FamilySpec(Spec):
    """A family: its name, its distribution of tasks, and the recipe that is used where a job says nothing."""

    name: str
    title: str
    description: str
    tasks: Tasks
    recipe: Recipe
    evaluation: EvaluationPlan
    overrides: dict[str, Any] = Field(
        {}, description="The fields of `tasks` that a job changed, with its values; empty for the family's own tasks."
    )
    plugin: str | None = Field(
        None, description="The plug-in that brought it, with its version; null for Gradsmith's own families."
    )


# --- jobs -------------------------------------------------------------------------------------------------------


def _count_or_auto(threads: object) -> object:
    """One error for what is neither, where a union of types would give one for each of them."""
    if threads == "auto" or (type(threads) is int and 1 <= threads <= MOST_THREADS):
        return threads
    raise ValueError(f'{threads!r} is no number of threads; send a whole number from 1 to {MOST_THREADS}, or "auto"')


Threads = Annotated[Annotated[int, Field(ge=1, le=MOST_THREADS)] | Literal["auto"], BeforeValidator(_count_or_auto)]


class Resources(Spec):
    """What a job runs on. The record of its run (`runtime`) says what it was given."""

    device: Literal["cpu", "gpu"] = "cpu"
    threads: Threads = Field(
        1,
        description="CPU threads; auto: as many as the worker finds the fastest when the job starts, up to its CPUs.",
    )
    processes: int = Field(
        1,
        ge=1,
        le=MOST_PROCESSES,
        description="Processes that share the tasks of a meta_train job, each with this many threads, or a GPU of its "
        "own; at most one for each task.",
    )
    backend: BackendName = Field(
        "auto",
        description="What computes: native (compiled, CPU, float32), torch, triton (GPU), or reference (plain "
        "autograd, the whole job in float64). auto: the fastest that the worker has for the rule.",
    )

    def threads_or(self, calibrated: int) -> int:
        """The number of threads that is asked for, or `calibrated` where it is auto."""
        return calibrated if self.threads == "auto" else self.threads

    @model_validator(mode="after")
    def _the_backend_runs_on_the_device(self) -> Resources:
        needed = DEVICE_OF.get(self.backend, self.device)
        if needed != self.device:
            raise ValueError(
                f"backend {self.backend} runs on device {needed}, not on {self.device}; "
                f"send device {needed}, or backend auto"
            )
        return self


JobKind = Literal["meta_train", "evaluate", "preview"]


class _Job(Spec, ABC):
    """What every kind of job says of itself."""

    @property
    @abstractmethod
    def total(self) -> int:
        """How many steps `progress` counts; 0 where only the worker can tell."""

    @property
    @abstractmethod
    def measures(self) -> str | None:
        """The id of the optimizer that it measures; None where it makes one or has none."""

    @property
    @abstractmethod
    def to_lower(self) -> list[str]:
        """The fields of a request that its memory depends on most."""

    @abstractmethod
    def follow_up(self, optimizer: str) -> EvaluateSpec | None:
        """The job that is to run when this one has made `optimizer` (its id); None where none is asked for."""

    @abstractmethod
    def assigned(self) -> Assigned:
        """Which rule moves which parts of a task; empty where the job has no rule."""


class MetaTrainSpec(_Job):
    """A resolved `meta_train` job: nothing is left to defaults."""

    kind: Literal["meta_train"] = "meta_train"
    family: FamilySpec
    seed: int = Field(ge=0, lt=2**63)
    recipe: Recipe
    evaluate: bool
    evaluation: EvaluationPlan
    resources: Resources

    @property
    def total(self) -> int:
        return self.recipe.meta_steps

    @property
    def measures(self) -> None:
        return None

    @property
    def to_lower(self) -> list[str]:
        fields = ["recipe.tasks", "recipe.validation_tasks", "recipe.unroll_steps"]
        fields += ["evaluation.test_tasks", "evaluation.horizon"] if self.evaluate else []
        return fields + (["resources.processes"] if self.resources.processes > 1 else [])

    def follow_up(self, optimizer: str) -> EvaluateSpec | None:
        if not self.evaluate:
            return None
        return EvaluateSpec(
            optimizer=optimizer,
            rule=self.recipe.rule,
            rules=self.recipe.rules,
            family=self.family,
            seed=self.seed,
            evaluation=self.evaluation,
            resources=self.resources.model_copy(update={"processes": 1}),  # an evaluation runs in one
        )

    @property
    def tasks_per_process(self) -> int:
        """The largest share of a meta-step's tasks that one process owns (`share`)."""
        return -(-self.recipe.tasks // self.resources.processes)

    def assigned(self) -> Assigned:
        return assigned(self.recipe.rule, self.recipe.rules, self.family.tasks.parts())

    @model_validator(mode="after")
    def _every_rule_has_a_part(self) -> MetaTrainSpec:
        idle = self.recipe.rules.keys() - self.assigned().keys() if self.recipe.rules else set()
        if idle:
            parts = ", ".join(f"{part.name} ({part.role})" for part in self.family.tasks.parts())
            raise PydanticCustomError(
                IDLE_RULE,
                "the rule for {pattern} would move nothing: {family} has no part left for it. There are {parts}; send "
                "a pattern that matches one better than the others do, or leave it out",
                {"pattern": repr(min(idle)), "family": self.family.name, "parts": parts},
            )
        return self

    @model_validator(mode="after")
    def _every_process_has_a_task(self) -> MetaTrainSpec:
        processes, tasks = self.resources.processes, self.recipe.tasks
        if processes > tasks:
            raise ValueError(
                f"{processes} processes cannot share {tasks} task{'s' if tasks > 1 else ''} of a meta-step, of which "
                f"each owns one at least; send {tasks} at most, or a larger recipe.tasks"
            )
        return self


class EvaluateSpec(_Job):
    """A resolved `evaluate` job: one optimizer of the registry on held-out tasks of a family."""

    kind: Literal["evaluate"] = "evaluate"
    optimizer: str = Field(description="The optimizer's id.")
    rule: AnyRule = Field(
        USUAL, description="The optimizer's rule, as it was trained.", json_schema_extra=without_default
    )
    rules: dict[RulePattern, AnyRule] = Field(
        default_factory=dict, max_length=16, description="Its other rules, by pattern, where it has several."
    )
    family: FamilySpec
    seed: int = Field(ge=0, lt=2**63)
    evaluation: EvaluationPlan
    resources: Resources

    @property
    def total(self) -> int:
        return 0

    @property
    def measures(self) -> str:
        return self.optimizer

    @property
    def to_lower(self) -> list[str]:
        return ["evaluation.test_tasks", "evaluation.tuning_tasks", "evaluation.horizon"]

    def follow_up(self, optimizer: str) -> None:
        """None: it makes no optimizer."""

    def assigned(self) -> Assigned:
        return assigned(self.rule, self.rules, self.family.tasks.parts())

    @model_validator(mode="after")
    def _one_process(self) -> EvaluateSpec:
        if self.resources.processes > 1:
            raise ValueError(
                f"an evaluation runs in one process and this asks for {self.resources.processes}; "
                f"leave processes out (threads may be more)"
            )
        return self


class PreviewSpec(_Job):
    """A resolved `preview` job: baselines on validation tasks of a family. It has no rule and makes no optimizer."""

    kind: Literal["preview"] = "preview"
    family: FamilySpec
    seed: int = Field(ge=0, lt=2**63)
    evaluation: PreviewPlan
    resources: Resources

    @property
    def total(self) -> int:
        return 0

    @property
    def measures(self) -> None:
        return None

    @property
    def to_lower(self) -> list[str]:
        return ["evaluation.tuning_tasks", "evaluation.horizon"]

    def follow_up(self, optimizer: str) -> None:
        """None: it makes no optimizer."""

    def assigned(self) -> Assigned:
        return {}

    @model_validator(mode="after")
    def _torch_in_one_process(self) -> PreviewSpec:
        if self.resources.processes > 1:
            raise ValueError(
                f"a preview runs in one process and this asks for {self.resources.processes}; "
                f"leave processes out (threads may be more)"
            )
        if self.resources.backend in DEVICE_OF:
            raise ValueError(
                f"a preview has no rule for the backend {self.resources.backend} to compute; leave backend out, or "
                f"send torch, or reference for float64"
            )
        return self


def share(count: int, processes: int, process: int) -> range:
    """What one of `processes` owns of `count` things in a row: all shares are whole and differ by one at most, the
    longer ones first."""
    least, longer = divmod(count, processes)
    first = process * least + min(process, longer)
    return range(first, first + least + (process < longer))


JobSpec = Annotated[MetaTrainSpec | EvaluateSpec | PreviewSpec, Field(discriminator="kind")]


def with_tasks(family: FamilySpec, tasks: TaskSpec) -> FamilySpec:
    """A family that no job has changed yet, with these tasks in place of its own, and a note of what they change."""
    own = family.tasks.model_dump(mode="json")
    changed = {name: value for name, value in tasks.model_dump(mode="json").items() if own.get(name) != value}
    return family.model_copy(update={"tasks": tasks, "overrides": changed})


def overridden(default: Spec, changes: dict[str, Any]) -> Any:
    """`default` with `changes` laid over it, nested objects field by field, validated anew. An object of another
    `kind` takes the place of the whole.

    Raises pydantic.ValidationError, with the field's own location, when a value does not fit.
    """
    merged = default.model_dump()
    _lay_over(merged, changes)
    return type(default).model_validate(merged)


def _lay_over(target: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        present = target.get(key)
        if (
            isinstance(value, dict)
            and isinstance(present, dict)
            and value.get("kind", present.get("kind")) == present.get("kind")
        ):
            _lay_over(present, value)
        else:
            target[key] = value
