"""A learned optimizer against what its family gives without a network: a learned schedule and a learned starting point.

    ./run bench family_tier [--family quadratic digits-mlp] [--seeds 0 1 2] [--data FOLDER] [--dry]

Trains each family's usual recipe once a seed, and evaluates it with `evaluation.family_tier`. The runs of baselines,
the schedules and the starting point are computed once a family, as evaluations of one service share them. Writes a
section a family into RESULTS.md. MNIST takes part where --data names a data folder with it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from app.report.family import schedule_sentence, start_sentence
from app.report.words import METRICS, interval, number, percent, shown
from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned.report import machine
from models.evaluation.baseline_runs import Stored
from models.evaluation.break_even import Spent
from models.evaluation.by_validation import Made
from models.evaluation.evaluate import evaluate
from models.families import FAMILIES
from models.measured import MeasuringProgress, MeasuringResult
from models.meta_train import TrainingResult, meta_train
from models.spec import MetaTrainSpec, Resources

RESULTS = ROOT / "benchmarks" / "RESULTS.md"


class Shelf:
    """Runs of baselines and what a family tier keeps, as one service has them."""

    def __init__(self) -> None:
        self._kept: dict[str, Stored] = {}

    def get(self, key: str) -> Stored | None:
        return self._kept.get(key)

    def put(self, key: str, baseline: str, content: bytes) -> None:  # noqa: ARG002 - names are for people
        self._kept[key] = Stored(content, "first seed")


def evaluated(name: str, seed: int, data: Path | None, shelf: Shelf) -> dict[str, Any]:
    """Train the family's recipe with this seed, and measure it; says on stderr how far it is."""
    family = FAMILIES[name]
    plan = family.evaluation.model_copy(update={"family_tier": True, "horizon": family.recipe.horizon})
    spec = MetaTrainSpec(
        family=family, seed=seed, recipe=family.recipe, evaluate=True, evaluation=plan, resources=Resources()
    )
    *_, trained = meta_train(spec, data_dir=data, threads=1)
    assert isinstance(trained, TrainingResult)
    cost = trained.summary["cost"]
    spent = Spent(cost["training"]["seconds"], cost["selection"]["seconds"])
    made, message, result = Made(spent, family.recipe, trained.validation_score), "", None
    follow_up = spec.follow_up("opt_measured")
    assert follow_up is not None
    for event in evaluate(trained.weights, follow_up, data_dir=data, threads=1, made=made, store=shelf):
        if isinstance(event, MeasuringProgress) and event.message != message:
            message = event.message
            print(f"{name}, seed {seed}: {message}", file=sys.stderr, flush=True)
        if isinstance(event, MeasuringResult):
            result = event.result
    assert result is not None
    result["trained"] = {
        "score": trained.validation_score,
        **spent.__dict__,
        "meta_steps": trained.summary["meta_steps"],
    }
    return result


def lines(results: dict[int, dict[str, Any]]) -> list[str]:
    """One family's tables, and what the report of each seed says."""
    first = next(iter(results.values()))
    tier = first["family_tier"]
    schedule = tier["schedule"]
    trained = [each["trained"] for each in results.values()]
    scores, took = (", ".join(number(each[field]) for each in trained) for field in ("score", "training"))
    steps = ", ".join(str(each["meta_steps"]) for each in trained)
    text = [
        f"Validation scores, lower is better: learned {scores}; schedule {number(schedule['score'])}; the best tuned "
        f"baseline {number(first['validation']['tuned'])}. The learned rule took {steps} meta-steps and {took} s; all "
        f"schedules together {schedule['meta_steps']} meta-steps and {number(schedule['seconds'])} s.",
        "",
        "| seed | learned against | last five steps: ratio (95 %) | tasks won | area: ratio (95 %) | verdicts |",
        "|---|---|---|---|---|---|",
    ]
    for seed, result in results.items():
        for other in ("best_baseline", *(each for each in ("schedule", "start") if each in result["comparisons"])):
            final, area = (result["comparisons"][other][metric] for metric in METRICS)
            row = [
                str(seed),
                shown(result, final.get("baseline", other), "final"),
                f"{number(final['ratio_of_means'])} ({interval(final['ratio_interval'])})",
                percent(final["share_won"]),
                f"{number(area['ratio_of_means'])} ({interval(area['ratio_interval'])})",
                f"{final['verdict']}, {area['verdict']}",
            ]
            text.append(f"| {' | '.join(row)} |")
    text.append("")
    for seed, result in results.items():
        text += [f"Seed {seed}: {schedule_sentence(result)} {start_sentence(result)}", ""]
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./run bench family_tier", description="Learned optimizers against their family's schedule and start."
    )
    choices = ["quadratic", "digits-mlp", "mnist-mlp"]
    parser.add_argument("--family", nargs="+", choices=choices, default=choices[:2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, help="a data folder with datasets/mnist, for mnist-mlp")
    parser.add_argument("--dry", action="store_true", help="print, but do not write RESULTS.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in options.family:
        begun, shelf = f"{machine()}; load average before: {os.getloadavg()[0]:.1f}.", Shelf()
        results = {seed: evaluated(name, seed, options.data, shelf) for seed in options.seeds}
        text = [
            f"## The family tier: {name}",
            "",
            f"`./run bench family_tier --family {name} --seeds {' '.join(map(str, options.seeds))}`, "
            f"{time.strftime('%Y-%m-%d')}, {begun}",
            "",
            *lines(results),
        ]
        print("\n".join(text), flush=True)
        if not options.dry:
            core_report.write(
                RESULTS, text[:-1], (f"<!-- family_tier: {name} -->", f"<!-- end of family_tier: {name} -->")
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
