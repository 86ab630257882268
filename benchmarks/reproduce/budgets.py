"""How much of an experiment is run: `quick` on a share of one core, `short` on two cores, `paper` on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from benchmarks.reproduce.experiments import EXPERIMENTS, Experiment, Panel, Training, recipe_of_the_paper
from models.baselines import usual_tuned
from models.families import FAMILIES
from models.rule_spec import RuleSpec
from models.spec import Recipe, overridden
from models.task_spec import TaskSpec

_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Budget:
    """seeds: meta-seeds of every variant, by experiment where it is not `usual_seeds`
    recipes: laid over the recipes of an experiment's variants; papers: over those of the paper's method alone
    tasks: laid over the tasks of an experiment's variants and panels, such as another data set
    evaluation: laid over the families' plans; evaluations: over those of one experiment; panels: over that of a panel
    """

    name: str
    words: str
    usual_seeds: int
    seeds: Mapping[str, int] = field(default_factory=dict)
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    papers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    panels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)

    def seeds_of(self, experiment: Experiment) -> int:
        return self.seeds.get(experiment.name, self.usual_seeds)

    def training(self, experiment: Experiment, training: Training, seed: int) -> dict[str, Any]:
        """What POST /jobs gets to train a variant."""
        recipe: dict[str, Any] = {}
        if training.as_written:
            whole: Recipe = overridden(
                recipe_of_the_paper(training.family), {**training.recipe, **self._papers(experiment)}
            )
            recipe = _differences(whole, FAMILIES[training.family].recipe)
        else:
            recipe = {**training.recipe, **self.recipes.get(experiment.name, _NONE)}
        body = {
            "family": training.family, "seed": seed, "recipe": recipe, "evaluate": False,
            "resources": dict(self.resources),
        }  # fmt: skip
        tasks = {**training.tasks, **self.tasks.get(experiment.name, _NONE)}
        return body | ({"tasks": tasks} if tasks else {})

    def datasets(self, experiment: Experiment) -> tuple[str, ...]:
        """The data sets that its tasks need here, each once."""
        named: dict[str, None] = {}
        asked = [(each.family, each.tasks) for each in experiment.trainings]
        asked += [(each.family, each.tasks) for each in experiment.panels]
        for family, changes in asked:
            changed = {**changes, **self.tasks.get(experiment.name, _NONE)}
            tasks: TaskSpec = overridden(FAMILIES[family].tasks, changed)
            named |= dict.fromkeys(tasks.datasets)
        return tuple(named)

    def on(self, dataset: str, experiment: Experiment) -> Budget:
        """The same on another data set. Raises ValueError where a family of the experiment cannot be on it."""
        budget = replace(self, tasks={**self.tasks, experiment.name: {"dataset": dataset}})
        try:
            budget.datasets(experiment)
        except ValidationError as error:
            raise ValueError(f"It cannot be on {dataset!r}: {error.errors()[0]['msg']}.") from error
        return budget

    def _papers(self, experiment: Experiment) -> Mapping[str, Any]:
        return {**self.recipes.get(experiment.name, _NONE), **self.papers.get(experiment.name, _NONE)}

    def evaluation_of(self, experiment: Experiment, panel: Panel, optimizer: str) -> dict[str, Any]:
        """What POST /jobs gets to measure an optimizer on a panel."""
        usual = usual_tuned(FAMILIES[panel.family].tasks)
        body = {
            "optimizer": optimizer, "family": panel.family,
            "evaluation": {
                "baselines": [name for name in usual if name not in experiment.without],
                **self.evaluation,
                **self.evaluations.get(experiment.name, _NONE),
                **self.panels.get(panel.name, _NONE),
            },
            "resources": dict(self.resources),
        }  # fmt: skip
        tasks = {**panel.tasks, **self.tasks.get(experiment.name, _NONE)}
        return body | ({"tasks": tasks} if tasks else {})


def _differences(wanted: Recipe, own: Recipe) -> dict[str, Any]:
    """What a job has to change of the family's own recipe to get the wanted one. Settings that both have by default are
    not in it, so that a setting which is added later makes no other job of it."""
    ours, theirs = wanted.model_dump(mode="json"), own.model_dump(mode="json")
    found = {name: value for name, value in ours.items() if value != theirs[name]}
    if "rule" in found and wanted.rule.kind != own.rule.kind:
        found["rule"] = _rule(wanted.rule)
    if "rules" in found:
        found["rules"] = {pattern: _rule(rule) for pattern, rule in wanted.rules.items()}
    return found


def _rule(rule: RuleSpec) -> dict[str, Any]:
    return {"kind": rule.kind, **rule.model_dump(mode="json", exclude_defaults=True)}


_ON_MNIST = ("mnist", "mnist-transfers", "mnist-architectures")
_MNIST_VALIDATION = {"validation_tasks": 16, "validation_interval": 100}
_SMALL_MNIST = {"meta_steps": 400, **_MNIST_VALIDATION}
_FEWER_TASKS = {"test_tasks": 16, "tuning_tasks": 4}
_SMALL_CIFAR = {"validation_tasks": 2, "validation_interval": 20}
BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            "quick",
            "one seed on a share of one core; fewest validation, tuning and test tasks; CIFAR-10 from 7,044 images",
            1,
            recipes={"cifar": {"meta_steps": 60, **_SMALL_CIFAR}, "art": {"meta_steps": 160}},
            papers={
                **dict.fromkeys(_ON_MNIST, _SMALL_MNIST),
                "cifar": {"meta_steps": 100, **_SMALL_CIFAR},
            },
            tasks={"cifar": {"dataset": "cifar10-subset"}},
            evaluation={"search": "halving", "untuned": []},
            evaluations={
                **dict.fromkeys(_ON_MNIST, _FEWER_TASKS),
                "cifar": {"test_tasks": 8, "tuning_tasks": 2},
                "art": {"test_tasks": 8, "tuning_tasks": 2},
            },
            panels={"128 x 128": {"test_tasks": 8, "tuning_tasks": 1}},
        ),
        Budget(
            "short",
            "two cores, at most 90 minutes an experiment; learning rates by successive halving",
            5,
            seeds={"cifar": 3, "art": 3},
            papers={
                **dict.fromkeys(_ON_MNIST, _MNIST_VALIDATION),
                "cifar": {"meta_steps": 300, "validation_tasks": 4},
            },
            evaluation={"search": "halving", "untuned": []},
            evaluations={name: {"test_tasks": 8, "tuning_tasks": 4} for name in ("cifar", "art")},
        ),
        Budget(
            "paper",
            "a GPU; every learning rate on all tuning tasks, and more meta-steps on images",
            5,
            recipes={name: {"meta_steps": 4000} for name in _ON_MNIST}
            | {"cifar": {"meta_steps": 2000}, "art": {"meta_steps": 2000}},
            evaluation={"search": "full"},
            resources={"device": "gpu"},
        ),
    )
}


def known() -> dict[str, Experiment]:
    """The experiments all of whose families are built in here, by name."""
    return {each.name: each for each in EXPERIMENTS if set(each.families) <= FAMILIES.keys()}
