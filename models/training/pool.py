"""The trajectories of a run: which are under way, and whose window comes next.

A pool of one is a trajectory after the other, all tasks in the same phase. A larger pool fills slowly, so that its
trajectories are at different phases: a rule that is trained in lockstep forgets the beginning while it sees the end.
Every choice is a hash of the seed and of a number that the progress holds, so a resumed run makes the same ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from models.backends import Backend, draw, sampled
from models.captured import Outcome, Windows
from models.groups import Groups
from models.meta_loss import MetaLoss
from models.parallel import Team
from models.rollout import Learned
from models.spec import MetaTrainSpec, Recipe, Split
from models.tasks.base import Family, TaskBatch
from models.tasks.randomness import key, share_of
from models.training.progress import Live
from models.unroll import Position, Window, unroll_window

DIVERGED_ABOVE = (20.0, 5.0)
"""A trajectory whose window has a mean loss above the first, and above the second times its start's, is replaced."""


@dataclass(frozen=True)
class Source:
    """A family that trajectories are drawn from, and what runs the rule on its tasks.

    backend: of trajectories; judged: of validations, which run the rule as its users do
    loss: what a window's meta-gradient is of
    parts: the own tasks of a trajectory, in groups
    tensors: coordinates of each tensor of a task
    knows_steps: whether the rule asks how many steps a run has
    """

    family: Family
    weight: float
    backend: Backend
    judged: Backend
    windows: Windows
    loss: MetaLoss
    parts: tuple[range, ...]
    tensors: tuple[int, ...]
    knows_steps: bool

    def contender(self, steps: int) -> Learned:
        """The rule, for a run of so many steps."""
        return Learned(self.judged, horizon=steps)


class Pool:
    """Begins trajectories and moves them on. It keeps the tasks of those under way, and nothing else."""

    def __init__(
        self, spec: MetaTrainSpec, sources: tuple[Source, ...], team: Team, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._seed = spec.seed
        self._recipe = spec.recipe
        self._sources = sources
        self._team = team
        self._dtype = dtype
        self._device = device
        self._groups: dict[int, Groups] = {}  # by the number of their trajectory

    def begins(self, live: tuple[Live, ...], meta_step: int) -> bool:
        """Whether the window of this meta-step is the first one of a new trajectory."""
        return not live or (len(live) < self._recipe.pool and meta_step % 2 == 0)

    def drawn(self, live: tuple[Live, ...], meta_step: int) -> int:
        """The place in `live` of the trajectory whose window this meta-step is."""
        return key("pool", self._seed, meta_step) % len(live)

    def begun(self, number: int) -> Live:
        """A trajectory at its start. Costs a gradient evaluation a task."""
        source = self._source(number)
        groups = self._groups[number] = Groups(
            self._batches(number), source.backend, horizon=horizon_of(self._recipe, self._seed, number)
        )
        own = torch.cat([position.losses for position in groups.positions]).double()
        start = own.sum()[None] / self._recipe.tasks
        self._team.sum_(start)
        return Live(number, float(start), tuple(groups.positions), source.backend.name)

    def unrolled(self, live: Live) -> tuple[Window, Live]:
        """The next window of a trajectory."""
        groups, source = self._groups[live.number], self._source(live.number)
        most = self._recipe.sampled_coordinates
        windows = source.windows if most is None else self._sampled(source, live, most)
        window = groups.unroll(windows, self._recipe.unroll_steps)
        return window, Live(live.number, live.start_loss, tuple(groups.positions), live.backend)

    def _sampled(self, source: Source, live: Live, most: int) -> Windows:
        """Windows whose weight gradient looks at some coordinates, the same ones in all groups and ranks."""
        seed = key("coordinates", self._seed, live.number, live.step) & (2**63 - 1)

        def window(tasks: TaskBatch, position: Position, unroll_steps: int) -> Outcome:
            whole = (tasks.coordinates_per_task,)  # where tasks differ in size
            sizes = source.tensors if sum(source.tensors) == sum(whole) else whole
            chosen = draw(sizes, tasks.tasks, most, seed, like=position.theta)
            backend = source.backend if chosen is None else sampled(source.backend, chosen)
            return unroll_window(tasks, position, unroll_steps, backend, source.loss)

        return window

    def restored(self, live: tuple[Live, ...]) -> tuple[Live, ...]:
        """`live` of a checkpoint, with their tasks drawn again; none where another backend has left their memory,
        whose layout is its own: the pool then fills anew."""
        for each in live:
            source = self._source(each.number)
            if each.backend != source.backend.name:
                self._groups.clear()
                return ()
            self._groups[each.number] = Groups(self._batches(each.number), source.backend, each.positions)
        return live

    def keep(self, live: tuple[Live, ...]) -> None:
        """Let go of the tasks of all other trajectories."""
        self._groups = {each.number: self._groups[each.number] for each in live}

    def diverged(self, live: Live, loss: float) -> bool:
        """Whether a window of this mean loss makes the trajectory useless."""
        above, times = DIVERGED_ABOVE
        return not math.isfinite(loss) or loss > max(above, times * live.start_loss)

    def done(self, live: Live) -> bool:
        """Whether the trajectory is at its horizon."""
        return live.step >= horizon_of(self._recipe, self._seed, live.number)

    def _source(self, number: int) -> Source:
        weights = [source.weight for source in self._sources]
        return self._sources[drawn_by_weight(weights, share_of("family", self._seed, number))]

    def _batches(self, number: int) -> tuple[TaskBatch, ...]:
        source = self._source(number)
        where = {"seed": self._seed, "trajectory": number}
        whole = (
            batch
            for part in source.parts
            for batch in source.family.sample(
                Split.TRAIN, **where, tasks=len(part), first=part.start, dtype=self._dtype, device=self._device
            )
        )
        return tuple(whole) if self._recipe.on == "training" else tuple(map(_parted, whole))


def _parted(batch: TaskBatch) -> TaskBatch:
    parted = batch.parted()
    assert parted is not None, "the spec lets only families through whose data can be parted"
    return parted


def horizon_of(recipe: Recipe, seed: int, number: int) -> int:
    """Inner steps of a trajectory: log-uniform between the two horizons of the recipe, in whole windows."""
    if recipe.shortest_horizon is None:
        return recipe.horizon
    low, high = math.log(recipe.shortest_horizon), math.log(recipe.horizon)
    drawn = math.exp(low + (high - low) * share_of("horizon", seed, number))
    return recipe.unroll_steps * round(drawn / recipe.unroll_steps)


def drawn_by_weight(weights: list[float], share: float) -> int:
    """The place in `weights` where `share` (0 to 1) of their sum is reached."""
    left = share * sum(weights)
    for place, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return place
    return len(weights) - 1
