"""How right predicted seconds are: a variety of small jobs through the service, actual over predicted.

    ./run bench price [--quick] [--dry]

Each case is previewed first, so that its first job's price rests on a calibration. Then the same training runs longer
and from another seed, and the optimizer is measured on more tasks, with prices that rest on jobs. Predictions are those
that workers wrote down before the jobs began. Run it on an idle machine: a neighbour makes jobs slower than they were
when they were timed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradsmith
from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned.report import machine
from models.baselines import DEFAULT_TUNED
from workshop.served import service

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
MARKS = ("<!-- price -->", "<!-- end of price -->")
ASKED_P90 = 1.3
LONGER = 3
"""How many times as many meta-steps the second training has."""


@dataclass(frozen=True)
class Case:
    """A training that is priced. recipe, evaluation: what changes of the family's own"""

    name: str
    family: str
    recipe: dict[str, Any]
    evaluation: dict[str, Any] = field(default_factory=dict)


LSTM = {"kind": "lstm", "hidden_size": 20, "layers": 2}
SMALL = {"test_tasks": 128, "tuning_tasks": 32, "search": "halving"}
CASES = (
    Case("quadratics", "quadratic", {"meta_steps": 100, "patience": None}, SMALL),
    Case(
        "quadratics, the paper's rule", "quadratic",
        {"meta_steps": 60, "patience": None, "rule": LSTM, "meta_gradient": "detached", "tasks": 128, "pool": 1}, SMALL,
    ),
    Case("Rosenbrock", "rosenbrock", {"meta_steps": 100, "patience": None}, SMALL),
    Case(
        "digits", "digits-mlp", {"meta_steps": 40, "patience": None, "validation_interval": 20},
        {"test_tasks": 32, "tuning_tasks": 8, "search": "halving", "baselines": [*DEFAULT_TUNED[:2], "muon"]},
    ),
    Case("an expression", "priced-ridge", {"meta_steps": 60, "patience": None}, SMALL),
)  # fmt: skip
RIDGE: dict[str, Any] = {
    "kind": "expression",
    "parameters": {"theta": {"kind": "normal", "shape": [10]}},
    "draws": {"A": {"kind": "normal", "shape": [20, 10]}, "y": {"kind": "normal", "shape": [20]}},
    "loss": "mean((A @ theta - y)**2)",
}


@dataclass(frozen=True)
class Found:
    """One job: what its worker predicted, and what it took."""

    case: str
    kind: str
    rests_on: str
    predicted: float
    actual: float

    @property
    def ratio(self) -> float:
        return self.actual / self.predicted


def measured(cases: Sequence[Case]) -> Iterator[Found]:
    with service(None, workers=1) as over, gradsmith.Client(over.url) as client:
        client.families.create("priced-ridge", RIDGE)
        for case in cases:
            asked: dict[str, Any] = {"recipe": case.recipe, "evaluation": case.evaluation}
            client.jobs.wait(client.families.preview(case.family, **asked).job)
            yield from _trained(client, case, case.recipe, 1)
            longer = case.recipe | {"meta_steps": LONGER * case.recipe["meta_steps"]}
            optimizer = yield from _trained(client, case, longer, 2)
            tasks = {"test_tasks": 2 * case.evaluation["test_tasks"]}
            again = client.jobs.create("evaluate", optimizer=optimizer, evaluation=case.evaluation | tasks)
            yield _ended(client, case, again.id)


def _trained(client: gradsmith.Client, case: Case, recipe: dict[str, Any], seed: int) -> Generator[Found, None, str]:
    """The training and its evaluation; returns the optimizer."""
    job = client.jobs.create(family=case.family, seed=seed, recipe=recipe, evaluation=case.evaluation)
    yield _ended(client, case, job.id)
    done = client.jobs.get(job)
    assert done.evaluation is not None
    assert done.optimizer is not None
    yield _ended(client, case, done.evaluation)
    return done.optimizer


def _ended(client: gradsmith.Client, case: Case, job: str) -> Found:
    price = client.jobs.wait(job).price
    kind = client.jobs.get(job).kind
    assert price is not None
    if price["predicted_seconds"] is None:
        raise RuntimeError(f"job {job} ({case.name}, {kind}) had no price; its preview should have given it one")
    source = "a calibration" if "a calibration" in price["rests_on"][0] else "jobs"
    return Found(case.name, kind, source, price["predicted_seconds"], price["actual_seconds"])


def quantile(ratios: Sequence[float], share: float) -> float:
    """The smallest ratio that at least this share of them does not exceed."""
    ordered = sorted(ratios)
    return ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)]


def lines(found: Sequence[Found]) -> list[str]:
    """The table, and the quantiles of actual over predicted, by what the prices rest on."""
    rows = [
        f"| {each.case} | {each.kind} | {each.rests_on} | {each.predicted:.1f} | {each.actual:.1f} | {each.ratio:.2f} |"
        for each in found
    ]
    told = []
    for name, chosen in (
        ("all", found),
        ("rest on a calibration", [each for each in found if each.rests_on == "a calibration"]),
        ("rest on jobs", [each for each in found if each.rests_on == "jobs"]),
    ):
        if chosen:
            ratios = [each.ratio for each in chosen]
            told.append(
                f"{name}: p50 {quantile(ratios, 0.5):.2f}, p90 {quantile(ratios, 0.9):.2f} of {len(ratios)} jobs"
            )
    whole = quantile([each.ratio for each in found], 0.9)
    verdict = "within" if whole <= ASKED_P90 else "NOT within"
    return [
        "| case | job | the price rests on | predicted s | actual s | ratio |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"Actual over predicted seconds, {'; '.join(told)}. The p90 of all is {verdict} the {ASKED_P90} asked for.",
        "",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run bench price", description="Actual over predicted seconds of jobs.")
    parser.add_argument("--quick", action="store_true", help="the first case alone")
    parser.add_argument("--dry", action="store_true", help="print, but do not write RESULTS.md")
    options = parser.parse_args(arguments)
    load, found = os.getloadavg()[0], []
    for each in measured(CASES[:1] if options.quick else CASES):
        found.append(each)
        print(f"{each.case}, {each.kind}: {each.actual:.1f} s, predicted {each.predicted:.1f}", flush=True)
    text = [
        "## What jobs cost",
        "",
        f"`./run bench price{' --quick' if options.quick else ''}`, {time.strftime('%Y-%m-%d')}, {machine()}; load "
        f"average before: {load:.1f}. Predictions are those that workers wrote down before the jobs began.",
        "",
        *lines(found),
    ]
    print("\n".join(text))
    if not options.dry:
        core_report.write(RESULTS, text[:-1], MARKS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
