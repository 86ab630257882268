"""The lines of a family's section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradsmith
from app.report.words import LABELS, number
from gradsmith.types import Report

WORDS = {"final": "last five steps", "area": "whole curve"}


@dataclass(frozen=True)
class Measured:
    """What came of a family. seconds: until the training had ended, and from then until the evaluation had.
    loops: mean last losses in the PyTorch loop, by reference; standing: that of parameters that do not move"""

    report: Report
    optimizer: gradsmith.types.Optimizer
    tuned: gradsmith.types.Optimizer | None
    best: str
    seconds: tuple[float, float]
    loops: Mapping[str, float]
    tasks: int
    standing: float


def lines(words: str, found: Measured) -> list[str]:
    """The section, its title first."""
    report = found.report
    held = report.raw.get("held_out") or {}
    timed = report.seconds["comparisons"]["best_baseline"]
    return [
        f"## A problem of one's own: {words}",
        "",
        f"{found.optimizer.card['training']['meta_steps']} meta-steps in {found.seconds[0]:.0f} s from the declaration "
        f"on, evaluated in {found.seconds[1]:.0f} s on {report.test_tasks} held-out tasks of {report.horizon} steps. "
        f"`best` names {found.best}.",
        "",
        f"> {found.optimizer.answer}",
        "",
        "| judged by | best tuned baseline | learned / baseline [95 %] | verdict | in equal time |",
        "|---|---|---|---|---|",
        *(_compared(report, timed, criterion) for criterion in WORDS),
        "",
        "| optimizer | last five steps | whole curve | held-out loss | right or explained | ms a step |",
        "|---|---|---|---|---|---|",
        *(_row(name, report, held.get(name, {})) for name in report.optimizers),
        "",
        _looped(found),
    ]


def _compared(report: Report, timed: Mapping[str, Any], criterion: str) -> str:
    best, other = report.comparisons["best_baseline"][criterion], timed[criterion]
    cells = (
        WORDS[criterion],
        f"{LABELS[best['baseline']]}, {best['schedule']}",
        f"{number(best['ratio_of_means'])} {_interval(best)}",
        report.verdict[criterion],
        f"{number(other['ratio_of_means'])} {_interval(other)} of {LABELS[other['baseline']]}",
    )
    return f"| {' | '.join(cells)} |"


def _interval(found: Mapping[str, Any]) -> str:
    bounds = found["ratio_interval"]
    return f"[{', '.join(map(number, bounds))}]" if bounds else ""


def _row(name: str, report: Report, held: Mapping[str, Any]) -> str:
    of, right = report.optimizers[name], held.get("accuracy")
    cells = [
        LABELS.get(name, name),
        number(of["final"]["mean"]),
        number(of["area"]["mean"]),
        number(held["loss"]) if held else "",
        "" if right is None else f"{100 * right:.1f} %",
        number(1e3 * report.seconds["run"][name] / report.horizon),
    ]
    return f"| {' | '.join(cells)} |"


def _looped(found: Measured) -> str:
    own = found.loops[found.optimizer.reference]
    said = f"In a PyTorch loop, on {found.tasks} tasks that torch alone draws, `LearnedOptimizer` ends at {number(own)}"
    if found.tuned is None:
        return f"{said}; parameters that do not move have {number(found.standing)}."
    theirs, settings = found.loops[found.tuned.reference], found.tuned.card["tuned"]
    return (
        f"{said}, tuned {LABELS[settings['baseline']]} (learning rate {number(settings['learning_rate'])}, "
        f"{settings['schedule']}) at {number(theirs)}, {number(own / theirs)} times that; parameters that do not move "
        f"have {number(found.standing)}."
    )
