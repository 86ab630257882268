"""The meta-step: a window of a trajectory, a step of Adam on the rule's weights, and a validation where one is due."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from gradsmith.rules import weights as rule_weights
from models.backends import Backend, backend_for, dtype_for
from models.captured import windows
from models.errors import TrainingDiverged
from models.groups import ranges
from models.memory import record_of
from models.meta_loss import MetaLoss
from models.meta_optimizer import averaged_weights, clipped, cosine
from models.parallel import Team, mean_over_tasks, refuse_drift
from models.runtime import runtime
from models.spec import Component, MetaTrainSpec, Recipe, share
from models.task_spec import Part
from models.tasks.base import Family
from models.tasks.randomness import key
from models.training.events import Event, MetaStep, TrainingResult, Validated
from models.training.pool import Pool, Source
from models.training.progress import Live, TrainingProgress, fresh
from models.training.rule import load_weights, untrained
from models.training.turns import among_starts, start_is_over, turned
from models.training.validation import Validation
from models.unroll import Window

MAX_SKIPPED_IN_A_ROW = 25


class Trainer:
    """The parts of a run that do not change while it runs, but for the weights of its rule and the tasks under way."""

    def __init__(
        self, spec: MetaTrainSpec, families: Sequence[Family], device: torch.device, threads: int, team: Team
    ) -> None:
        """families: those of `spec.components`, opened for training"""
        self._spec = spec
        self._device = device
        self._team = team
        self._rule = untrained(spec).to(device, dtype_for(spec.resources.backend))
        self._backends: dict[tuple[Part, ...], tuple[Backend, Backend]] = {}
        components = zip(spec.components, families, strict=True)
        self._sources = tuple(self._source(component, family, threads) for component, family in components)
        where = (team, dtype_for(spec.resources.backend), device)
        self.pool = Pool(spec, self._sources, *where)
        self.validation = Validation(spec.recipe, self._sources, *where)

    def _source(self, component: Component, family: Family, threads: int) -> Source:
        spec, wanted = self._spec, self._spec.resources.backend
        own = share(spec.recipe.tasks, self._team.size, self._team.rank)
        record = record_of(spec.on(component.tasks))
        groups = ranges(own, family.coordinates_per_task, record, spec.recipe.unroll_steps, self._device)
        parts = tuple(component.tasks.parts())
        if parts not in self._backends:  # a backend knows the tensors of one shape of task
            where = (self._rule, dtype_for(wanted), self._device, threads)
            bound = partial(backend_for, *where, wanted=wanted, parts=parts, mode=spec.meta_gradient)
            trains = bound(products=spec.products)
            self._backends[parts] = trains, trains if spec.products == "float32" else bound()
        backend, judged = self._backends[parts]
        loss = MetaLoss.of(spec.recipe.meta_gradient, spec.recipe.loss_weighting, spec.recipe.on)
        made = windows(backend, self._device, loss)
        tensors = tuple(part.size for part in parts)
        knows_steps = spec.recipe.knows_steps
        return Source(family, component.weight, backend, judged, made, loss, tuple(groups), tensors, knows_steps)

    @property
    def _recipe(self) -> Recipe:
        return self._spec.recipe

    @property
    def _backend(self) -> Backend:
        return self._sources[0].backend

    def fresh(self) -> TrainingProgress:
        """Where a run begins."""
        return fresh(self._initial_weights(0))

    def _initial_weights(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(key("rule", self._spec.seed, number) & (2**63 - 1))
        self._rule.initialise(generator)
        return parameters_to_vector(self._rule.parameters()).detach().clone()

    def over(self, progress: TrainingProgress) -> bool:
        """Whether the run has had its meta-steps, or its patience is spent."""
        return progress.stopped or progress.step >= self._recipe.meta_steps

    def meta_step(self, progress: TrainingProgress) -> Generator[Event, None, tuple[TrainingProgress, bool]]:
        """The next meta-step; also returns whether a trajectory came to its end in it."""
        recipe = self._recipe
        started = time.perf_counter()
        load_weights(self._rule, progress.weights)
        progress, place, gradients = self._with_trajectory(progress)
        window, live = self.pool.unrolled(progress.live[place])
        progress, step = self._learned_from(window, progress)
        progress, ended = self._moved_on(progress, place, live, step.loss)
        gradients += recipe.tasks * recipe.window_evaluations
        progress = progress.but(cost=progress.cost.training(gradients, time.perf_counter() - started))
        yield step
        if self._validates_after(progress):
            progress = yield from self._validated(progress)
            turn = turned(progress, recipe, self._initial_weights)
            if turn is not None:
                progress, event = turn
                yield event
                self.pool.keep(progress.live)
                ended = ended or not progress.live
        return progress, ended

    def _with_trajectory(self, progress: TrainingProgress) -> tuple[TrainingProgress, int, int]:
        """The progress with the trajectory that comes next under way, its place, and the gradients that it cost."""
        if not self.pool.begins(progress.live, progress.step):
            return progress, self.pool.drawn(progress.live, progress.step), 0
        begun = self.pool.begun(progress.trajectory)
        live = (*progress.live, begun)
        return progress.but(live=live, trajectory=progress.trajectory + 1), len(live) - 1, self._recipe.tasks

    def _moved_on(
        self, progress: TrainingProgress, place: int, moved: Live, loss: float
    ) -> tuple[TrainingProgress, bool]:
        """The pool after the window of the trajectory at `place`, and whether that has come to its end."""
        diverged = self.pool.diverged(moved, loss)
        ended = diverged or self.pool.done(moved)
        live = (*progress.live[:place], *(() if ended else (moved,)), *progress.live[place + 1 :])
        if ended:
            self.pool.keep(live)
        return progress.but(live=live, replaced=progress.replaced + diverged), ended

    def _validates_after(self, progress: TrainingProgress) -> bool:
        due = progress.step % self._recipe.validation_interval == 0 or progress.step == self._recipe.meta_steps
        return due or start_is_over(progress, self._recipe)

    def _learned_from(self, window: Window, progress: TrainingProgress) -> tuple[TrainingProgress, MetaStep]:
        recipe = self._recipe
        step = progress.step + 1
        before = max(progress.since, recipe.meta_steps - recipe.meta_steps_of_one)
        rate = progress.rate_factor * cosine(
            recipe.meta_learning_rate,
            recipe.final_learning_rate_ratio,
            step - progress.since,
            recipe.meta_steps - before,
        )
        # Clipped after the sum: what is clipped is the mean over all tasks, whoever owns them.
        loss, gradient = mean_over_tasks(self._team, window.losses, window.gradient, recipe.tasks)
        gradient, norm = clipped(gradient, recipe.gradient_clip)
        if math.isfinite(loss) and math.isfinite(norm):
            weights, adam = progress.adam.updated(progress.weights, gradient, rate)
            age = progress.age + 1
            averaged = averaged_weights(progress.averaged, weights, recipe.averaging, age)
            progress = progress.but(
                weights=weights, averaged=averaged, adam=adam, age=age, skipped_in_a_row=0, step=step
            )
            return progress, MetaStep(step, loss, norm, rate, skipped=False)
        progress = progress.but(
            step=step,
            skipped=progress.skipped + 1,
            skipped_in_a_row=progress.skipped_in_a_row + 1,
            diverged_windows=progress.diverged_windows + (not math.isfinite(loss)),
        )
        # One start of several may fail: it is not chosen.
        if progress.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW and not among_starts(progress, recipe):
            raise TrainingDiverged(
                f"Meta-training diverged: the last {progress.skipped_in_a_row} meta-steps (up to step {step} of "
                f"{recipe.meta_steps}) gave a loss of {loss:g} and a meta-gradient of norm {norm:g}, and all were "
                f"skipped. Lower meta_learning_rate (now {recipe.meta_learning_rate:g}) or {recipe.output_scales}, or "
                f"shorten the horizon."
            )
        return progress, MetaStep(step, loss, norm, rate, skipped=True)

    def _validated(self, progress: TrainingProgress) -> Generator[Event, None, TrainingProgress]:
        """Measure the rule on the fixed validation tasks, and keep it when it is the best so far."""
        load_weights(self._rule, progress.averaged)
        found = yield from self.validation.found(progress.step, progress.cost.seconds_a_gradient)
        score = found.score
        best = math.isfinite(score) and (progress.best_score is None or score < progress.best_score)
        progress = progress.but(
            scores=(*progress.scores, score),
            standing_still=found.standing_still,
            unimproved=0 if best else progress.unimproved + 1,
            cost=progress.cost.selection(found.gradients, found.seconds),
        )
        if best:
            progress = progress.but(
                best_score=score, best_step=progress.step, best_weights=progress.averaged, best_is_own=True
            )
        yield Validated(progress.step, score, best)
        return progress

    def agree(self, progress: TrainingProgress) -> None:
        """Raises RankLost if the ranks do not hold the same bits. Called at the end of a trajectory."""
        adam = progress.adam
        refuse_drift(self._team, progress.weights, progress.averaged, progress.best_weights, adam.first, adam.second)

    def result(self, progress: TrainingProgress) -> TrainingResult:
        """Raises TrainingDiverged when nothing was learned: such a rule is not to be registered."""
        if progress.best_score is None or progress.skipped == progress.step:
            recipe, longest = self._recipe, self._recipe.horizons_validated[-1]
            why = (
                f"all {progress.step} meta-steps gave non-finite numbers and were skipped"
                if progress.skipped == progress.step
                else f"every validation of {longest} steps met a non-finite loss, so there is no rule to keep"
            )
            raise TrainingDiverged(
                f"Meta-training learned nothing: {why}. Lower {recipe.output_scales} or "
                f"meta_learning_rate (now {recipe.meta_learning_rate:g}), or shorten the horizon."
            )
        load_weights(self._rule, progress.best_weights)
        extra = {"family": self._spec.family.name, "seed": str(self._spec.seed), "meta_steps": str(progress.step)}
        assert progress.standing_still is not None, "whoever has a score has been validated"
        weights = rule_weights.dumps(self._rule, extra)
        return TrainingResult(weights, progress.best_score, progress.standing_still, self._summary(progress))

    def _summary(self, progress: TrainingProgress) -> dict[str, Any]:
        cost = progress.cost
        return {
            "meta_steps": progress.step,
            "trajectories": progress.trajectory,
            "best_step": progress.best_step,
            "standing_still": progress.standing_still,
            "skipped_steps": progress.skipped,
            "diverged_windows": progress.diverged_windows,
            "replaced_trajectories": progress.replaced,
            "restarts": list(progress.restarts),
            "rollbacks": list(progress.rollbacks),
            "starts": [score if math.isfinite(score) else None for score in progress.start_scores],
            "chosen_start": progress.chosen_start,
            "stopped_early": progress.stopped,
            "cost": {
                "training": {"seconds": cost.training_seconds, "gradient_evaluations": cost.training_gradients},
                "selection": {"seconds": cost.selection_seconds, "gradient_evaluations": cost.selection_gradients},
            },
            "runtime": runtime(self._device, self._backend.name, self._team.size),
        }
