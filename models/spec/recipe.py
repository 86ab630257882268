"""How a rule is meta-trained."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gradsmith.rules.assignment import REST
from gradsmith.rules.kernels.sizes import MOST_HIDDEN, MOST_LAYERS
from models.rule_spec import USUAL, AnyRule, RulePattern, without_default
from models.task_spec import LossesOn, Spec, Tasks

MetaGradientMode = Literal["detached", "exact"]
LossWeighting = Literal["sum", "sqrt"]
Products = Literal["float32", "bfloat16"]


class Component(Spec):
    """A family that a rule is trained and validated on beside the job's own."""

    family: str = Field(description="Its name.")
    tasks: Tasks
    weight: float = Field(
        1.0, gt=0, le=1000, description="How often its trajectories are drawn; the job's own family has 1."
    )


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
    meta_gradient: MetaGradientMode = Field(
        "detached",
        description="detached: the gradients that enter the rule count as constants, as in the paper. exact: with the "
        "second derivatives of the tasks, for about one more gradient evaluation an inner step; without them a "
        "meta-gradient cannot tell damping from speed.",
    )
    products: Products = Field(
        "float32",
        description="What an LSTM's products multiply while it trains. bfloat16: factors rounded to bfloat16, their "
        "products added up in float32, by the compiled kernel and for detached meta-gradients. Made for CPUs with "
        "AVX512-BF16; any other emulates it, more slowly than float32. Validations, evaluations and users' steps are "
        "in float32.",
    )
    loss_weighting: LossWeighting = Field(
        "sum",
        description="What the meta-loss adds up: the losses of a window's steps, or 2 sqrt(loss), by which late steps "
        "count where losses fall by orders of magnitude.",
    )
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
    pool: int = Field(
        1,
        ge=1,
        le=256,
        description="Trajectories that are under way at the same time, at different phases. A meta-step is a window of "
        "one of them, drawn at random. 1: a trajectory after the other.",
    )
    shortest_horizon: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Each trajectory's horizon is drawn log-uniformly from this one to `horizon`, in multiples of "
        "`unroll_steps`. Default: always `horizon`.",
    )
    validation_horizons: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = Field(
        (),
        max_length=8,
        description="Inner steps after which a validation looks. Its score is the geometric mean over them. Default: "
        "`horizon`.",
    )
    objective: Literal["area", "final", "both"] = Field(
        "area",
        description="What a validation scores, and so which rule is kept: the mean loss over the whole curve, the mean "
        "of its last five steps, or the geometric mean of the two.",
    )
    mixture: tuple[Component, ...] = Field(
        (),
        max_length=16,
        description="Families that are trained on beside the job's own: each trajectory is one of them, drawn by "
        "weight. A validation looks at all; its score is their geometric mean, by weight.",
    )
    on: LossesOn = Field(
        "training",
        description="Which losses the meta-loss and a validation count: those of the minibatches that the gradients "
        "come from, or those of data that the inner steps do not see. held_out: each task keeps 35 % of its training "
        "images for the meta-loss, and a validation scores the loss on validation images.",
    )
    rollback: float | None = Field(
        None,
        gt=0,
        le=10,
        description="Where the logarithm of a validation score is this much above that of the best, training goes back "
        "to the best weights with 0.7 times the meta-learning rate. Default: never.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Training ends after this many validations in a row without a new best. Default: it does not.",
    )
    starts: int = Field(
        1,
        ge=1,
        le=64,
        description="Training begins from this many initialisations, each for `start_steps` meta-steps of all "
        "`meta_steps`. The one with the best validation goes on.",
    )
    start_steps: int = Field(100, ge=1, le=100_000, description="Meta-steps of each of several `starts`.")

    sampled_coordinates: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="The gradient of the rule's weights looks at this many coordinates of each larger tensor, drawn "
        "anew for each window, and at all of smaller ones: unbiased, with more noise. For rules of kind mlp, and "
        "detached for lstm. Default: all.",
    )

    @model_validator(mode="before")
    @classmethod
    def _the_rest_is_the_rule(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("rules"), dict) and REST in given["rules"]:
            rules, rule = dict(given["rules"]), given.get("rule")
            rest = rules.pop(REST)
            if isinstance(rest, dict) and isinstance(rule, dict) and rest.get("kind", rule["kind"]) == rule["kind"]:
                rest = {**rule, **rest}  # what it does not name is the family's
            return given | {"rule": rest, "rules": rules}
        return given

    @property
    def window_evaluations(self) -> int:
        """Evaluations of a task's gradient in one window; a product with a Hessian costs about one."""
        exact = self.unroll_steps - 1 if self.meta_gradient == "exact" else 0
        return self.unroll_steps * (1 if self.on == "training" else 2) + exact

    @property
    def knows_steps(self) -> bool:
        """Whether one of its rules asks how many steps a run is going to have."""
        return any(rule.config.knows_steps for rule in (self.rule, *self.rules.values()))

    @property
    def output_scales(self) -> str:
        """The rules' output scales with their names and values, for advice."""
        named = {"rule": self.rule, **{f"rules[{pattern!r}]": rule for pattern, rule in self.rules.items()}}
        scales = {
            f"{name}.{scale}": getattr(rule, scale)
            for name, rule in named.items()
            for scale in ("output_scale", "learning_rate")
            if hasattr(rule, scale)
        }
        return " or ".join(f"{name} (now {scale:g})" for name, scale in scales.items())

    @model_validator(mode="after")
    def _windows_fill_the_horizon(self) -> Recipe:
        if self.horizon % self.unroll_steps:
            raise ValueError(
                f"horizon {self.horizon} is not a multiple of unroll_steps {self.unroll_steps}; "
                f"choose an unroll that divides the horizon"
            )
        return self

    @model_validator(mode="after")
    def _the_shortest_horizon_is_one(self) -> Recipe:
        shortest = self.shortest_horizon
        if shortest is not None and (shortest > self.horizon or shortest % self.unroll_steps):
            raise ValueError(
                f"shortest_horizon {shortest} is to be a multiple of unroll_steps {self.unroll_steps} and at most "
                f"horizon {self.horizon}"
            )
        return self

    @model_validator(mode="after")
    def _the_starts_leave_meta_steps(self) -> Recipe:
        if self.starts > 1 and self.starts * self.start_steps >= self.meta_steps:
            raise ValueError(
                f"{self.starts} starts of {self.start_steps} meta-steps leave none of {self.meta_steps} for the best "
                f"of them; send more meta_steps, or fewer starts or start_steps"
            )
        return self

    @model_validator(mode="after")
    def _coordinates_can_be_sampled(self) -> Recipe:
        if self.sampled_coordinates is None:
            return self
        apart = self.rule.kind == "lstm" and self.meta_gradient == "detached" and not self.rule.config.costs().whole
        if self.rules or not (self.rule.kind == "mlp" or apart):
            this = f"{self.rule.config.in_words()}{', and others' if self.rules else ''}, {self.meta_gradient}"
            raise ValueError(
                f"sampled_coordinates {self.sampled_coordinates} is for one rule of kind mlp, or of kind lstm with "
                f"detached meta-gradients and inputs that do not look across tensors; this is {this}. Leave it out, or "
                f"send such a rule"
            )
        return self

    @model_validator(mode="after")
    def _the_products_are_those_of_a_kernel(self) -> Recipe:
        if self.products == "float32":
            return self
        for rule in (self.rule, *self.rules.values()):
            if rule.config.costs().sizes is None:
                raise ValueError(
                    f"products {self.products} are those of the compiled kernel for rules of kind lstm with the input "
                    f"log_sign or raw, the linear head, no averaging cells and at most {MOST_LAYERS} layers of "
                    f"{MOST_HIDDEN} units; this is {rule.config.in_words()}. Leave products out, or send such a rule"
                )
        if self.meta_gradient == "exact":
            raise ValueError(
                f"products {self.products} are those of a kernel whose meta-gradients are detached, and meta_gradient "
                f"is exact; leave products out, or send meta_gradient detached"
            )
        return self

    @property
    def learns_apart(self) -> bool:
        """Whether all coordinates go through the rule's network and only some teach it."""
        return self.sampled_coordinates is not None and self.rule.kind == "mlp"

    @property
    def criterion(self) -> str:
        """What a validation score is of. Scores compare where it is the same; a database keeps it, 128 letters long."""
        steps = ", ".join(str(horizon) for horizon in self.horizons_validated)
        others = "\n".join(each.model_dump_json() for each in self.mixture)
        mixed = f", mixture {hashlib.sha256(others.encode()).hexdigest()[:12]}" if others else ""
        on = "" if self.on == "training" else " held out"
        return f"{self.objective}{on} of {self.validation_tasks} tasks after {steps} steps{mixed}"

    @property
    def horizons_validated(self) -> tuple[int, ...]:
        """The numbers of inner steps after which a validation looks, each once, in rising order."""
        return tuple(sorted(set(self.validation_horizons))) or (self.horizon,)

    @property
    def meta_steps_of_one(self) -> int:
        """Meta-steps of one initialisation from its start to the end of the run."""
        return self.meta_steps - (self.starts - 1) * self.start_steps
