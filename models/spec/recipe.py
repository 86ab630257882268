"""How a rule is meta-trained."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from gradsmith.rules.assignment import REST
from models.rule_spec import USUAL, AnyRule, RulePattern, without_default
from models.task_spec import Spec

MetaGradientMode = Literal["detached", "exact"]
LossWeighting = Literal["sum", "sqrt"]


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

    @model_validator(mode="before")
    @classmethod
    def _the_rest_is_the_rule(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("rules"), dict) and REST in given["rules"]:
            rules = dict(given["rules"])
            return given | {"rule": rules.pop(REST), "rules": rules}
        return given

    @property
    def window_evaluations(self) -> int:
        """Evaluations of a task's gradient in one window; a product with a Hessian costs about one."""
        return self.unroll_steps + (self.unroll_steps - 1 if self.meta_gradient == "exact" else 0)

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
