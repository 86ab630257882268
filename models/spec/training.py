"""The job that trains a rule on a family."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from models.rule_spec import Assigned, assigned, without_room
from models.spec.family import FamilySpec
from models.spec.jobs import Job, require_fitting
from models.spec.measuring import EVALUATION_SEED, EvaluateSpec
from models.spec.plans import EvaluationPlan
from models.spec.recipe import Component, MetaGradientMode, Products, Recipe
from models.spec.resources import DEVICE_OF, Resources
from models.task_spec import TaskSpec

IDLE_RULE = "idle_rule"
"""The type of the error, as pydantic has them, for a rule that has no part."""

NO_ROOM = "no_room"
"""That for a rule whose memory is too small for a task."""

UNSUITED_BACKEND = "unsuited_backend"
"""That for resources on which nothing computes what the recipe asks for."""


class MetaTrainSpec(Job):
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
        fields += ["recipe.pool"] if self.recipe.pool > 1 else []
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
            seed=EVALUATION_SEED,
            evaluation=self.evaluation,
            training=self.recipe if self.evaluation.family_tier else None,
            resources=self.resources.model_copy(update={"processes": 1}),  # an evaluation runs in one
        )

    @property
    def tasks_per_process(self) -> int:
        """The largest share of a meta-step's tasks that one process owns (`share`)."""
        return -(-self.recipe.tasks // self.resources.processes)

    def assigned(self) -> Assigned:
        return assigned(self.recipe.rule, self.recipe.rules, self.family.tasks.parts())

    @property
    def mixture(self) -> tuple[Component, ...]:
        return self.recipe.mixture

    @property
    def components(self) -> tuple[Component, ...]:
        """The families that it trains on, its own first; of a mixture each that it is made of."""
        own = Component(family=self.family.name, tasks=self.family.tasks, weight=1.0)
        return tuple(part for each in (own, *self.recipe.mixture) for part in _parted(each))

    def on(self, tasks: TaskSpec) -> MetaTrainSpec:
        """The same job, on these tasks alone."""
        family = self.family.model_copy(update={"tasks": tasks})
        recipe = self.recipe.model_copy(update={"mixture": ()})
        return self.model_copy(update={"family": family, "recipe": recipe})

    @model_validator(mode="after")
    def _held_out_losses_need_data(self) -> MetaTrainSpec:
        without = [each.family for each in self.components if not each.tasks.parts_data]
        if self.recipe.on == "held_out" and without:
            raise ValueError(
                f"recipe.on held_out needs tasks with data, of which each keeps a part, and {' and '.join(without)} "
                f"has none; send recipe.on training"
            )
        return self

    @model_validator(mode="after")
    def _the_evaluation_fits(self) -> MetaTrainSpec:
        require_fitting(self.evaluation, self.family.tasks, self.family.name)
        return self

    @model_validator(mode="after")
    def _a_mixture_has_one_rule(self) -> MetaTrainSpec:
        _, *others = self.components
        if others and self.recipe.rules:
            names = ", ".join(dict.fromkeys(repr(each.family) for each in others))
            raise ValueError(
                f"several rules need the parts of one family, and the mixture adds {names}; leave rules out, or the "
                f"mixture"
            )
        return self

    @model_validator(mode="after")
    def _every_rule_learns(self) -> MetaTrainSpec:
        for rule in (self.recipe.rule, *self.recipe.rules.values()):
            if not rule.config.learns:
                raise ValueError(f"a rule of kind {rule.kind!r} has nothing to learn; train one of another kind")
        return self

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
    def _every_rule_has_room(self) -> MetaTrainSpec:
        for each in self.components:
            if (wrong := without_room(self.on(each.tasks).assigned())) is not None:
                raise PydanticCustomError(NO_ROOM, "{wrong}", {"wrong": f"{each.family}: {wrong}"})
        return self

    @property
    def meta_gradient(self) -> MetaGradientMode:
        return self.recipe.meta_gradient

    @property
    def products(self) -> Products:
        return self.recipe.products

    @property
    def learns_apart(self) -> bool:
        return self.recipe.learns_apart

    @model_validator(mode="after")
    def _the_backend_has_exact_meta_gradients(self) -> MetaTrainSpec:
        backend = self.resources.backend
        if self.recipe.meta_gradient == "exact" and backend in DEVICE_OF:
            kinds = {rule.config for rule in (self.recipe.rule, *self.recipe.rules.values())}
            without = sorted({config.kind for config in kinds if backend not in config.exact_kernels})
            if without:
                raise _unsuited(
                    f"backend {backend} computes detached meta-gradients alone of a rule of kind {without[0]}, and "
                    f"recipe.meta_gradient is exact; send resources.backend auto or torch, or meta_gradient detached"
                )
        return self

    @model_validator(mode="after")
    def _the_native_kernel_computes_the_products(self) -> MetaTrainSpec:
        products, given = self.recipe.products, self.resources
        if products != "float32" and (given.device != "cpu" or given.backend not in ("auto", "native")):
            asked = f"device {given.device}" if given.device != "cpu" else f"backend {given.backend}"
            raise _unsuited(
                f"recipe.products {products} are computed by the native kernel on the CPU alone, and this asks for "
                f"{asked}; leave products out, or send device cpu and backend auto or native"
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

    @model_validator(mode="after")
    def _a_pool_is_in_one_process(self) -> MetaTrainSpec:
        pool, processes = self.recipe.pool, self.resources.processes
        if pool > 1 and processes > 1:
            raise ValueError(
                f"a pool of {pool} trajectories is trained in one process, for its checkpoints hold where every task "
                f"is, and this asks for {processes} processes; leave processes out, or send recipe.pool 1"
            )
        return self


def _parted(component: Component) -> list[Component]:
    """The distributions that a family is a mixture of, which have its weight together."""
    points = component.tasks.weighted_points
    if len(points) == 1:
        return [component.model_copy(update={"tasks": points[0].tasks})]
    whole = sum(point.weight for point in points)
    return [
        component.model_copy(update={"tasks": point.tasks, "weight": component.weight * point.weight / whole})
        for point in points
    ]


def _unsuited(why: str) -> PydanticCustomError:
    return PydanticCustomError(UNSUITED_BACKEND, "{why}", {"why": why})
