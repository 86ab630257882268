"""What jobs answered, as JSON that is committed: docs/paper/results/EXPERIMENT.json. The page is drawn from it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core.environment import ROOT
from benchmarks.core.machine import described
from benchmarks.reproduce.budgets import Budget
from benchmarks.reproduce.experiments import Experiment
from benchmarks.reproduce.protocol import Measured, Opening, Trained
from models.baselines import DEFAULT_TUNED
from models.evaluation.statistics import Bootstrap, compare

FOLDER = ROOT / "docs" / "paper" / "results"
FORMAT = 1
DIGITS = 6
Json = dict[str, Any]
LINES = ("mean", "low", "high")
CRITERIA = ("final", "area")
RESAMPLES = 10_000
PAPERS_BASELINES = tuple(name for name in DEFAULT_TUNED if name != "adamw")


def collected(
    experiment: Experiment,
    budget: Budget,
    seeds: Sequence[int],
    trained: Sequence[Trained],
    opening: Opening,
    measured: Sequence[Measured],
    command: str,
) -> Json:
    """All that the page says of an experiment."""
    jobs = [each.job for each in (*trained, *measured)]
    return {
        "format": FORMAT,
        "experiment": experiment.name,
        "budget": budget.name,
        "command": command,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": described(),
        "commits": sorted({job.metadata["commit"] for job in jobs}),
        "backends": sorted({str(job.runtime.get("backend")) for job in jobs}),
        "seeds": list(seeds),
        "seconds": {"training": _seconds(trained), "measuring": _seconds(measured)},
        "opening": {"at": opening.at, "chosen": opening.chosen, "late": opening.late},
        "trainings": [_training(one) for one in trained],
        "panels": [
            _panel(panel.name, [each for each in measured if each.panel == panel], experiment.against)
            for panel in experiment.panels
        ],
    }


def _seconds(done: Sequence[Trained | Measured]) -> float:
    """Seconds of all these jobs together, from when a worker took each to its end."""
    times = [(each.job.started_at, each.job.finished_at) for each in done]
    return sum((end - start).total_seconds() for start, end in times if start is not None and end is not None)


def _training(one: Trained) -> Json:
    told: Json = {
        "variant": one.training.name, "row": one.training.row, "seed": one.seed, "status": one.job.status,
        "reason": one.job.status_reason, "score": one.score,
    }  # fmt: skip
    if one.optimizer is not None:
        recipe, run = one.job.spec["recipe"], one.optimizer.card["training"]
        told |= {
            "rule": recipe["rule"]["kind"], "meta_gradient": recipe["meta_gradient"], "cost": run["cost"],
            "meta_steps": run.get("meta_steps"), "best_step": run.get("best_step"), "sha256": one.optimizer.sha256,
        }  # fmt: skip
    return told


def _panel(name: str, measured: Sequence[Measured], pairs: Sequence[tuple[str, str]]) -> Json:
    """The baselines are the same for all: they are told once, from the first report, which tuned them."""
    if not measured:
        return {"panel": name, "rows": []}
    first = measured[0].report
    baselines = {
        each: {
            "curve": _curve(first["optimizers"][each]["curve"]),
            "final": first["optimizers"][each]["final"],
            "area": first["optimizers"][each]["area"],
            "tuned": {key: first["tuning"][each][key] for key in ("learning_rate", "schedule", "runs")},
            "edges": _at_an_edge(first["tuning"][each]),
            "seconds": first["seconds"]["run"][each],
        }
        for each in first["tiers"]["tuned"]
    }
    return {
        "panel": name,
        "family": first["family"],
        "overrides": first["overrides"],
        "horizon": first["horizon"],
        "test_tasks": first["test_tasks"],
        "tuning_tasks": first["tuning_tasks"],
        "tuning": {
            "gradient_evaluations": max(each.report["cost"]["gradient_evaluations"]["tuning"] for each in measured),
            "seconds": first["cost"]["seconds"],
        },
        "baselines": baselines,
        "rows": [_row(each) for each in measured],
        "against": [found for pair in pairs for found in _against(measured, pair)],
    }


def _against(measured: Sequence[Measured], pair: tuple[str, str]) -> Iterator[Json]:
    """One variant's losses over another's on the same test tasks, for each seed that both have."""
    first, second = (
        {each.trained.seed: each for each in measured if each.trained.training.name == name} for name in pair
    )
    for seed in sorted(first.keys() & second.keys()):
        told = {"variant": pair[0], "other": pair[1], "seed": seed}
        for criterion in CRITERIA:
            losses, others = (
                np.array(each[seed].report["paired"][criterion]["learned"], dtype=np.float64)
                for each in (first, second)
            )
            found = compare(losses, others, Bootstrap(len(losses), RESAMPLES, 0))
            told[criterion] = {
                "ratio_of_means": _finite(found.ratio_of_means),
                "ratio_interval": [_finite(end) for end in found.ratio_interval],
                "share_won": found.share_won,
                "verdict": found.verdict,
            }
        yield told


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _row(each: Measured) -> Json:
    learned, best = each.report["optimizers"]["learned"], each.report["comparisons"]["best_baseline"]
    timed = each.report["seconds"]["comparisons"]
    rival = timed["best_baseline"]["final"]
    return {
        "variant": each.trained.training.name,
        "row": each.trained.training.row,
        "seed": each.trained.seed,
        "curve": _curve(learned["curve"]),
        "diverged": learned["diverged"],
        "final": learned["final"],
        "area": learned["area"],
        "seconds": each.report["seconds"]["run"]["learned"],
        "equal_time": rival | {"steps": timed[rival["baseline"]]["learned_steps"]["median"]},
        "break_even": each.report["break_even"]["runs"],
        "best_baseline": best,
        "papers_baseline": _against_the_papers(each.report),
        "job": each.job.id,
    }


def _against_the_papers(report: Mapping[str, Any]) -> Json:
    """The comparison with the best of the baselines that the paper has too, by its mean on the test tasks."""

    def mean(name: str) -> float:
        found = report["optimizers"][name]["final"]["mean"]
        return math.inf if found is None else float(found)

    best = min((name for name in PAPERS_BASELINES if name in report["tiers"]["tuned"]), key=mean)
    return {"baseline": best, **report["comparisons"][best]["final"]}


def _curve(curve: Mapping[str, Sequence[float | None]]) -> Json:
    return {line: [None if value is None else float(f"{value:.4g}") for value in curve[line]] for line in LINES}


def _at_an_edge(tuned: Mapping[str, Any]) -> list[str]:
    """The criteria by which the best learning rate is the lowest or highest of its schedule that was tried."""
    found = []
    for criterion in CRITERIA:
        tried = [point["learning_rate"] for point in tuned["grid"] if point["schedule"] == tuned["schedule"][criterion]]
        if not min(tried) < tuned["learning_rate"][criterion] < max(tried):
            found.append(criterion)
    return found


def write(found: Json, folder: Path = FOLDER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found['experiment']}.json"
    text = json.dumps(_rounded(found), separators=(",", ":")).replace('{"variant"', '\n{"variant"')
    path.write_text(text.replace('{"panel"', '\n{"panel"') + "\n", encoding="utf-8")
    return path


def read(folder: Path = FOLDER) -> dict[str, Json]:
    """The results there are, by experiment."""
    found = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
    return {each["experiment"]: each for each in found}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
