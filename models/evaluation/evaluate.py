"""An optimizer against two tiers of baselines on tasks that nothing was trained or selected on.

The tuned tier's learning rates and schedules are tuned on VALIDATION tasks, each baseline for both criteria from one
sweep; then every optimizer runs once on the same TEST tasks. A final loss is compared with the run of the baseline that
was tuned for the final loss, an area under the curve with the run that was tuned for the area. Both are compared after
equal steps and after equal seconds. The untuned tier runs once at its published defaults; the verdict is against the
tuned tier. The best baseline by its tuning runs once more on FRESH validation tasks, which sets the targets of
`time_to_target`. Where it is asked for, a family tier has what the family gives without a network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.baselines import UNTUNED
from models.evaluation.anatomy import anatomy, beside
from models.evaluation.baseline_runs import BaselineStore
from models.evaluation.break_even import break_even
from models.evaluation.by_validation import Itself, Made, as_optimizer, comparable, scored_here, scored_like, told
from models.evaluation.equal_time import budgets_of, in_seconds
from models.evaluation.family_tier import FamilyMeasurer, FamilyTier
from models.evaluation.record import bootstrap_of, compared_with, described_by
from models.evaluation.runs import EvaluationRuns
from models.evaluation.step_costs import step_costs
from models.evaluation.time_to_target import time_to_target
from models.measured import BestTuned, Measured, MeasuringProgress, MeasuringResult, OwnScore, Stopwatch, plain
from models.price import phases
from models.rollout import Contender
from models.runtime import runtime
from models.spec import BaselineName, EvaluateSpec
from models.tuning import Tuning


def evaluate(
    weights: bytes,
    spec: EvaluateSpec,
    *,
    data_dir: Path | None = None,
    threads: int | None = None,
    made: Made = Made(),
    store: BaselineStore | None = None,
    helpers: int = 0,
) -> Iterator[MeasuringProgress | MeasuringResult]:
    """Measure the optimizer in `weights`; the last event is the MeasuringResult.

    Progress comes at least every quarter of a second of work, give or take one inner step.
    threads: as in `meta_train`
    made: how the optimizer was made, for the break-even and for its comparison by validation
    store: where runs of baselines are kept between evaluations; None computes them
    helpers: processes that are forked for the runs of baselines, `models.evaluation.sharing.helpers_for` at most. They
        change no bit
    Raises gradsmith.errors.WeightsError, DatasetMissing, DatasetCorrupt, DeviceUnavailable, BackendUnavailable.
    """
    started = time.perf_counter()
    threads = spec.resources.threads_or(1) if threads is None else threads
    runs = EvaluationRuns(weights, spec, data_dir, threads, store, helpers)
    plan, progress = spec.evaluation, runs.progress
    measurer = FamilyMeasurer(runs, spec, store, data_dir, threads) if plan.family_tier else None

    watch = Stopwatch()
    whole = yield from watch.timing(runs.tested_learned(plan.horizon))
    measured = {"learned": Measured(whole, whole)}
    tunings = yield from runs.tuned(plan.baselines)
    measured |= yield from runs.tested(tunings)
    own = yield from _scored_here(runs, made)
    if own is not None and math.isfinite(own.score):
        made = replace(made, score=own.score)
    validated, baseline = yield from _validated(runs, spec, made, tunings)
    tier = FamilyTier()
    if measurer is not None:
        tier = yield from measurer.measured(tunings, made, None if validated is None else validated["tuned"])
    timed = {**measured, **{name: tier.measured[name] for name in tier.contenders}}
    measured |= tier.measured
    setter = min(tunings, key=lambda name: tunings[name].best_final.final)
    fixed = yield from runs.set_targets(setter, tunings[setter])

    contenders: dict[str, Contender] = {"learned": runs.learned}
    contenders |= {name: tuning.best("final") for name, tuning in tunings.items()}
    contenders |= {name: UNTUNED[name] for name in plan.untuned}
    contenders |= tier.contenders
    costs = yield from progress.ticking(step_costs(contenders, runs.one_task()), "timing a step of each")
    budgets = budgets_of(timed, costs)
    in_time = yield from runs.in_time(budgets, whole)
    shown = yield from _anatomy(runs, spec, tunings)

    yield progress.so_far("bootstrap")
    bootstrap = bootstrap_of(spec)
    comparisons = compared_with(measured, tunings, bootstrap)
    best = comparisons["best_baseline"]["final"]["baseline"]
    result = described_by(spec, measured, tunings, comparisons, bootstrap) | {
        "stored": runs.baselines.stored,
        "seconds": in_seconds(timed, tunings, costs, budgets, in_time, bootstrap),
        "time_to_target": time_to_target(timed, fixed, setter, costs),
        "break_even": break_even(
            *(measured["learned"], best, measured[best], len(tunings[best].points), costs, made.spent)
        ),
        "validation": validated,
        **({} if tier.told is None else {"family_tier": tier.told}),
        "anatomy": shown,
        "cost": {
            "seconds": (seconds := time.perf_counter() - started),
            "gradient_evaluations": dict(runs.baselines.gradients),
            "phases": phases(watch.seconds, runs.baselines.seconds, seconds),
        },
        "runtime": runtime(runs.device, runs.backend.name),
    }
    yield MeasuringResult(plain(result), tier.standin or baseline, own)


def _scored_here(runs: EvaluationRuns, made: Made) -> Generator[MeasuringProgress, None, OwnScore | None]:
    """The validation score of an optimizer that has none because it was not trained here."""
    if not made.elsewhere or made.recipe is None or made.recipe.mixture:
        return None
    itself = Itself(runs.tuning_family, runs.backend, runs.knows_steps)
    work = scored_here(made.recipe, itself, runs.dtype, runs.device)
    found = yield from runs.progress.ticking(work, "validating the optimizer")
    return found


def _validated(
    runs: EvaluationRuns, spec: EvaluateSpec, made: Made, tunings: dict[BaselineName, Tuning]
) -> Generator[MeasuringProgress, None, tuple[dict[str, Any] | None, BestTuned | None]]:
    """The best tuned baseline, scored as the optimizer was; None where that cannot be."""
    if not comparable(made, spec.evaluation.on):
        return None, None
    assert made.recipe is not None
    work = scored_like(made.recipe, tunings, runs.tuning_points, runs.dtype, runs.device)
    best, found = yield from runs.progress.ticking(work, "validating the best tuned baseline")
    return told(made, best, found), as_optimizer(made, best, found, spec.family.name)


def _anatomy(
    runs: EvaluationRuns, spec: EvaluateSpec, tunings: dict[BaselineName, Tuning]
) -> Generator[MeasuringProgress, None, dict[str, Any]]:
    """What the optimizer does on the first test task, beside Adam and RMSprop."""
    horizon, task = spec.evaluation.horizon, runs.first_test_task()
    others = beside(tunings, horizon)
    work = anatomy(runs.learned, others, task, task.parts, horizon, spec.seed)
    found = yield from runs.progress.ticking(work, "looking at its updates")
    rates = {
        name: {"learning_rate": each.learning_rate, "schedule": each.schedule, "tuned": name in tunings}
        for name, each in others.items()
    }
    return {"optimizers": rates} | found
