"""What can be trained, and how: the torch-free vocabulary that the API, the store and the workers share.

A *family* is a named, immutable distribution of optimization tasks. A *job* trains a rule on a family
(`meta_train`) or measures an optimizer against tuned baselines on held-out tasks of one (`evaluate`).
`resolve` fills every default that a request leaves out with the family's recipe, so that a stored job says
all there is to know about how it ran.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

BaselineName = Literal["sgd", "nag", "rmsprop", "adam"]
BASELINES: tuple[BaselineName, ...] = ("sgd", "nag", "rmsprop", "adam")


class Spec(BaseModel):
    """A frozen description; an unknown field is an error, and so is NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Split(StrEnum):
    """The namespace that a task's seed is drawn from. Training and selection never see `test`."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


# --- the learned rule -------------------------------------------------------------------------------------------


class RuleSpec(Spec):
    """A coordinatewise LSTM (Andrychowicz et al. 2016, section 2.1)."""

    kind: Literal["lstm"] = "lstm"
    hidden_size: int = Field(20, ge=1, le=256, description="Units in each layer.")
    layers: int = Field(2, ge=1, le=4)
    input: Literal["log_sign", "raw"] = Field(
        "log_sign", description="How the gradient enters: (log|g|/p, sign g) as in appendix A, or as it is."
    )
    p: float = Field(10.0, gt=0, le=50, description="log_sign treats |g| >= e^-p by its logarithm.")
    output_scale: float = Field(0.1, gt=0, le=100, description="theta changes by this much per unit of output.")


# --- families ---------------------------------------------------------------------------------------------------


class QuadraticSpec(Spec):
    """f(theta) = ||W theta - y||^2 with W (dimension x dimension) and y drawn anew for each task."""

    kind: Literal["quadratic"] = "quadratic"
    dimension: int = Field(10, ge=1, le=1000)
    distribution: Literal["gaussian", "uniform"] = Field(
        "gaussian", description="Entries of W and y: standard normal, or uniform on [0, 1] as in the authors' code."
    )
    start_std: float = Field(1.0, gt=0, le=100, description="theta_0 is normal with this standard deviation.")

    @property
    def coordinates_per_task(self) -> int:
        return self.dimension


class MLPSpec(Spec):
    """A multi-layer perceptron that classifies images with cross-entropy on random minibatches."""

    kind: Literal["mlp"] = "mlp"
    dataset: Literal["digits", "mnist"] = "digits"
    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field((20,), max_length=8)
    activation: Literal["sigmoid", "relu"] = "sigmoid"
    batch_size: int = Field(128, ge=1, le=4096)
    start_std: float = Field(0.1, gt=0, le=10, description="theta_0 is normal with this standard deviation.")

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        inputs = {"digits": 64, "mnist": 784}[self.dataset]
        return (inputs, *self.hidden, 10)

    @property
    def coordinates_per_task(self) -> int:
        sizes = self.layer_sizes
        return sum(fan_in * fan_out + fan_out for fan_in, fan_out in pairwise(sizes))


TaskSpec = Annotated[QuadraticSpec | MLPSpec, Field(discriminator="kind")]


class Recipe(Spec):
    """How a rule is meta-trained. A *meta-step* is one window: `unroll_steps` inner steps, one meta-gradient."""

    rule: RuleSpec = RuleSpec()
    meta_steps: int = Field(1000, ge=1, le=1_000_000)
    horizon: int = Field(100, ge=1, le=10_000, description="Inner steps of one trajectory.")
    unroll_steps: int = Field(20, ge=1, le=1000, description="Inner steps between truncations; divides the horizon.")
    tasks: int = Field(128, ge=1, le=65_536, description="Tasks trained side by side in one meta-step.")
    meta_learning_rate: float = Field(0.003, gt=0, le=1)
    final_learning_rate_ratio: float = Field(
        0.03, gt=0, le=1, description="The meta-learning rate decays along a cosine to this share of itself."
    )
    forget_bias: float = Field(
        1.0,
        ge=-20,
        le=20,
        description="Added to the forget gates of a fresh LSTM, so that it remembers from the first meta-step on.",
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
    baselines: tuple[BaselineName, ...] = Field(BASELINES, min_length=1)
    bootstrap_samples: int = Field(2000, ge=100, le=100_000)


class FamilySpec(Spec):
    """A family: its name, its distribution of tasks, and the recipe that is used where a job says nothing."""

    name: str
    title: str
    description: str
    tasks: TaskSpec
    recipe: Recipe
    evaluation: EvaluationPlan


BUILT_IN_FAMILIES: dict[str, FamilySpec] = {
    family.name: family
    for family in (
        FamilySpec(
            name="quadratic",
            title="Random quadratics, Gaussian",
            description="||W theta - y||^2 in ten dimensions, W and y standard normal (section 3.1 of the paper).",
            tasks=QuadraticSpec(),
            recipe=Recipe(meta_steps=800, meta_learning_rate=0.01),
            evaluation=EvaluationPlan(),
        ),
        FamilySpec(
            name="quadratic-uniform",
            title="Random quadratics, uniform",
            description="||W theta - y||^2 in ten dimensions, W and y uniform on [0, 1] as in the authors' code.",
            tasks=QuadraticSpec(distribution="uniform"),
            recipe=Recipe(meta_steps=800, meta_learning_rate=0.01),
            evaluation=EvaluationPlan(),
        ),
        FamilySpec(
            name="digits-mlp",
            title="A small network on 8x8 digits",
            description="64-20-10 sigmoid perceptron on scikit-learn's 1,797 real digit images, minibatch 128.",
            tasks=MLPSpec(dataset="digits"),
            recipe=Recipe(
                meta_steps=500, tasks=2, validation_tasks=64, validation_interval=100, meta_learning_rate=0.01
            ),
            evaluation=EvaluationPlan(test_tasks=128, tuning_tasks=32),
        ),
        FamilySpec(
            name="mnist-mlp",
            title="The paper's MNIST network",
            description="784-20-10 sigmoid perceptron on MNIST, minibatch 128 (section 3.2 of the paper).",
            tasks=MLPSpec(dataset="mnist"),
            recipe=Recipe(tasks=1, validation_tasks=64, meta_learning_rate=0.01),
            evaluation=EvaluationPlan(test_tasks=64, tuning_tasks=16),
        ),
    )
}


# --- jobs -------------------------------------------------------------------------------------------------------


class Resources(Spec):
    device: Literal["cpu", "gpu"] = "cpu"
    threads: int = Field(1, ge=1, le=256, description="CPU threads of the worker's tensor library.")


class MetaTrainSpec(Spec):
    """A resolved `meta_train` job: nothing is left to defaults."""

    kind: Literal["meta_train"] = "meta_train"
    family: FamilySpec
    seed: int = Field(ge=0, lt=2**63)
    recipe: Recipe
    evaluate: bool
    evaluation: EvaluationPlan
    resources: Resources


class EvaluateSpec(Spec):
    """A resolved `evaluate` job: one optimizer of the registry on held-out tasks of a family."""

    kind: Literal["evaluate"] = "evaluate"
    optimizer: str = Field(description="The optimizer's id.")
    rule: RuleSpec = Field(RuleSpec(), description="The optimizer's rule, as it was trained.")
    family: FamilySpec
    seed: int = Field(ge=0, lt=2**63)
    evaluation: EvaluationPlan
    resources: Resources


JobSpec = Annotated[MetaTrainSpec | EvaluateSpec, Field(discriminator="kind")]


def overridden(default: Spec, changes: dict[str, Any]) -> Any:
    """`default` with `changes` laid over it, nested objects field by field, validated anew.

    Raises pydantic.ValidationError, with the field's own location, when a value does not fit.
    """
    merged = default.model_dump()
    _lay_over(merged, changes)
    return type(default).model_validate(merged)


def _lay_over(target: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _lay_over(target[key], value)
        else:
            target[key] = value


# --- memory -----------------------------------------------------------------------------------------------------

BLOCK_FLOATS = 8_000_000
"""Numbers that a replayed block may hold (32 MB in float32): 1,300 coordinates of a 20-step window of the 2x20 LSTM.
Smaller blocks are all overhead of torch's calls, larger ones gain nothing and fall out of the cache."""

CHUNK_COORDINATES = 16_384
"""Coordinates that validation and evaluation run at once. A task does not see its neighbours, so this bounds memory
and keeps minibatches and states in the cache: 64 networks on digits take half the time in chunks of ten."""

_FLOAT_BYTES = 4
_WORKER_BYTES = 320 * 2**20  # Python, torch, the worker's own libraries
_DATASET_BYTES = {"digits": 90 * 2**20, "mnist": 120 * 2**20}  # scikit-learn; 70,000 images as they are split
_DRAWING_BYTES = 50 * 2**20
_BOOTSTRAP_BYTES = 40 * 2**20


def memory_estimate_bytes(spec: MetaTrainSpec | EvaluateSpec) -> int:
    """Peak resident memory that a worker needs for this job at most, whichever backend runs it; a job beyond the
    worker's memory is refused at POST. Torch needs the most: the native kernel has no buffers for a replay."""
    family, plan = spec.family.tasks, spec.evaluation
    rule = spec.recipe.rule if isinstance(spec, MetaTrainSpec) else spec.rule
    rollouts = [spec.recipe.validation_tasks] if isinstance(spec, MetaTrainSpec) else []
    measures = isinstance(spec, EvaluateSpec) or spec.evaluate
    if measures:
        rollouts += [plan.test_tasks, plan.tuning_tasks]
    together = min(max(rollouts), max(1, CHUNK_COORDINATES // family.coordinates_per_task))
    running = _running_bytes(family, rule, together)
    if isinstance(spec, MetaTrainSpec):
        running = max(running, _running_bytes(family, rule, spec.recipe.tasks) + _window_bytes(spec))
    curves = 8 * 4 * (plan.horizon + 1) * plan.test_tasks if measures else 0  # float64, and their statistics
    dataset = _DATASET_BYTES[family.dataset] if isinstance(family, MLPSpec) else 0
    return _WORKER_BYTES + dataset + running + curves + (_BOOTSTRAP_BYTES if measures else 0)


def _running_bytes(family: QuadraticSpec | MLPSpec, rule: RuleSpec, tasks: int) -> int:
    """One inner step on `tasks` tasks: the problem, the rule's state thrice, and the gates that a step computes, which
    are twice a state each and two or three of them at a time."""
    coordinates = tasks * family.coordinates_per_task
    state = 2 * rule.hidden_size * rule.layers
    if isinstance(family, QuadraticSpec):
        problem = tasks * (family.dimension**2 + 4 * family.dimension)
        drawn = problem
    else:
        sizes = family.layer_sizes
        problem = tasks * family.batch_size * (2 * sizes[0] + 4 * sum(sizes[1:]))
        drawn = coordinates
    return _FLOAT_BYTES * (problem + coordinates * (9 * state + 8)) + min(_DRAWING_BYTES, 50 * drawn)


def _window_bytes(spec: MetaTrainSpec) -> int:
    """Gradients G, their suffix sums D (twice while they are made), and the blocks that are replayed."""
    recipe = spec.recipe
    coordinates = recipe.tasks * spec.family.tasks.coordinates_per_task
    rows = 3 * recipe.unroll_steps + 1
    per_step = recipe.rule.layers * 8 * recipe.rule.hidden_size
    whole = coordinates * recipe.unroll_steps * per_step
    blocks = min(whole, 2 * max(BLOCK_FLOATS, recipe.unroll_steps * per_step))
    return _FLOAT_BYTES * (coordinates * rows + blocks)
