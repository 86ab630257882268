"""What a validation changes about a run, each as a function from its progress to the next, with the event that says so.

Several starts are tried one after the other; the one with the best last validation goes on where it was. A rollback
undoes the meta-steps since the best validation. Patience ends the run.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from models.meta_optimizer import AdamState
from models.spec import Recipe
from models.training.events import Restarted, RolledBack, StartEnded, StoppedEarly, Turn
from models.training.progress import Leader, TrainingProgress
from models.training.selection import far_above, stuck

RATE_AFTER_ROLLBACK = 0.7

Initial = Callable[[int], Tensor]
"""The weights of the initialisation with this number, from 0."""

Turned = tuple[TrainingProgress, Turn]


def among_starts(progress: TrainingProgress, recipe: Recipe) -> bool:
    """Whether the run is still in one of several starts."""
    return recipe.starts > 1 and progress.start < recipe.starts


def start_is_over(progress: TrainingProgress, recipe: Recipe) -> bool:
    """Whether one of several starts has had its meta-steps."""
    return among_starts(progress, recipe) and progress.step == (progress.start + 1) * recipe.start_steps


def turned(progress: TrainingProgress, recipe: Recipe, initial: Initial) -> Turned | None:
    """What follows from the newest validation; None: training goes on as before."""
    if progress.step >= recipe.meta_steps:
        return None
    if start_is_over(progress, recipe):
        return _next_start(progress, recipe, initial)
    if among_starts(progress, recipe):
        return None
    if recipe.patience is not None and progress.unimproved >= recipe.patience:
        event = StoppedEarly(progress.step, progress.unimproved, progress.best_step)
        return progress.but(stopped=True, live=()), event
    # After half of the meta-steps it is too late for a new initialisation to learn anything.
    early = progress.step <= recipe.meta_steps // 2
    if early and stuck(progress.scores, progress.standing_still, recipe.plateau_patience):
        return _restarted(progress, recipe, initial)
    best = progress.best_score if progress.best_is_own else None
    if best is not None and recipe.rollback is not None and far_above(progress.scores[-1], best, recipe.rollback):
        return _rolled_back(progress, best)
    return None


def _restarted(progress: TrainingProgress, recipe: Recipe, initial: Initial) -> Turned:
    reason = (
        f"validation stood still at {progress.scores[-1]:.4g} (standing still: {progress.standing_still:.4g}) for "
        f"{recipe.plateau_patience} validations; training goes on from a new initialisation"
    )
    anew = progress.begun_anew(initial(recipe.starts + len(progress.restarts)))
    return anew.but(restarts=(*progress.restarts, progress.step)), Restarted(progress.step, reason)


def _rolled_back(progress: TrainingProgress, best_score: float) -> Turned:
    factor = progress.rate_factor * RATE_AFTER_ROLLBACK
    back = progress.but(
        weights=progress.best_weights,
        averaged=progress.best_weights,
        adam=AdamState.zero(progress.best_weights),
        live=(),
        rate_factor=factor,
        rollbacks=(*progress.rollbacks, progress.step),
        skipped_in_a_row=0,
    )
    return back, RolledBack(progress.step, progress.scores[-1], best_score, progress.best_step, factor)


def _next_start(progress: TrainingProgress, recipe: Recipe, initial: Initial) -> Turned:
    number, score = progress.start + 1, progress.scores[-1]
    leader = progress.leader
    if leader is None or score < leader.score:
        vectors = (progress.weights, progress.averaged, progress.adam)
        leader = Leader(number, score, *vectors, progress.age, progress.scores)
    progress = progress.but(start=number, start_scores=(*progress.start_scores, score), unimproved=0)
    if number < recipe.starts:
        following = progress.begun_anew(initial(number)).but(leader=leader)
        return following, StartEnded(progress.step, number, recipe.starts, score, None)
    first, last = (leader.number - 1) * recipe.start_steps, leader.number * recipe.start_steps
    going_on = progress.but(
        weights=leader.weights,
        averaged=leader.averaged,
        adam=leader.adam,
        age=leader.age,
        scores=leader.scores,
        live=(),
        leader=None,
        since=progress.step - recipe.start_steps,
        best_is_own=first < progress.best_step <= last,
        chosen_start=leader.number,
        skipped_in_a_row=0,
    )
    return going_on, StartEnded(progress.step, number, recipe.starts, score, leader.number)
