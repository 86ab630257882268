"""A family before anything is trained on it: baselines tuned on its validation tasks, and how they do.

Learning rates are tuned as for an evaluation, and the best of them runs once more on the same VALIDATION tasks for its
curve. The family is opened for these alone: no test task can be drawn.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from models import price
from models.backends import dtype_for
from models.baselines import TUNED
from models.calibration import calibrated
from models.curves import Curves
from models.evaluation.baseline_runs import BaselineRuns, BaselineStore
from models.evaluation.statistics import Bootstrap
from models.measured import (
    CRITERIA,
    MEANINGS,
    TUNING_TRAJECTORY,
    Measured,
    MeasuringProgress,
    MeasuringResult,
    Runs,
    described,
    plain,
    sweep_of,
)
from models.memory import memory_estimate_bytes
from models.rollout import Sample
from models.runtime import device_of, runtime
from models.spec import BaselineName, MetaTrainSpec, PreviewSpec, Resources, Split
from models.tasks.catalogue import open_for_tuning
from models.tasks.randomness import key
from models.tuning import Tuned, Tuning
from models.tuning_budget import runs_of

FORMAT = 2


def preview(
    spec: PreviewSpec,
    *,
    data_dir: Path | None = None,
    store: BaselineStore | None = None,
    threads: int = 1,
    processes: int = 1,
) -> Iterator[MeasuringProgress | MeasuringResult]:
    """Tune the plan's baselines on validation tasks; the last event is the MeasuringResult.

    Progress comes at least every quarter of a second of work, give or take one inner step.
    store: where runs of baselines are kept; None computes them
    threads, processes: of the rule's backend, and those that share an evaluation's baselines, where a training is
        calibrated
    Raises DatasetMissing, DatasetCorrupt, DeviceUnavailable, UnknownKind, FamilyBroken.
    """
    yield from _Preview(spec, data_dir, store, threads, processes).events()


class _Preview:
    def __init__(
        self, spec: PreviewSpec, data_dir: Path | None, store: BaselineStore | None, threads: int, processes: int
    ) -> None:
        self._spec = spec
        self._data_dir = data_dir
        self._threads, self._processes = threads, processes
        self._plan = spec.evaluation
        self._device = device_of(spec.resources)
        self._dtype = dtype_for(spec.resources.backend)
        began = time.perf_counter()
        self._family = open_for_tuning(spec.family.tasks, data_dir)
        self._opening = time.perf_counter() - began
        self._sample = Sample(Split.VALIDATION, spec.seed, TUNING_TRAJECTORY, self._plan.tuning_tasks)
        self._started = time.perf_counter()
        self._runs = Runs(len(self._plan.baselines) * (runs_of(self._plan.schedules) + len(CRITERIA)))
        self._baselines = BaselineRuns(spec, self._dtype, self._device, self._runs, store)

    def events(self) -> Iterator[MeasuringProgress | MeasuringResult]:
        tunings: dict[BaselineName, Tuning] = {}
        measured: dict[BaselineName, Measured] = {}
        for name in self._plan.baselines:
            sweep = self._baselines.tuned(name, self._family, self._sample)
            [tunings[name]] = yield from self._baselines.found([sweep])
            final, area = (tunings[name].best(criterion) for criterion in CRITERIA)
            curves = yield from self._curves(name, final)
            measured[name] = Measured(curves, curves if area == final else (yield from self._curves(name, area)))
            self._runs.done += area == final
        found = yield from self._calibrated()
        yield self._runs.so_far("bootstrap")
        yield MeasuringResult(plain(self._result(tunings, measured) | found))

    def _calibrated(self) -> Generator[MeasuringProgress, None, dict[str, Any]]:
        """What a training would take, for the record; nothing where none is asked for."""
        training = self._spec.training
        if training is None:
            return {}
        work = calibrated(
            training,
            data_dir=self._data_dir,
            threads=self._threads,
            processes=self._processes,
            opening=self._opening,
        )
        found = yield from self._runs.ticking(work, "timing a few steps of a training")
        seconds = price.training_seconds(training, price.calibrated_training(training, found))
        if (evaluation := training.follow_up("")) is not None:
            plan, knows = evaluation.evaluation, training.recipe.knows_steps
            pace = price.calibrated_measuring(plan, knows, found, training=evaluation.training)
            seconds += price.measuring_seconds(evaluation, pace)
        return {"calibration": found.model_dump(), "price": seconds.told}

    def _curves(self, name: BaselineName, tuned: Tuned) -> Generator[MeasuringProgress, None, Curves]:
        wanted = self._baselines.curves(
            *(TUNED[name], tuned, self._family, self._sample), "tuning", f"drawing {name}'s curve"
        )
        [found] = yield from self._baselines.found([wanted])
        return found

    def _result(self, tunings: dict[BaselineName, Tuning], measured: dict[BaselineName, Measured]) -> dict[str, Any]:
        plan, family = self._plan, self._spec.family
        seed = key("bootstrap", self._spec.seed) & (2**63 - 1)
        bootstrap = Bootstrap(plan.tuning_tasks, plan.bootstrap_samples, seed)
        return {
            "format": FORMAT,
            "family": family.name,
            "overrides": family.overrides,
            "seed": self._spec.seed,
            "horizon": plan.horizon,
            "on": plan.on,
            "criteria": MEANINGS[plan.on],
            "tuning_tasks": plan.tuning_tasks,
            "coordinates_per_task": family.tasks.coordinates_per_task,
            "training_memory_bytes": memory_estimate_bytes(self._spec.training or self._training()),
            "optimizers": {name: described(each, bootstrap) for name, each in measured.items()},
            "tuning": {name: sweep_of(tuning) for name, tuning in tunings.items()},
            "stored": {phase: found for phase, found in self._baselines.stored.items() if phase == "tuning"},
            "cost": {
                "seconds": time.perf_counter() - self._started,
                "gradient_evaluations": {"tuning": self._baselines.gradients["tuning"]},
            },
            "runtime": runtime(self._device, "reference" if self._spec.resources.backend == "reference" else "torch"),
        }

    def _training(self) -> MetaTrainSpec:
        """The training that a job without further fields would be."""
        family = self._spec.family
        return MetaTrainSpec(
            family=family,
            seed=self._spec.seed,
            recipe=family.recipe,
            evaluate=False,
            evaluation=family.evaluation,
            resources=Resources(device=self._spec.resources.device),
        )
