"""The table of the held-out objective: rules and baselines that were both trained for data that no step sees."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from benchmarks.panels.catalogue import Panel
from benchmarks.panels.per_image import PerImage, Watched, difference_interval, looks, ratio_interval
from benchmarks.panels.runs import SEED, TEST_TASKS, kept, learned
from benchmarks.panels.tables import ratio
from benchmarks.panels.tier import CRITERIA, SCHEDULES, in_reach, kept_sweep, label
from models.baselines import TUNED
from models.families.mlp import MLPSpec
from models.measured import TUNING_TRAJECTORY
from models.rollout import Contender, Sample, curves, run
from models.spec import Split
from models.tasks.catalogue import open_for_testing, open_for_tuning
from models.tasks.images import load_images
from models.tuning import GridPoint, Tuned, Tuning, candidates, learning_rate

HEAD = (
    "| panel | trained on | best baseline, tuned for held-out loss; its test loss and accuracy | ratio of test losses "
    "| each seed | accuracy, points | area ratio | asked for |",
    "|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True)
class HeldOut:
    """A panel on test images: its rules by meta-seed, and the best baseline for each criterion."""

    panel: Panel
    rules: Sequence[PerImage]
    final: tuple[Tuned, PerImage]
    area: tuple[Tuned, PerImage]


def measured(panel: Panel, weights: Sequence[bytes], data_dir: Path | None, keep: Path) -> HeldOut:
    """Run the rules and the baselines that are in reach of the best one."""
    rules = []
    for each in weights:
        told = ["images", *panel.told, hashlib.sha256(each).hexdigest()]
        rules.append(kept(PerImage, keep, told, partial(per_image, learned(panel, each), panel, data_dir)))
    return HeldOut(panel, rules, *(_best(panel, criterion, data_dir, keep) for criterion in CRITERIA))


def per_image(
    contender: Contender, panel: Panel, data_dir: Path | None, sample: Sample = Sample(Split.TEST, SEED, 0, TEST_TASKS)
) -> PerImage:
    """Its losses on each image of the sample's split, after its tasks' last steps and over the looks of their runs."""
    spec = panel.problem
    assert isinstance(spec, MLPSpec)
    images = load_images(spec.dataset, {sample.split}, data_dir)[sample.split]
    watched = Watched(contender, spec, images, looks(panel.horizon))
    opened = open_for_testing if sample.split is Split.TEST else open_for_tuning
    curves(run(watched, opened(spec, data_dir), sample, panel.horizon))
    return watched.found()


def sweep(panel: Panel, name: str, data_dir: Path | None, keep: Path) -> Tuning:
    """A baseline's sweep over schedules and learning rates for the loss on validation images: the same runs as those of
    `models.tuning`."""
    baseline, sample = TUNED[name], Sample(Split.VALIDATION, SEED, TUNING_TRAJECTORY, panel.tuning_tasks)

    def work() -> Tuning:
        points: dict[tuple[str, float], GridPoint] = {}
        for schedule, k in chain.from_iterable(candidates(baseline.centre, SCHEDULES, points)):
            tuned = Tuned(baseline, learning_rate(k), schedule, panel.horizon)
            found = per_image(tuned, panel, data_dir, sample)
            final, area = (float(each.double().mean()) for each in (found.losses, found.area))
            diverged = int(found.area.mean(dim=1).isinf().sum())
            points[schedule, k] = GridPoint(schedule, k, final, area, diverged, panel.tuning_tasks)
        return Tuning(baseline, panel.horizon, tuple(points.values()))

    return kept_sweep(panel, name, keep, "held out", work)


def _best(panel: Panel, criterion: str, data_dir: Path | None, keep: Path) -> tuple[Tuned, PerImage]:
    """The baseline with the lowest test loss, at the end or over the area."""
    sweeps = [sweep(panel, name, data_dir, keep) for name in panel.rivals]
    found = []
    for tuned in in_reach(sweeps, criterion):
        told = ["images", *panel.told, tuned.baseline.name, tuned.schedule, tuned.learning_rate]
        work = partial(per_image, tuned, panel, data_dir)
        found.append((tuned, kept(PerImage, keep, told, work)))
    return min(found, key=lambda pair: float((pair[1].losses if criterion == "final" else pair[1].area).mean()))


def line(measured: HeldOut) -> str:
    """A line of the table. Intervals are those of the seed in the middle."""
    panel, (tuned, final), (_, area) = measured.panel, measured.final, measured.area
    ratios = [ratio(rule.losses, final.losses) for rule in measured.rules]
    middle = measured.rules[sorted(range(len(ratios)), key=ratios.__getitem__)[(len(ratios) - 1) // 2]]
    points = 100 * float(middle.right.mean() - final.right.mean())
    low, high = (100 * each for each in difference_interval(middle.right, final.right))
    return (
        f"| {panel.name} | {panel.training} | {label(tuned)}: {float(final.losses.mean()):.4f}, "
        f"{100 * float(final.right.mean()):.1f} % | **{ratio(middle.losses, final.losses):.3f}** "
        f"{_brackets(ratio_interval(middle.losses, final.losses))} | {' '.join(f'{each:.3f}' for each in ratios)} "
        f"| {points:+.1f} [{low:+.1f}, {high:+.1f}] | {ratio(middle.area, area.area):.3f} "
        f"{_brackets(ratio_interval(middle.area, area.area))} | {panel.gate} |"
    )


def _brackets(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]"
