"""An optimizer against two tiers of baselines on tasks that nothing was trained or selected on.

The tuned tier's learning rates and schedules are tuned on VALIDATION tasks, each baseline for both criteria from one
sweep; then every optimizer runs once on the same TEST tasks. A final loss is compared with the run of the baseline that
was tuned for the final loss, an area under the curve with the run that was tuned for the area. Both are compared after
equal steps and after equal seconds. The untuned tier runs once at its published defaults; the verdict is against the
tuned tier. The best baseline by its tuning runs once more on FRESH validation tasks, which sets the targets of
`time_to_target`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gradsmith.rules import weights as rule_weights
from models.backends import backend_for, dtype_for
from models.baselines import TUNED, UNTUNED
from models.baselines.base import Baseline
from models.curves import Curves, looks
from models.evaluation.baseline_runs import BaselineRuns, BaselineStore
from models.evaluation.break_even import break_even
from models.evaluation.by_validation import Made, as_optimizer, comparable, scored_like, told
from models.evaluation.equal_time import in_seconds
from models.evaluation.statistics import Bootstrap, Comparison, compare
from models.evaluation.step_costs import StepCosts, step_costs
from models.evaluation.time_to_target import Target, targets, time_to_target
from models.measured import (
    CRITERIA,
    MEANINGS,
    TUNING_TRAJECTORY,
    BestTuned,
    Measured,
    MeasuringProgress,
    MeasuringResult,
    Runs,
    described,
    plain,
    sweep_of,
)
from models.rollout import Contender, Learned, Sample, run
from models.runtime import device_of, runtime
from models.spec import BaselineName, EvaluateSpec, Split
from models.tasks.base import TaskBatch
from models.tasks.catalogue import open_for_testing, open_for_tuning
from models.tasks.randomness import key
from models.tuning import Tuning, runs_of

FORMAT = 3
FRESH_TRAJECTORY = TUNING_TRAJECTORY + 1  # of the validation split: nothing is selected or tuned on these tasks


def evaluate(
    weights: bytes,
    spec: EvaluateSpec,
    *,
    data_dir: Path | None = None,
    threads: int | None = None,
    made: Made = Made(),
    store: BaselineStore | None = None,
) -> Iterator[MeasuringProgress | MeasuringResult]:
    """Measure the optimizer in `weights`; the last event is the MeasuringResult.

    Progress comes at least every quarter of a second of work, give or take one inner step.
    threads: as in `meta_train`
    made: how the optimizer was made, for the break-even and for its comparison by validation
    store: where runs of baselines are kept between evaluations; None computes them
    Raises gradsmith.errors.WeightsError, DatasetMissing, DatasetCorrupt, DeviceUnavailable, BackendUnavailable.
    """
    yield from _Evaluation(
        weights, spec, data_dir, spec.resources.threads_or(1) if threads is None else threads, made, store
    ).events()


class _Evaluation:
    def __init__(
        self,
        weights: bytes,
        spec: EvaluateSpec,
        data_dir: Path | None,
        threads: int,
        made: Made,
        store: BaselineStore | None,
    ) -> None:
        self._spec = spec
        self._made = made
        self._plan = spec.evaluation
        self._device = device_of(spec.resources)
        rule, wanted = rule_weights.loads(weights), spec.resources.backend
        self._dtype = dtype_for(wanted, given=next(rule.parameters()).dtype)
        rule = rule.to(self._device, self._dtype)
        self._backend = backend_for(
            *(rule, self._dtype, self._device, threads), wanted=wanted, parts=spec.family.tasks.parts()
        )
        # Two families, each opened for one split: what tunes cannot see what is measured.
        self._tuning_family = open_for_tuning(spec.family.tasks, data_dir)
        self._test_family = open_for_testing(spec.family.tasks, data_dir)
        self._started = time.perf_counter()
        # The learned rule, the targets, each untuned baseline, each tuned one's sweep and its run for each criterion.
        sweeps = len(self._plan.baselines) * (runs_of(self._plan.schedules) + len(CRITERIA))
        self._runs = Runs(2 + len(self._plan.untuned) + sweeps)
        self._baselines = BaselineRuns(spec, self._dtype, self._device, self._runs, store)
        self._test_sample = Sample(Split.TEST, spec.seed, 0, self._plan.test_tasks)

    def events(self) -> Iterator[MeasuringProgress | MeasuringResult]:
        learned = Learned(self._backend, rests=True, horizon=self._plan.horizon)
        measured = {"learned": (yield from self._learned(learned))}
        tunings: dict[BaselineName, Tuning] = {}
        for name in self._plan.baselines:
            tunings[name] = yield from self._tuned(name)
        for name, tuning in tunings.items():
            final, area = (tuning.best(criterion) for criterion in CRITERIA)
            measured[name] = yield from self._tested(TUNED[name], final, area)
            self._runs.done += final == area
        for name in self._plan.untuned:
            measured[name] = yield from self._tested(UNTUNED[name], UNTUNED[name], UNTUNED[name])
        setter = min(tunings, key=lambda name: tunings[name].best_final.final)
        fixed = yield from self._targets(setter, tunings[setter])
        contenders: dict[str, Contender] = {"learned": learned}
        contenders |= {name: tuning.best("final") for name, tuning in tunings.items()}
        contenders |= {name: UNTUNED[name] for name in self._plan.untuned}
        costs = yield from self._runs.ticking(step_costs(contenders, self._one_task()), "timing a step of each")
        validated, baseline = yield from self._validated(tunings)
        yield self._runs.so_far("bootstrap")
        result = self._result(measured, tunings, costs)
        result["validation"] = validated
        result["time_to_target"] = time_to_target(measured, fixed, setter, costs)
        yield MeasuringResult(plain(result), baseline)

    def _validated(
        self, tunings: dict[BaselineName, Tuning]
    ) -> Generator[MeasuringProgress, None, tuple[dict[str, Any] | None, BestTuned | None]]:
        """The best tuned baseline, scored as the optimizer was; None where that cannot be."""
        if not comparable(self._made, self._plan.on):
            return None, None
        assert self._made.recipe is not None
        work = scored_like(self._made.recipe, tunings, self._tuning_family, self._dtype, self._device)
        best, found = yield from self._runs.ticking(work, "validating the best tuned baseline")
        return told(self._made, best, found), as_optimizer(self._made, best, found, self._spec.family.name)

    def _one_task(self) -> TaskBatch:
        tasks, *_ = self._tuning_family.sample(
            Split.VALIDATION,
            seed=self._spec.seed,
            trajectory=FRESH_TRAJECTORY,
            tasks=1,
            dtype=self._dtype,
            device=self._device,
        )
        return tasks

    def _targets(self, name: BaselineName, tuning: Tuning) -> Generator[MeasuringProgress, None, list[Target]]:
        sample = Sample(Split.VALIDATION, self._spec.seed, FRESH_TRAJECTORY, self._plan.tuning_tasks)
        fresh = yield from self._baselines.curves(
            *(TUNED[name], tuning.best("final"), self._tuning_family, sample), "targets", f"setting targets with {name}"
        )
        return targets(fresh)

    def _tuned(self, name: BaselineName) -> Generator[MeasuringProgress, None, Tuning]:
        sample = Sample(Split.VALIDATION, self._spec.seed, TUNING_TRAJECTORY, self._plan.tuning_tasks)
        found = yield from self._baselines.tuned(name, self._tuning_family, sample)
        return found

    def _tested(
        self, baseline: Baseline, contender: Contender, for_area: Contender
    ) -> Generator[MeasuringProgress, None, Measured]:
        final = yield from self._curves(baseline, contender)
        if for_area == contender:
            return Measured(final, final)
        return Measured(final, (yield from self._curves(baseline, for_area)))

    def _curves(self, baseline: Baseline, contender: Contender) -> Generator[MeasuringProgress, None, Curves]:
        sample = self._test_sample
        message = f"measuring {baseline.name} on {sample.tasks} held-out tasks"
        found = yield from self._baselines.curves(
            *(baseline, contender, self._test_family, sample), "test", message, held_out=True
        )
        return found

    def _learned(self, contender: Learned) -> Generator[MeasuringProgress, None, Measured]:
        sample = self._test_sample
        steps = run(
            *(contender, self._test_family, sample, self._plan.horizon),
            dtype=self._dtype,
            device=self._device,
            held_out=True,
            looks=looks(self._plan.horizon) if self._plan.on == "held_out" else (),
        )
        found = yield from self._runs.ticking(steps, f"measuring learned on {sample.tasks} held-out tasks")
        self._runs.done += 1
        self._baselines.gradients["test"] += sample.tasks * (self._plan.horizon + 1)
        return Measured(found, found)

    def _result(
        self, measured: dict[str, Measured], tunings: dict[BaselineName, Tuning], costs: StepCosts
    ) -> dict[str, Any]:
        plan = self._plan
        seed = key("bootstrap", self._spec.seed) & (2**63 - 1)
        bootstrap = Bootstrap(plan.test_tasks, plan.bootstrap_samples, seed)
        comparisons: dict[str, dict[str, Any]] = {
            name: {
                criterion: asdict(_compared(measured["learned"], measured[name], criterion, bootstrap))
                for criterion in CRITERIA
            }
            for name in measured
            if name != "learned"
        }
        comparisons["best_baseline"] = {
            criterion: {"baseline": best, "schedule": tunings[best].best(criterion).schedule}
            | comparisons[best][criterion]
            for criterion in CRITERIA
            for best in [_best(tunings, measured, criterion)]
        }
        result = {
            "format": FORMAT,
            "family": self._spec.family.name,
            "overrides": self._spec.family.overrides,
            "seed": self._spec.seed,
            "horizon": plan.horizon,
            "on": plan.on,
            "criteria": MEANINGS[plan.on],
            "test_tasks": plan.test_tasks,
            "tuning_tasks": plan.tuning_tasks,
            "tiers": {"tuned": list(tunings), "untuned": list(plan.untuned)},
            "optimizers": {name: described(each, bootstrap) for name, each in measured.items()},
            "tuning": {name: sweep_of(tuning) for name, tuning in tunings.items()},
            "stored": self._baselines.stored,
            "comparisons": comparisons,
            "verdict": {criterion: comparisons["best_baseline"][criterion]["verdict"] for criterion in CRITERIA},
            "seconds": in_seconds(measured, tunings, costs, bootstrap),
            "break_even": self._break_even(measured, tunings, comparisons["best_baseline"]["final"]["baseline"], costs),
            "cost": {
                "seconds": time.perf_counter() - self._started,
                "gradient_evaluations": dict(self._baselines.gradients),
            },
            "runtime": runtime(self._device, self._backend.name),
        }
        held_out = {
            name: {
                "loss": float(each.final.held_out.losses.mean()),
                "accuracy": float(each.final.held_out.accuracies.mean()),
            }
            for name, each in measured.items()
            if each.final.held_out is not None
        }
        return result | ({"held_out": held_out} if held_out else {})

    def _break_even(
        self, measured: dict[str, Measured], tunings: dict[BaselineName, Tuning], best: BaselineName, costs: StepCosts
    ) -> dict[str, Any]:
        tuning_runs = len(tunings[best].points)
        return break_even(measured["learned"], best, measured[best], tuning_runs, costs, self._made.spent)


def _best(tunings: dict[BaselineName, Tuning], measured: dict[str, Measured], criterion: str) -> str:
    """The baseline with the lowest mean on the test tasks: the hardest one to beat, chosen in the baselines' favour."""
    return min(tunings, key=lambda name: float(measured[name].losses(criterion).mean()))


def _compared(learned: Measured, baseline: Measured, criterion: str, bootstrap: Bootstrap) -> Comparison:
    return compare(learned.losses(criterion), baseline.losses(criterion), bootstrap)
