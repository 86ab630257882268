"""Meta-training: a generator of what happened, meta-step by meta-step.

    for event in meta_train(spec):
        match event:
            case MetaStep(step=step, loss=loss): ...
            case TrainingResult(weights=weights): ...

A meta-step is one window of `unroll_steps` inner steps on `tasks` tasks side by side and one step of Adam on the
rule's weights; `horizon / unroll_steps` windows make a trajectory, after which fresh tasks are drawn. The run is a
pure function of its spec: it reads no clock (but to report its cost and to say now and then that it still works), no
environment and no global generator.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from gradsmith.rules import Rules, RuleSet, build
from gradsmith.rules import weights as rule_weights
from models import checkpoint
from models.backends import backend_for, dtype_for
from models.captured import windows
from models.checkpoint import TrainingProgress
from models.errors import DeviceUnavailable, TrainingDiverged
from models.groups import Groups, ranges
from models.memory import record_of
from models.meta_loss import MetaLoss
from models.meta_optimizer import AdamState, averaged_weights, clipped, cosine
from models.parallel import Alone, Team, mean_over_tasks, refuse_drift, refuse_missing_gpus
from models.rollout import Learned, Sample, run, tasks_at_once
from models.spec import MetaTrainSpec, Recipe, Resources, Split, share
from models.tasks.base import Family, TaskBatch
from models.tasks.catalogue import open_for_training
from models.tasks.randomness import key
from models.unroll import Window

T = TypeVar("T")

VALIDATION_SEED = 0
"""All jobs of a family are selected on the SAME validation tasks, whatever their seed, so that their scores compare."""

WORKING_INTERVAL_SECONDS = 0.25
MAX_SKIPPED_IN_A_ROW = 25
STUCK_ABOVE = 0.7  # of the loss of standing still
STUCK_WITHIN = 0.02  # relative movement of the last validations


@dataclass(frozen=True)
class MetaStep:
    """One window. `loss` is the mean over its steps and tasks, NaN or infinite when the window diverged;
    `gradient_norm` is that before clipping; `skipped` says that the weights did not move."""

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float
    skipped: bool


@dataclass(frozen=True)
class Working:
    """A long validation goes on: a place to look whether the run is still wanted. It changes nothing, and comes at
    least every WORKING_INTERVAL_SECONDS of a validation, give or take an inner step."""

    step: int


@dataclass(frozen=True)
class Validated:
    """`score`: mean over the fixed validation tasks of the whole curve's mean loss; lower is better. `best` says
    that it is the lowest so far and that the rule was kept."""

    step: int
    score: float
    best: bool


@dataclass(frozen=True)
class Restarted:
    """Validation stood still on the plateau of a bad initialisation; training went on from a new one."""

    step: int
    reason: str


@dataclass(frozen=True)
class TrajectoryEnd:
    """A place where the run can be resumed bit for bit; `checkpoint()` gives the bytes, now or later."""

    step: int
    checkpoint: Callable[[], bytes]


@dataclass(frozen=True)
class TrainingResult:
    """The best rule as weights (gradsmith.rules.weights), its validation score, and what it took.

    standing_still: mean loss of the validation tasks before the first step, which a rule should beat
    """

    weights: bytes
    validation_score: float
    standing_still: float
    summary: dict[str, Any]


Event = MetaStep | Working | Validated | Restarted | TrajectoryEnd | TrainingResult


def meta_train(
    spec: MetaTrainSpec,
    *,
    data_dir: Path | None = None,
    resume: bytes | None = None,
    threads: int | None = None,
    team: Team | None = None,
) -> Iterator[Event]:
    """Train a rule as `spec` says; the last event is the TrainingResult.

    resume: the bytes of a TrajectoryEnd of the SAME spec. The events that follow, and the weights, are then those of
        the uninterrupted run, bit for bit, on the same machine and torch version.
    threads: of the backend, in place of those of the spec, for a caller who has settled what "auto" means
    team: the ranks that share this run (models.parallel), each of which calls this with equal arguments and gets equal
        events, but for the seconds that they name; default: this process does it all, whatever the spec asks for.
        Another number of ranks gives another rounding of the same sums: a checkpoint goes on with any.

    Raises DatasetMissing, DatasetCorrupt, DeviceUnavailable, BackendUnavailable, CheckpointMismatch, RankLost, and
    TrainingDiverged when MAX_SKIPPED_IN_A_ROW meta-steps in a row gave non-finite numbers, or all of a shorter run, or
    every validation.
    """
    device = device_of(spec.resources)
    # Opened without the test split: nothing below can draw a task that the result will be measured on.
    family = open_for_training(spec.family.tasks, data_dir)
    threads = spec.resources.threads_or(1) if threads is None else threads
    trainer = _Trainer(spec, family, device, threads, team or Alone())
    progress = trainer.fresh() if resume is None else checkpoint.loads(resume, spec, device)
    while progress.step < spec.recipe.meta_steps:
        progress = yield from trainer.trajectory(progress)
        trainer.agree(progress)
        if progress.step < spec.recipe.meta_steps:
            yield TrajectoryEnd(progress.step, _frozen_checkpoint(progress, spec))
    yield trainer.result(progress)


def device_of(resources: Resources) -> torch.device:
    """Raises DeviceUnavailable when a GPU is asked for and there is none."""
    if resources.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceUnavailable("The job asks for a GPU and this worker has none; use resources.device = cpu.")
    refuse_missing_gpus(resources.processes)
    return torch.device("cuda")


def _frozen_checkpoint(progress: TrainingProgress, spec: MetaTrainSpec) -> Callable[[], bytes]:
    return lambda: checkpoint.dumps(progress, spec)


class _Trainer:
    """The parts of a run that do not change while it runs, but for the weights of its rule."""

    def __init__(self, spec: MetaTrainSpec, family: Family, device: torch.device, threads: int, team: Team) -> None:
        self._spec = spec
        self._family = family
        self._device = device
        self._team = team
        wanted = spec.resources.backend
        self._dtype = dtype_for(wanted)
        self._rule = untrained(spec).to(device, self._dtype)
        self._backend = backend_for(
            *(self._rule, self._dtype, device, threads),
            wanted=wanted,
            parts=spec.family.tasks.parts(),
            mode=spec.meta_gradient,
        )
        self._windows = windows(
            self._backend, device, MetaLoss.of(spec.recipe.meta_gradient, spec.recipe.loss_weighting)
        )
        own = share(spec.recipe.tasks, team.size, team.rank)
        self._parts = ranges(own, family.coordinates_per_task, record_of(spec), spec.recipe.unroll_steps, device)

    @property
    def _recipe(self) -> Recipe:
        return self._spec.recipe

    def fresh(self) -> TrainingProgress:
        weights = self._initial_weights(restarts=0)
        return TrainingProgress(weights, weights, weights, AdamState.zero(weights))

    def _initial_weights(self, restarts: int) -> Tensor:
        generator = torch.Generator().manual_seed(key("rule", self._spec.seed, restarts) & (2**63 - 1))
        self._rule.initialise(generator)
        return parameters_to_vector(self._rule.parameters()).detach().clone()

    def trajectory(self, progress: TrainingProgress) -> Generator[Event, None, TrainingProgress]:
        """All windows of one trajectory, or those that the meta-steps leave room for."""
        recipe = self._recipe
        load_weights(self._rule, progress.weights)
        started = time.perf_counter()
        drawn = (batch for part in self._parts for batch in self._drawn(progress.trajectory, part))
        groups = Groups(tuple(drawn), self._backend)
        gradients = recipe.tasks
        progress = progress.but(trajectory=progress.trajectory + 1)
        for _ in range(min(recipe.horizon // recipe.unroll_steps, recipe.meta_steps - progress.step)):
            window = groups.unroll(self._windows, recipe.unroll_steps)
            gradients += recipe.tasks * recipe.window_evaluations
            progress, step = self._learned_from(window, progress)
            load_weights(self._rule, progress.weights)
            progress = progress.but(cost=progress.cost.training(gradients, time.perf_counter() - started))
            gradients = 0
            yield step
            if progress.step % recipe.validation_interval == 0 or progress.step == recipe.meta_steps:
                progress = yield from self._validated(progress)
                if self._stuck(progress):
                    progress = yield from self._restarted(progress)
                    return progress
            if not math.isfinite(step.loss):
                return progress  # theta is lost; the next trajectory starts anew
            started = time.perf_counter()
        return progress

    def _drawn(self, trajectory: int, part: range) -> tuple[TaskBatch, ...]:
        return self._family.sample(
            Split.TRAIN,
            seed=self._spec.seed,
            trajectory=trajectory,
            tasks=len(part),
            first=part.start,
            dtype=self._dtype,
            device=self._device,
        )

    def _learned_from(self, window: Window, progress: TrainingProgress) -> tuple[TrainingProgress, MetaStep]:
        recipe = self._recipe
        step = progress.step + 1
        rate = cosine(
            recipe.meta_learning_rate,
            recipe.final_learning_rate_ratio,
            step - progress.since,
            recipe.meta_steps - progress.since,
        )
        # Clipped after the sum: what is clipped is the mean over all tasks, whoever owns them.
        loss, gradient = mean_over_tasks(self._team, window.losses, window.gradient, recipe.tasks)
        gradient, norm = clipped(gradient, recipe.gradient_clip)
        if math.isfinite(loss) and math.isfinite(norm):
            weights, adam = progress.adam.updated(progress.weights, gradient, rate)
            averaged = averaged_weights(progress.averaged, weights, recipe.averaging, adam.count)
            progress = progress.but(weights=weights, averaged=averaged, adam=adam, skipped_in_a_row=0, step=step)
            return progress, MetaStep(step, loss, norm, rate, skipped=False)
        progress = progress.but(
            step=step,
            skipped=progress.skipped + 1,
            skipped_in_a_row=progress.skipped_in_a_row + 1,
            diverged_windows=progress.diverged_windows + (not math.isfinite(loss)),
        )
        if progress.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingDiverged(
                f"Meta-training diverged: the last {progress.skipped_in_a_row} meta-steps (up to step {step} of "
                f"{recipe.meta_steps}) gave a loss of {loss:g} and a meta-gradient of norm {norm:g}, and all were "
                f"skipped. Lower meta_learning_rate (now {recipe.meta_learning_rate:g}) or {recipe.output_scales}, or "
                f"shorten the horizon."
            )
        return progress, MetaStep(step, loss, norm, rate, skipped=True)

    def _validated(self, progress: TrainingProgress) -> Generator[Event, None, TrainingProgress]:
        """Measure the rule on the fixed validation tasks, and keep it when it is the best so far."""
        recipe = self._recipe
        load_weights(self._rule, progress.averaged)
        area, standing_still, seconds = yield from self._validation_losses(progress)
        score = float(area.mean())
        best = math.isfinite(score) and (progress.best_score is None or score < progress.best_score)
        gradients = recipe.validation_tasks * (recipe.horizon + 1)
        progress = progress.but(
            scores=(*progress.scores, score),
            standing_still=float(standing_still.mean()),
            cost=progress.cost.selection(gradients, seconds),
        )
        if best:
            progress = progress.but(best_score=score, best_step=progress.step, best_weights=progress.averaged)
        load_weights(self._rule, progress.weights)
        yield Validated(progress.step, score, best)
        return progress

    def _validation_losses(self, progress: TrainingProgress) -> Generator[Event, None, tuple[Tensor, Tensor, float]]:
        """Each validation task's mean loss and its first, both (validation_tasks,), and the seconds they took.

        The ranks share the chunks that one process would run, and put together what they found: the same bits for any
        number of ranks.
        """
        recipe, team = self._recipe, self._team
        found = torch.zeros(2, recipe.validation_tasks, dtype=torch.float64, device=self._device)
        chunk = tasks_at_once(self._family)
        chunks = -(-recipe.validation_tasks // chunk)
        own, longest = (share(chunks, team.size, rank) for rank in (team.rank, 0))
        _, seconds = yield from _at_work(self._validate_chunks(own, chunk, found), progress.step)
        started = time.perf_counter()
        # A rank without a chunk knows the pace from training, where a gradient takes longer.
        evaluations = len(longest) * chunk * (recipe.horizon + 1)
        team.sum_(found, expected_seconds=evaluations * progress.cost.seconds_a_gradient * team.size)
        area, standing_still = found.to(self._dtype)
        return area, standing_still, seconds + time.perf_counter() - started

    def _validate_chunks(self, own: range, chunk: int, found: Tensor) -> Generator[None, None, None]:
        """Fill the columns of `found` that belong to these chunks of `chunk` tasks."""
        recipe, learned = self._recipe, Learned(self._backend)
        for index in own:  # each by itself: how a mean over steps is rounded depends on how many tasks are side by side
            part = slice(index * chunk, min((index + 1) * chunk, recipe.validation_tasks))
            sample = Sample(Split.VALIDATION, VALIDATION_SEED, 0, part.stop - part.start, part.start)
            curves = yield from run(
                learned, self._family, sample, recipe.horizon, dtype=self._dtype, device=self._device
            )
            found[0, part], found[1, part] = curves.area, curves.losses[0]

    def agree(self, progress: TrainingProgress) -> None:
        """Raises RankLost if the ranks do not hold the same bits. Called at the end of a trajectory."""
        adam = progress.adam
        refuse_drift(self._team, progress.weights, progress.averaged, progress.best_weights, adam.first, adam.second)

    def _stuck(self, progress: TrainingProgress) -> bool:
        """Whether the last validations neither moved nor did much better than standing still.

        Some initialisations sit on such a plateau for minutes. After half of the meta-steps it is too late for a
        new one to learn anything.
        """
        recent = progress.scores[-self._recipe.plateau_patience :]
        if len(recent) < self._recipe.plateau_patience or progress.step > self._recipe.meta_steps // 2:
            return False
        low, high = min(recent), max(recent)
        standing_still = progress.standing_still or math.inf
        return not math.isfinite(low) or (low > STUCK_ABOVE * standing_still and high - low < STUCK_WITHIN * low)

    def _restarted(self, progress: TrainingProgress) -> Generator[Event, None, TrainingProgress]:
        weights = self._initial_weights(restarts=len(progress.restarts) + 1)
        score = progress.scores[-1]
        yield Restarted(
            progress.step,
            f"validation stood still at {score:.4g} (standing still: {progress.standing_still:.4g}) for "
            f"{self._recipe.plateau_patience} validations; training goes on from a new initialisation",
        )
        return progress.but(
            weights=weights,
            averaged=weights,
            adam=AdamState.zero(weights),
            since=progress.step,
            scores=(),
            restarts=(*progress.restarts, progress.step),
            skipped_in_a_row=0,
        )

    def result(self, progress: TrainingProgress) -> TrainingResult:
        """Raises TrainingDiverged when nothing was learned: such a rule is not to be registered."""
        if progress.best_score is None or progress.skipped == progress.step:
            recipe = self._recipe
            why = (
                f"all {progress.step} meta-steps gave non-finite numbers and were skipped"
                if progress.skipped == progress.step
                else f"every validation of {recipe.horizon} steps met a non-finite loss, so there is no rule to keep"
            )
            raise TrainingDiverged(
                f"Meta-training learned nothing: {why}. Lower {recipe.output_scales} or "
                f"meta_learning_rate (now {recipe.meta_learning_rate:g}), or shorten the horizon."
            )
        load_weights(self._rule, progress.best_weights)
        extra = {"family": self._spec.family.name, "seed": str(self._spec.seed), "meta_steps": str(progress.step)}
        summary: dict[str, Any] = {
            "meta_steps": progress.step,
            "trajectories": progress.trajectory,
            "best_step": progress.best_step,
            "standing_still": progress.standing_still,
            "skipped_steps": progress.skipped,
            "diverged_windows": progress.diverged_windows,
            "restarts": list(progress.restarts),
            "cost": {
                "training": {
                    "seconds": progress.cost.training_seconds,
                    "gradient_evaluations": progress.cost.training_gradients,
                },
                "selection": {
                    "seconds": progress.cost.selection_seconds,
                    "gradient_evaluations": progress.cost.selection_gradients,
                },
            },
            "runtime": runtime(self._device, self._backend.name, self._team.size),
        }
        assert progress.standing_still is not None, "whoever has a score has been validated"
        weights = rule_weights.dumps(self._rule, extra)
        return TrainingResult(weights, progress.best_score, progress.standing_still, summary)


def _at_work(steps: Generator[None, None, T], step: int) -> Generator[Working, None, tuple[T, float]]:
    """Run to the end, saying now and then that it still works; returns what that gives and the seconds it took,
    without what the caller does meanwhile."""
    seconds, started = 0.0, time.perf_counter()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(T, end.value), seconds + time.perf_counter() - started
        elapsed = time.perf_counter() - started
        if elapsed >= WORKING_INTERVAL_SECONDS:
            seconds += elapsed
            yield Working(step)
            started = time.perf_counter()


def untrained(spec: MetaTrainSpec) -> Rules:
    """The rule that the job trains, or all of them, with weights of zero."""
    if not spec.recipe.rules:
        return build(spec.recipe.rule.config)
    return RuleSet({pattern: build(rule.config) for pattern, (rule, _) in spec.assigned().items()})


def load_weights(rule: Rules, weights: Tensor) -> None:
    """Copy a flat vector into the rule's parameters."""
    with torch.no_grad():
        offset = 0
        for parameter in rule.parameters():
            count = parameter.numel()
            parameter.copy_(weights[offset : offset + count].view_as(parameter))
            offset += count


def runtime(device: torch.device, backend: str, processes: int = 1) -> dict[str, Any]:
    """What a run's last bits depend on, for its record."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device.type,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "backend": backend,
    }
