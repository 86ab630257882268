"""Learned against tuned: meta-train on several seeds, measure each on the same held-out tasks, report them all.

    python benchmarks/learned_vs_tuned.py --family quadratic --seeds 0 1 2 3 4

Prints a row for every seed, writes the family's section of benchmarks/RESULTS.md and the picture
docs/images/<family>.png. Learning rates are tuned once, on validation tasks; test tasks are drawn once, the same for
every optimizer and seed. `--keep DIR` stores each trained rule there and takes it from there the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from gradsmith.rules import weights as rule_weights
from models.backends import backend_for
from models.baselines import KINDS, Tuning, tune
from models.evaluate import TUNING_TRAJECTORY
from models.meta_train import MetaStep, Restarted, TrainingResult, Validated, meta_train
from models.rollout import Curves, Learned, Sample, curves, run
from models.spec import BUILT_IN_FAMILIES, FamilySpec, MetaTrainSpec, Resources, Split, overridden
from models.statistics import Bootstrap, Comparison, compare
from models.tasks.catalogue import open_for_testing, open_for_tuning

ROOT = Path(__file__).parents[1]
EVALUATION_SEED = 0
NAMES = {"learned": "learned", "adam": "Adam", "rmsprop": "RMSprop", "nag": "NAG", "sgd": "SGD"}
COLORS = {"learned": "#c2410c", "adam": "#1d4ed8", "rmsprop": "#0f766e", "nag": "#7c3aed", "sgd": "#64748b"}
T = TypeVar("T")


@dataclass(frozen=True)
class Trained:
    """One meta-seed: its rule, and what it took."""

    seed: int
    weights: bytes
    summary: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One meta-seed against the best tuned baseline on the held-out tasks, at the last step and over the area."""

    trained: Trained
    curves: Curves
    final: Comparison
    area: Comparison


def main() -> int:
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    family = BUILT_IN_FAMILIES[arguments.family]
    trained = [_trained(family, seed, arguments) for seed in arguments.seeds]
    tunings, baselines = _baselines(family, arguments.data)
    rows = _measured(family, trained, baselines, arguments.data)
    lines = _report(family, rows, tunings, baselines)
    print("\n".join(lines))
    if not arguments.dry:
        _write_section(arguments.family, lines)
        _draw(family, rows, tunings, baselines)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--family", choices=sorted(BUILT_IN_FAMILIES), default="quadratic")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--meta-steps", type=int, default=None, help="default: the family's recipe")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=None, help="data folder, for families that need one")
    parser.add_argument("--keep", type=Path, default=None, help="store trained rules here and use those that are")
    parser.add_argument("--dry", action="store_true", help="print, but write neither RESULTS.md nor the picture")
    return parser


def _trained(family: FamilySpec, seed: int, arguments: argparse.Namespace) -> Trained:
    changes = {} if arguments.meta_steps is None else {"meta_steps": arguments.meta_steps}
    recipe = overridden(family.recipe, changes)
    kept = None if arguments.keep is None else arguments.keep / f"{family.name}-{recipe.meta_steps}-{seed}.safetensors"
    if kept is not None and kept.exists():
        return Trained(seed, kept.read_bytes(), json.loads(kept.with_suffix(".json").read_text()))
    spec = MetaTrainSpec(
        family=family,
        seed=seed,
        recipe=recipe,
        evaluate=False,
        evaluation=family.evaluation,
        resources=Resources(threads=arguments.threads),
    )
    began, cpu = time.perf_counter(), time.process_time()
    result: TrainingResult | None = None
    for event in meta_train(spec, data_dir=arguments.data):
        match event:
            case Validated(step=step, score=score):
                print(f"seed {seed}  meta-step {step:5d}  validation {score:.4g}", file=sys.stderr, flush=True)
            case Restarted(reason=reason):
                print(f"seed {seed}  {reason}", file=sys.stderr, flush=True)
            case MetaStep(step=step, skipped=True):
                print(f"seed {seed}  meta-step {step} skipped", file=sys.stderr, flush=True)
            case TrainingResult():
                result = event
    if result is None:
        raise RuntimeError("meta-training ended without a result")
    spent = {"wall_seconds": time.perf_counter() - began, "core_seconds": time.process_time() - cpu}
    summary = result.summary | spent | {"validation_score": result.validation_score}
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(result.weights)
        kept.with_suffix(".json").write_text(json.dumps(summary))
    return Trained(seed, result.weights, summary)


def _baselines(family: FamilySpec, data_dir: Path | None) -> tuple[dict[str, Tuning], dict[str, dict[str, Curves]]]:
    """Each baseline tuned on validation tasks, and its final-tuned and area-tuned run on the test tasks."""
    plan = family.evaluation
    tuning_family, test_family = open_for_tuning(family.tasks, data_dir), open_for_testing(family.tasks, data_dir)
    sample = Sample(Split.VALIDATION, EVALUATION_SEED, TUNING_TRAJECTORY, plan.tuning_tasks)
    tunings: dict[str, Tuning] = {}
    found: dict[str, dict[str, Curves]] = {}
    for name in plan.baselines:
        tunings[name] = _to_the_end(tune(name, tuning_family, sample, plan.horizon))
        best = {"final": tunings[name].best_final, "area": tunings[name].best_area}
        found[name] = {
            criterion: curves(
                run(KINDS[name](point.learning_rate), test_family, _test_sample(family), plan.horizon, held_out=True)
            )
            for criterion, point in best.items()
        }
        print(f"{name} tuned in {len(tunings[name].points)} runs", file=sys.stderr, flush=True)
    return tunings, found


def _measured(
    family: FamilySpec, trained: list[Trained], baselines: dict[str, dict[str, Curves]], data_dir: Path | None
) -> list[Row]:
    plan = family.evaluation
    bootstrap = Bootstrap(plan.test_tasks, plan.bootstrap_samples, EVALUATION_SEED)
    test_family = open_for_testing(family.tasks, data_dir)
    final = min((each["final"].final for each in baselines.values()), key=lambda losses: float(losses.mean()))
    area = min((each["area"].area for each in baselines.values()), key=lambda losses: float(losses.mean()))
    rows = []
    for one in trained:
        rule = rule_weights.loads(one.weights)
        optimizer = Learned(rule, backend_for(rule, torch.float32, torch.device("cpu")))
        found = curves(run(optimizer, test_family, _test_sample(family), plan.horizon, held_out=True))
        rows.append(
            Row(
                one,
                found,
                compare(_array(found.final), _array(final), bootstrap),
                compare(_array(found.area), _array(area), bootstrap),
            )
        )
    return rows


def _test_sample(family: FamilySpec) -> Sample:
    return Sample(Split.TEST, EVALUATION_SEED, 0, family.evaluation.test_tasks)


def _array(losses: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return losses.numpy().astype(np.float64)


def _to_the_end(work: Generator[object, None, T]) -> T:
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: T = end.value
            return found


# --- the report -------------------------------------------------------------------------------------------------


def _report(
    family: FamilySpec, rows: list[Row], tunings: dict[str, Tuning], baselines: dict[str, dict[str, Curves]]
) -> list[str]:
    plan = family.evaluation
    command = "./run bench learned_vs_tuned " + " ".join(_without_paths(sys.argv[1:]))
    backends = {row.trained.summary["runtime"]["backend"] for row in rows}
    worst = max(row.final.ratio_of_means for row in rows)
    worst_area = max(row.area.ratio_of_means for row in rows)
    best = min(baselines, key=lambda name: float(baselines[name]["final"].final.mean()))
    best_area = min(baselines, key=lambda name: float(baselines[name]["area"].area.mean()))
    lines = [
        f"## {family.title}: learned against tuned, every seed",
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {_machine()}, backend {', '.join(sorted(backends))}.",
        "",
        f"{plan.test_tasks} held-out tasks, horizon {plan.horizon}. Ratios are learned / best tuned baseline "
        f"({NAMES[best]} at the last step, {NAMES[best_area]} over the area), below 1 the learned optimizer is better; "
        f"brackets are paired bootstrap 95 % intervals. The worst of {len(rows)} seeds: {worst:.3f} at the last step, "
        f"{worst_area:.3f} over the area.",
        "",
        "| meta-seed | last step, ratio of means | ratio of medians | tasks won | difference of means "
        "| area, ratio of means | tasks won | verdicts | best meta-step | core-seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        final, area = row.final, row.area
        lines.append(
            f"| {row.trained.seed} | {final.ratio_of_means:.3f} {_brackets(final.ratio_interval)} "
            f"| {final.ratio_of_medians:.2f} | {100 * final.share_won:.0f} % "
            f"| {_brackets(final.difference_interval)} "
            f"| {area.ratio_of_means:.3f} {_brackets(area.ratio_interval)} | {100 * area.share_won:.0f} % "
            f"| {final.verdict}, {area.verdict} "
            f"| {row.trained.summary['best_step']} of {row.trained.summary['meta_steps']}"
            f"{_restarts(row.trained.summary)} | {row.trained.summary['core_seconds']:.0f} |"
        )
    lines += ["", "| optimizer | learning rate (last step / area) | runs | last step: mean, median | area: mean |"]
    lines += ["|---|---|---|---|---|"]
    for name, tuning in tunings.items():
        final_losses, area_losses = baselines[name]["final"].final, baselines[name]["area"].area
        lines.append(
            f"| {NAMES[name]} | {tuning.best_final.learning_rate:.3g} / {tuning.best_area.learning_rate:.3g} "
            f"| {len(tuning.points)} | {float(final_losses.mean()):.4g}, {float(final_losses.median()):.4g} "
            f"| {float(area_losses.mean()):.4g} |{_held_out(baselines[name]['final'])}"
        )
    for row in rows:
        lines.append(
            f"| learned, seed {row.trained.seed} | | | {float(row.curves.final.mean()):.4g}, "
            f"{float(row.curves.final.median()):.4g} | {float(row.curves.area.mean()):.4g} |{_held_out(row.curves)}"
        )
    if rows[0].curves.held_out is not None:
        lines[-len(rows) - len(tunings) - 2] += " test images: loss, accuracy |"
        lines[-len(rows) - len(tunings) - 1] += "---|"
    return [*lines, "", f"![{family.title}](../docs/images/{family.name}.png)"]


def _held_out(found: Curves) -> str:
    if found.held_out is None:
        return ""
    return f" {float(found.held_out.losses.mean()):.4g}, {100 * float(found.held_out.accuracies.mean()):.1f} % |"


def _restarts(summary: dict[str, Any]) -> str:
    return f", restarted at {summary['restarts']}" if summary["restarts"] else ""


def _brackets(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.3g}, {interval[1]:.3g}]"


def _without_paths(arguments: list[str]) -> list[str]:
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument not in ("--keep", "--dry"):
            kept.append(argument)
        skip = argument == "--keep"
    return kept


def _machine() -> str:
    model = "an unnamed CPU"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        model = found.group(1).strip() if found else model
    return (
        f"{os.cpu_count()} cores ({model}, {torch.backends.cpu.get_cpu_capability()}, shared), "
        f"{torch.get_num_threads()} thread, torch {torch.__version__}, Python {platform.python_version()}"
    )


def _write_section(name: str, lines: list[str]) -> None:
    """Replace the family's section of RESULTS.md, or add it."""
    path = ROOT / "benchmarks" / "RESULTS.md"
    opening, closing = f"<!-- learned_vs_tuned: {name} -->", f"<!-- end of learned_vs_tuned: {name} -->"
    text = path.read_text() if path.exists() else "# Results\n"
    section = "\n".join([opening, *lines, closing])
    if opening in text:
        head, rest = text.split(opening, 1)
        text = head + section + rest.split(closing, 1)[1]
    else:
        text = text.rstrip("\n") + "\n\n" + section + "\n"
    path.write_text(text)


# --- the picture ------------------------------------------------------------------------------------------------


def _draw(
    family: FamilySpec, rows: list[Row], tunings: dict[str, Tuning], baselines: dict[str, dict[str, Curves]]
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    plan = family.evaluation
    figure = Figure(figsize=(8, 4.5), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.085, 0.125, 0.70, 0.715))
    steps = np.arange(plan.horizon + 1)
    ends: list[tuple[float, str, str, bool]] = []
    for name, tuning in tunings.items():
        mean = _array(baselines[name]["final"].losses).mean(axis=1)
        axes.plot(steps, mean, color=COLORS[name], linewidth=1.5, alpha=0.85)
        ends.append((mean[-1], f"{NAMES[name]}, tuned to {tuning.best_final.learning_rate:.2g}", COLORS[name], False))
    by_seed = np.stack([_array(row.curves.losses).mean(axis=1) for row in rows])
    centre = np.median(by_seed, axis=0)
    axes.fill_between(steps, by_seed.min(axis=0), by_seed.max(axis=0), color=COLORS["learned"], alpha=0.22, linewidth=0)
    axes.plot(steps, centre, color=COLORS["learned"], linewidth=2.6)
    ends.append((centre[-1], "learned", COLORS["learned"], True))
    axes.set_yscale("log")
    axes.set_xlim(0, plan.horizon)
    axes.margins(y=0.03)
    _label_ends(axes, ends)
    axes.set_xlabel("step", color="#374151")
    axes.set_ylabel(f"mean loss over {plan.test_tasks} held-out tasks", color="#374151")
    axes.grid(True, which="major", color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors="#6b7280", which="both", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#9ca3af")
    figure.text(0.085, 0.935, family.title, fontsize=14, fontweight="bold", color="#111827")
    figure.text(
        0.085,
        0.878,
        f"A learned optimizer (median of {len(rows)} meta-seeds, band from the worst to the best) "
        "against tuned baselines",
        fontsize=9.5,
        color="#4b5563",
    )
    path = ROOT / "docs" / "images" / f"{family.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)


def _label_ends(axes: Any, ends: list[tuple[float, str, str, bool]]) -> None:
    """Names at the right end of their curves, pushed apart where curves end close together."""
    low, high = np.log10(axes.get_ylim())
    gap = 0.062 * (high - low)
    placed: list[float] = []
    for value, text, color, strong in sorted(ends):
        at = np.log10(value)
        at = max(at, placed[-1] + gap) if placed else at
        placed.append(at)
        axes.annotate(
            text,
            (1.012, (at - low) / (high - low)),
            xycoords="axes fraction",
            va="center",
            fontsize=10.5 if strong else 9,
            fontweight="bold" if strong else "normal",
            color=color,
            annotation_clip=False,
        )


if __name__ == "__main__":
    sys.exit(main())
