"""The trainings of an evaluation's family tier: the optimizer's own training, with a learned schedule for its rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from models.rule_spec import RULE_SPECS, RuleSpec
from models.spec.measuring import EvaluateSpec
from models.spec.recipe import Recipe
from models.spec.training import MetaTrainSpec

KNOTS = 32
META_LEARNING_RATE = 0.05
"""A schedule has some dozens of weights, each the logarithm of a rate: it moves much faster than a network may."""
AVERAGING = 0.9
TRIALS = 8
"""Each way to make a schedule is tried for one part in so many of the training's meta-steps."""
DIRECTIONS: tuple[str, ...] = tuple(
    name for name in get_args(RULE_SPECS["schedule"].model_fields["direction"].annotation) if name != "muon"
)
WAYS = tuple((direction, over) for direction in DIRECTIONS for over in ("fraction", "time"))
"""Whose direction is scaled, and what the knots lie over."""


def rules_of(rates: Mapping[str, float]) -> tuple[RuleSpec, ...]:
    """The untrained schedules: one for each way to make one.

    rates: learning rates that they begin with, by direction
    """
    settings = ({"direction": direction, "over": over} for direction, over in WAYS)
    return tuple(
        RULE_SPECS["schedule"].model_validate(each | {"knots": KNOTS, "output_scale": rates[each["direction"]]})
        for each in settings
    )


def trial_of(spec: EvaluateSpec, rule: RuleSpec) -> MetaTrainSpec:
    """A short training of a schedule, to choose one of them."""
    assert spec.training is not None
    return _training(spec, rule, spec.training.meta_steps // TRIALS)


def training_of(spec: EvaluateSpec, rule: RuleSpec) -> MetaTrainSpec:
    """The training of the schedule that was chosen: it has the meta-steps that the trials left."""
    assert spec.training is not None
    steps = spec.training.meta_steps
    return _training(spec, rule, steps - len(WAYS) * (steps // TRIALS))


def _training(spec: EvaluateSpec, rule: RuleSpec, meta_steps: int) -> MetaTrainSpec:
    own = spec.training
    assert own is not None
    steps = max(1, meta_steps)
    changes = {
        "rule": rule,
        "rules": {},
        "mixture": (),
        "meta_steps": steps,
        "starts": 1,
        "meta_learning_rate": META_LEARNING_RATE,
        "averaging": AVERAGING,
        "validation_interval": min(own.validation_interval, max(1, steps // 4)),
        "sampled_coordinates": None,
        "products": "float32",
        "on": own.on if spec.family.tasks.parts_data else "training",
    }
    # No kernel computes schedules.
    backend = "reference" if spec.resources.backend == "reference" else "torch"
    return MetaTrainSpec(
        family=spec.family,
        seed=spec.seed,
        recipe=Recipe.model_validate(dict(own) | changes),
        evaluate=False,
        evaluation=spec.evaluation,
        resources=spec.resources.model_copy(update={"backend": backend, "processes": 1}),
    )
