"""A few steps of all that a training and its evaluation run, timed: what a price rests on before the first job.

The rule has its untrained weights, which cost what trained ones do. Runs are timed for few tasks and for many, because
a step on few is nearly all overhead; no test task is drawn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import torch

from models.backends import backend_for, dtype_for
from models.baselines import TUNED, UNTUNED
from models.evaluation.statistics import Bootstrap, compare, summary
from models.meta_train import MetaStep, meta_train
from models.price import Calibration, FamilyCost, RunCost
from models.rollout import Contender, Learned, Sample, run, tasks_at_once
from models.runtime import device_of
from models.spec import Component, MetaTrainSpec, Split, overridden
from models.tasks.base import Family
from models.tasks.catalogue import open_for_tuning
from models.training.rule import untrained
from models.tuning import Tuned, learning_rate

TRAJECTORY = 3  # of the validation split: its tasks are used for nothing else
MOST_META_STEPS = 6
META_STEP_SECONDS = 4.0
"""Timing meta-steps ends after so long, and at least two of them."""
STEPS = 20
RUN_SECONDS, MOST_RUN_SECONDS = 0.1, 2.0
"""Short runs are repeated for so long, and long ones are cut."""
MOST_RUNS = 50
_FEW = 4


Clock = Callable[[], float]


def calibrated(
    spec: MetaTrainSpec,
    *,
    data_dir: Path | None = None,
    threads: int = 1,
    training: bool = True,
    processes: int = 1,
    opening: float = 0.0,
    clock: Clock = time.perf_counter,
) -> Generator[None, None, Calibration]:
    """Yields between steps, so that a caller can look around.

    training: False times runs forward alone, for an optimizer that is measured here and trained elsewhere
    opening: seconds that opening the family took this process the first time, with what had to be imported and read
    processes: that share the runs of an evaluation's baselines here
    clock: time.process_time counts what this process computed, whatever its neighbours do
    Raises as `meta_train` does.
    """
    started = clock()
    own = open_for_tuning(spec.family.tasks, data_dir)
    begins = max(opening, clock() - started)
    families, counted = [], MOST_META_STEPS
    for component in spec.components:
        family = own if component.tasks == spec.family.tasks else open_for_tuning(component.tasks, data_dir)
        seconds, count = 0.0, 0
        if training:
            seconds, count, first = yield from _meta_step(spec.on(component.tasks), data_dir, threads, clock)
            begins += max(0.0, first - seconds)
        contender, look = _learned(spec, component, threads), _look(family, spec, clock)
        yield
        learned = yield from _cost(contender, family, spec, _most(spec), clock, look)
        families.append(FamilyCost(weight=component.weight, meta_step=seconds, learned=learned))
        counted = min(counted, count)
    plan, look = spec.evaluation, families[0].learned.look  # the training's own family is the first
    baselines: dict[str, RunCost] = {}
    for name in plan.baselines:
        tuned = Tuned(TUNED[name], learning_rate(TUNED[name].centre), plan.schedules[0], plan.horizon)
        baselines[name] = yield from _cost(tuned, own, spec, max(plan.tuning_tasks, plan.test_tasks), clock, look)
    for name in plan.untuned:
        baselines[name] = yield from _cost(UNTUNED[name], own, spec, plan.test_tasks, clock, look)
    return Calibration(
        families=tuple(families),
        baselines=baselines,
        begins=begins,
        compares=_compares(spec, clock),
        meta_steps=counted,
        processes=processes,
    )


def _most(spec: MetaTrainSpec) -> int:
    return max(spec.recipe.validation_tasks, spec.evaluation.test_tasks)


def _meta_step(
    spec: MetaTrainSpec, data_dir: Path | None, threads: int, clock: Clock
) -> Generator[None, None, tuple[float, int, float]]:
    """Seconds of a meta-step, how many were timed, and seconds until the end of the first: the windows of a trajectory
    and the beginning of the next, where that is quick."""
    recipe = spec.recipe
    wanted = min(MOST_META_STEPS, recipe.horizon // recipe.unroll_steps + 1)
    few = {"meta_steps": 1 + max(2, wanted), "starts": 1, "pool": 1, "validation_interval": 1_000_000, "patience": None}
    short = spec.model_copy(update={"recipe": overridden(recipe, few), "evaluate": False})
    times: list[float] = []
    started = clock()
    events = meta_train(short, data_dir=data_dir, threads=threads)
    try:
        for event in events:
            if isinstance(event, MetaStep):
                times.append(clock())
            yield
            enough = len(times) > 2 and times[-1] - times[0] > META_STEP_SECONDS
            if len(times) == few["meta_steps"] or enough:
                break  # the validation of the end is not ours
    finally:
        events.close()  # type: ignore[attr-defined]
    return (times[-1] - times[0]) / (len(times) - 1), len(times) - 1, times[0] - started


def _learned(spec: MetaTrainSpec, component: Component, threads: int) -> Contender:
    device, dtype = device_of(spec.resources), dtype_for(spec.resources.backend)
    rule = untrained(spec.on(component.tasks)).to(device, dtype)
    rule.initialise(torch.Generator().manual_seed(spec.seed))
    backend = backend_for(*(rule, dtype, device, threads), wanted=spec.resources.backend, parts=component.tasks.parts())
    return Learned(backend, horizon=spec.recipe.horizon)


def _cost(
    contender: Contender, family: Family, spec: MetaTrainSpec, most: int, clock: Clock, look: float
) -> Generator[None, None, RunCost]:
    """From runs of few tasks and of as many as go side by side. look: as in `RunCost`"""
    chunk = tasks_at_once(family, contender)
    many = min(most, chunk)
    few = min(_FEW, many)
    begins, seconds = yield from _timed(contender, family, spec, many, clock)
    if few == many:
        return RunCost(step=0.0, task=seconds / many, begins=begins / many, chunk=chunk, look=look)
    _, of_few = yield from _timed(contender, family, spec, few, clock)
    slope = max(0.0, (seconds - of_few) / (many - few))
    step = max(0.0, seconds - many * slope)
    return RunCost(step=step, task=slope, begins=begins / many, chunk=chunk, look=look)


def _look(family: Family, spec: MetaTrainSpec, clock: Clock) -> float:
    """Seconds of measuring a task's held-out loss; 0 where the tasks have none. The first time warms up."""
    device, dtype = device_of(spec.resources), dtype_for(spec.resources.backend)
    batches = family.sample(
        Split.VALIDATION, seed=spec.seed, trajectory=TRAJECTORY, tasks=_FEW, dtype=dtype, device=device
    )
    started = clock()
    for _ in range(2):
        started = clock()
        if any(each.held_out(each.initial()) is None for each in batches):
            return 0.0
    return (clock() - started) / _FEW


def _timed(
    contender: Contender, family: Family, spec: MetaTrainSpec, tasks: int, clock: Clock
) -> Generator[None, None, tuple[float, float]]:
    """Mean seconds until a run's first step, and of each further step. The first run warms up."""
    sample = Sample(Split.VALIDATION, spec.seed, TRAJECTORY, tasks)
    device, dtype = device_of(spec.resources), dtype_for(spec.resources.backend)
    begun = stepped = 0.0
    runs = steps = 0
    while stepped < RUN_SECONDS and runs < MOST_RUNS:
        times = [clock()]
        for _ in run(contender, family, sample, STEPS, dtype=dtype, device=device):
            times.append(clock())
            yield
            if len(times) > 3 and times[-1] - times[0] > MOST_RUN_SECONDS:
                break
        long = times[-1] - times[0] > RUN_SECONDS
        if runs or long:
            begun += times[1] - times[0]
            stepped += times[-1] - times[1]
            steps += len(times) - 2
        runs += 1
    begun /= runs if long and runs == 1 else runs - 1
    return max(0.0, begun - stepped / steps), stepped / steps


def _compares(spec: MetaTrainSpec, clock: Clock) -> float:
    """Seconds of an optimizer's part in the statistics of an evaluation: both criteria, in steps and in seconds."""
    plan = spec.evaluation
    losses = np.random.default_rng(0).uniform(0.5, 1.0, (2, plan.test_tasks))
    bootstrap = Bootstrap(plan.test_tasks, plan.bootstrap_samples, 0)
    compare(losses[0], losses[1], bootstrap)  # the first one draws
    started = clock()
    compare(losses[0], losses[1] + 1.0, bootstrap)
    summary(losses[0], bootstrap)
    curve = bootstrap.means(np.ones((min(plan.horizon + 1, 20), plan.test_tasks)))
    assert len(curve)
    return 2 * (clock() - started)
