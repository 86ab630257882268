"""A `sweep` job: its request, and what that is resolved to."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, Strict

from app.http.fields import Labels, Name, Request, Seed
from app.http.problems import invalid_request
from app.jobs.kinds.training import mixture_of
from app.jobs.overrides import EvaluationPlanOverrides, RecipeOverrides, ResourcesOverrides, TaskOverrides
from app.jobs.resolve import changed, known_family, plan_of, refused_at, resources_of, seed_of
from app.jobs.sweeps.axes import refused, swept
from app.jobs.sweeps.children import Checked, child, named
from app.store.families import DeclaredFamilies
from models.spec import MOST_TRIALS, BackendName, Choices, Halving, Recipe, Sampler, SweepSpec

USUAL_TRIALS = 20


def _an_object(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    raise ValueError('send a JSON object such as {"meta_learning_rate": [0.001, 0.003, 0.01]}')


class SweepRequest(Request):
    """Train on a family with many recipes, and keep the best."""

    slow_to_resolve: ClassVar[bool] = True
    """Up to `MOST_TRIALS` recipes are made and looked at."""

    kind: Literal["sweep"]
    family: Name = Field(description="A name of GET /families.")
    tasks: TaskOverrides = Field(default_factory=dict)
    seed: Seed | list[Any] | None = Field(
        None, description="Of the search and of every child. A list is swept. Default: a random one, which is recorded."
    )
    recipe: Annotated[dict[str, Any], BeforeValidator(_an_object)] = Field(
        default_factory=dict,
        description="As for `meta_train`. A list in the place of a value is swept, and so is a range such as "
        '`{"low": 0.001, "high": 0.1, "log": true}`; in `validation_horizons`, which is a list, a list of lists.',
    )
    sampler: Sampler | None = Field(
        None,
        description="grid: every combination of the lists. random: drawn from lists and ranges. tpe: by Optuna's "
        "tree-structured Parzen estimator, from what earlier trials scored. Default: grid, with a range random.",
    )
    trials: Annotated[int, Strict()] | None = Field(
        None, ge=1, le=MOST_TRIALS, description=f"For random and tpe; default {USUAL_TRIALS}. A grid has its own."
    )
    parallel: Annotated[int, Strict()] = Field(
        4,
        ge=1,
        le=64,
        description="Most children that are queued or running at a time. With tpe a trial is drawn once all but the "
        "newest `parallel` - 1 have ended, and from these alone: so the search is the same however fast workers are.",
    )
    halving: Halving | None = Field(
        None,
        description="Successive halving: all trials for few meta-steps, the best of them anew for more. Default: none, "
        "every trial has the recipe's.",
    )
    evaluate: Annotated[bool, Strict()] = Field(
        True, description="Measure the best child's optimizer against tuned baselines afterwards."
    )
    evaluation: EvaluationPlanOverrides = Field(default_factory=EvaluationPlanOverrides)
    resources: ResourcesOverrides = Field(default_factory=ResourcesOverrides, description="Of each child.")
    metadata: Labels = Field(default_factory=dict, description="Your own labels, which its children have too.")


def families_of(request: SweepRequest) -> set[str]:
    """The families that it names."""
    mixture = request.recipe.get("mixture")
    named = [each.get("family") for each in mixture if isinstance(each, dict)] if isinstance(mixture, list) else []
    return {request.family, *(name for name in named if isinstance(name, str))}


def resolved(request: SweepRequest, declared: DeclaredFamilies | None, backend: BackendName) -> SweepSpec:
    """backend: what a job runs on that names none. Raises Problem `unknown_family` or `invalid_request`."""
    family = known_family(request.family, declared)
    family = changed(family, family.tasks, request.tasks)
    fixed, axes = swept(request.recipe, request.seed)
    resources = resources_of(request.resources, backend)
    if fixed.get("mixture"):
        with refused_at("recipe", model=RecipeOverrides):
            mixture = RecipeOverrides.model_validate({"mixture": fixed["mixture"]}).model_dump(exclude_unset=True)
        fixed["mixture"] = mixture_of(mixture["mixture"], declared)
    checked = Checked(family, fixed, axes, resources)
    if request.halving is not None and any(axis.path == ("recipe", "meta_steps") for axis in axes):
        raise refused(
            ("recipe", "meta_steps"), "two_budgets", "with halving the rungs choose meta_steps; send one value"
        )
    sampler = request.sampler or ("grid" if all(isinstance(axis, Choices) for axis in axes) else "random")
    trials = _trials(request, sampler, checked)
    with refused_at("halving" if request.halving is not None else "resources"):
        spec = SweepSpec(
            family=family,
            seed=seed_of(None if isinstance(request.seed, list) else request.seed),
            sampler=sampler,
            trials=trials,
            parallel=request.parallel,
            halving=request.halving,
            space=checked.axes,
            given=fixed,
            recipe=checked.first,
            evaluate=request.evaluate,
            # of the first: whatever is swept, the best is measured over one horizon
            evaluation=plan_of(family, request.evaluation, checked.first, checked.first.horizon),
            resources=resources,
        )
    _require_trainings(spec)
    return spec


def _trials(request: SweepRequest, sampler: Sampler, checked: Checked) -> int:
    """How many there are. Raises Problem `invalid_request`."""
    ranges = [axis for axis in checked.axes if not isinstance(axis, Choices)]
    if sampler != "grid":
        most = None if ranges else math.prod(len(axis.shown) for axis in checked.axes)
        trials = request.trials or min(USUAL_TRIALS, most or USUAL_TRIALS)
        if most is not None and trials > most:
            message = f"the lists have {most} combinations, so {trials} trials would repeat some; send {most} at most"
            raise refused(("trials",), "too_many", message)
        return trials
    if ranges:
        raise refused(ranges[0].path, "range", "a grid takes lists; send one, or sampler random or tpe")
    most = math.prod(len(axis.shown) for axis in checked.axes)
    if most > MOST_TRIALS:
        raise refused(
            ("recipe",),
            "too_many",
            f"the grid has {most:,} combinations, and a sweep has {MOST_TRIALS} trials at most; send shorter lists, or "
            f"sampler random or tpe with trials",
        )
    if request.trials not in (None, most):
        raise refused(("trials",), "trials", f"the grid has {most} combinations; leave trials out, or choose a sampler")
    for values in itertools.product(*(axis.shown for axis in checked.axes)):
        found = checked.recipe(values)
        if not isinstance(found, Recipe):
            together = ", ".join(f"{name} {value!r}" for name, value in named(checked.axes, values).items())
            wrong = [each.model_copy(update={"message": f"{each.message} (with {together})"}) for each in found]
            raise invalid_request(wrong)
    return most


def _require_trainings(spec: SweepSpec) -> None:
    """Raises Problem `invalid_request` where a trial's recipe fits and its job does not, such as a rule without a
    part, or `starts` that the meta-steps of the first rung are too few for. A grid has to fit whole; of what is drawn,
    the first of each field."""
    for values in itertools.islice(spec.grid, None if spec.sampler == "grid" else 1):
        for _, meta_steps in spec.rungs:
            with refused_at("recipe"):
                child(spec, named(spec.space, values), meta_steps)
