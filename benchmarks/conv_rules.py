"""One rule against two on convolutional networks, and rules that never saw the labels: ./run bench conv_rules

Trains on a family, for each seed: one rule; two rules, one for the convolutions and one for the dense layers, each with
its norms and biases; and, on the other labels alone, one rule (LSTM-sub of section 3.3 of the paper). All are measured
on the same test tasks, against the best tuned baseline and two rules against one, with paired intervals.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned import measure
from models.baselines import DEFAULT_TUNED
from models.evaluation.statistics import Bootstrap, Comparison, compare
from models.families import FAMILIES
from models.families.recipes import PAPER
from models.spec import FamilySpec, overridden, with_tasks

LABELS = {
    "digits-conv": ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)),
    "cifar5-conv": ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)),
    "cifar2-conv": ((0, 1), (2, 3, 4, 5, 6, 7, 8, 9)),
}
"""The labels that are measured on, and those that rules learn on which never see the first."""

CONVOLUTIONS = "conv*"


def trainings(family: FamilySpec, other: FamilySpec) -> dict[str, FamilySpec]:
    """What is trained, by name. other: the family on the other labels"""
    rule = family.recipe.rule.model_dump()
    one = family.recipe.model_copy(update={"rules": {}})
    two = overridden(one, {"rules": {CONVOLUTIONS: rule}})
    family = family.model_copy(update={"recipe": one})
    other = other.model_copy(update={"recipe": one})
    return {
        "one rule": family,
        "two rules": family.model_copy(update={"recipe": two}),
        "one rule, other labels": other,
    }


def in_words(found: Comparison) -> str:
    low, high = found.ratio_interval
    return f"{found.ratio_of_means:.3f} [{low:.3f}, {high:.3f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run bench conv_rules", description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=list(LABELS), default="digits-conv")
    parser.add_argument(
        "--tasks", action="append", default=[], metavar="FIELD=VALUE", help="such as dataset=cifar10-subset"
    )
    parser.add_argument("--paper", action="store_true", help="the paper's recipe instead of the family's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--meta-steps", type=int)
    parser.add_argument("--test-tasks", type=int)
    parser.add_argument("--tuning-tasks", type=int)
    parser.add_argument("--validation-tasks", type=int)
    parser.add_argument("--validation-interval", type=int)
    parser.add_argument("--baselines", nargs="+", choices=DEFAULT_TUNED, default=list(DEFAULT_TUNED))
    parser.add_argument("--data", type=Path, help="data folder, for CIFAR-10")
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "conv_rules", help="where rules are kept")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    changes: dict[str, Any] = {}
    for each in options.tasks:
        name, _, value = each.partition("=")
        changes[name] = json.loads(value) if value[:1] in "[0123456789" else value
    family, other = (planned(options, changes | {"labels": labels}) for labels in LABELS[options.family])
    tunings, tuned = measure.baselines(family, options.data)
    plan = family.evaluation
    bootstrap = Bootstrap(plan.test_tasks, plan.bootstrap_samples, measure.EVALUATION_SEED)
    best = min(tuned, key=lambda name: float(tuned[name]["final"].final.mean()))
    chosen = tunings[best].best("final")
    print(
        f"{options.family}, labels {', '.join(map(str, LABELS[options.family][0]))}; {plan.test_tasks} test tasks, "
        f"{plan.horizon} steps. Best baseline at the last five: {best}, {chosen.schedule}, {chosen.learning_rate:.3g}: "
        f"{float(tuned[best]['final'].final.mean()):.4g}.\n"
    )
    print("| trained | seed | core-seconds | last five against the baseline | area | last five against one rule |")
    print("|---|---|---|---|---|---|")
    for seed in options.seeds:
        first: np.ndarray[Any, Any] | None = None
        for name, of_name in trainings(family, other).items():
            rule = measure.trained(
                of_name, seed, meta_steps=None, threads=1, data_dir=options.data,
                keep=options.keep / f"{options.family} {name} {'paper' if options.paper else 'ours'}".replace(" ", "-"),
            )  # fmt: skip
            [row] = measure.measured(family, [rule], tuned, options.data)
            final = measure.as_array(row.curves.final)
            first = final if first is None else first
            against = "" if final is first else in_words(compare(final, first, bootstrap))
            print(
                f"| {name} | {seed} | {rule.summary['core_seconds']:.0f} | {in_words(row.final)} "
                f"| {in_words(row.area)} | {against} |",
                flush=True,
            )
    return 0


def planned(options: argparse.Namespace, tasks: dict[str, Any]) -> FamilySpec:
    """The family on these tasks, with the options' recipe and plan."""
    family = FAMILIES[options.family]
    recipe = PAPER[options.family] if options.paper else family.recipe
    of_recipe = {
        name: getattr(options, name)
        for name in ("meta_steps", "validation_tasks", "validation_interval")
        if getattr(options, name) is not None
    }
    of_plan = {
        name: getattr(options, name) for name in ("test_tasks", "tuning_tasks") if getattr(options, name) is not None
    }
    of_plan["baselines"] = options.baselines
    changed = with_tasks(family, overridden(family.tasks, tasks))
    return changed.model_copy(
        update={"recipe": overridden(recipe, of_recipe), "evaluation": overridden(family.evaluation, of_plan)}
    )


if __name__ == "__main__":
    sys.exit(main())
