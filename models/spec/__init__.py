"""What can be trained, and how: the torch-free vocabulary that the API, the store and the workers share.

A *family* is a named, immutable distribution of optimization tasks. A *job* trains a rule on a family
(`meta_train`), measures an optimizer against tuned baselines on held-out tasks of one (`evaluate`), tunes baselines
on one's validation tasks, to see what it is (`preview`), or trains with many recipes to find the best (`sweep`).
`resolve` fills every default that a request leaves out with the family's recipe, so that a stored job says
all there is to know about how it ran.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gradsmith.rules.assignment import REST
from models.rule_spec import ByKind, RuleSpec
from models.spec.family import FamilySpec, Split, with_tasks
from models.spec.jobs import JobKind, unfitting
from models.spec.measuring import EVALUATION_SEED, EvaluateSpec
from models.spec.overrides import overridden
from models.spec.plans import BaselineName, EvaluationPlan, PreviewPlan, ScheduleName, UntunedName
from models.spec.previewing import PreviewSpec
from models.spec.recipe import Component, LossWeighting, MetaGradientMode, Products, Recipe
from models.spec.resources import DEVICE_OF, MOST_PROCESSES, MOST_THREADS, BackendName, Resources, Threads, share
from models.spec.sweep import MOST_AXES, MOST_TRIALS, Axis, Choices, Halving, Range, Sampler, SweepSpec
from models.spec.training import IDLE_RULE, NO_ROOM, UNSUITED_BACKEND, MetaTrainSpec
from models.task_spec import LossesOn, Spec

__all__ = [
    "DEVICE_OF",
    "EVALUATION_SEED",
    "IDLE_RULE",
    "MOST_AXES",
    "MOST_PROCESSES",
    "MOST_THREADS",
    "MOST_TRIALS",
    "NO_ROOM",
    "REST",
    "UNSUITED_BACKEND",
    "Axis",
    "BackendName",
    "BaselineName",
    "ByKind",
    "Choices",
    "Component",
    "EvaluateSpec",
    "EvaluationPlan",
    "FamilySpec",
    "Halving",
    "JobKind",
    "JobSpec",
    "LossWeighting",
    "LossesOn",
    "MetaGradientMode",
    "MetaTrainSpec",
    "PreviewPlan",
    "PreviewSpec",
    "Products",
    "Range",
    "Recipe",
    "Resources",
    "RuleSpec",
    "Sampler",
    "ScheduleName",
    "Spec",
    "Split",
    "SweepSpec",
    "Threads",
    "UntunedName",
    "overridden",
    "share",
    "unfitting",
    "with_tasks",
]

JobSpec = Annotated[MetaTrainSpec | EvaluateSpec | PreviewSpec | SweepSpec, Field(discriminator="kind")]
"""The resolved spec of a job of any kind."""
