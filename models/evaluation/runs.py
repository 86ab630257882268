"""The runs of one evaluation: who runs on which tasks, and how often."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from gradsmith.rules import RuleSet
from gradsmith.rules import weights as rule_weights
from models.backends import backend_for, dtype_for, dtype_of
from models.baselines import TUNED, UNTUNED
from models.baselines.base import Baseline
from models.curves import Curves
from models.evaluation.baseline_runs import BaselineRuns, BaselineStore, Wanted
from models.evaluation.equal_time import Budgets, planned_steps
from models.evaluation.time_to_target import Target, targets
from models.looks import looks
from models.measured import CRITERIA, TUNING_TRAJECTORY, Measured, MeasuringProgress, Runs
from models.rollout import ByParts, Contender, Learned, Sample, run
from models.runtime import device_of
from models.spec import BaselineName, EvaluateSpec, Split
from models.tasks.base import Family, TaskBatch
from models.tasks.catalogue import open_for_testing, open_for_tuning
from models.tuning import Tuning
from models.tuning_budget import runs_of

FRESH_TRAJECTORY = TUNING_TRAJECTORY + 1  # of the validation split: nothing is selected or tuned on these tasks


class EvaluationRuns:
    """Runs an optimizer and its baselines, each on the tasks that it may see.

    helpers: as in `evaluate`
    progress: counts them; gradients: evaluations of a task's gradient that were computed here, by split
    Raises as `evaluate` does.
    """

    def __init__(
        self,
        weights: bytes,
        spec: EvaluateSpec,
        data_dir: Path | None,
        threads: int,
        store: BaselineStore | None,
        helpers: int,
    ) -> None:
        self._spec = spec
        self._plan = plan = spec.evaluation
        self.device = device_of(spec.resources)
        rule, wanted = rule_weights.loads(weights), spec.resources.backend
        self.dtype = dtype_for(wanted, given=dtype_of(rule))
        rule = rule.to(self.device, self.dtype)
        members = [member for _, member in rule.members()] if isinstance(rule, RuleSet) else [rule]
        self.knows_steps = any(member.settings.knows_steps for member in members)
        # One for each shape of task, which a mixture has several of.
        shapes = {
            spec.family.tasks.parts(): None,
            **{point.tasks.parts(): None for point in spec.family.tasks.weighted_points},
        }
        self._backends = {
            parts: backend_for(*(rule, self.dtype, self.device, threads), wanted=wanted, parts=parts)
            for parts in shapes
        }
        self.backend = self._backends[spec.family.tasks.parts()]
        # Two families, each opened for one split: what tunes cannot see what is measured.
        self.tuning_family = open_for_tuning(spec.family.tasks, data_dir)
        points = spec.family.tasks.weighted_points
        self.tuning_points = [(self.tuning_family, 1.0)]
        """The families that a validation looks at, with their weights."""
        if len(points) > 1:
            self.tuning_points = [(open_for_tuning(point.tasks, data_dir), point.weight) for point in points]
        self._test_family = open_for_testing(spec.family.tasks, data_dir)
        # The learned rule, the targets, each untuned baseline, each tuned one's sweep and its run for each criterion.
        sweeps = len(plan.baselines) * (runs_of(plan.schedules) + len(CRITERIA))
        self.progress = Runs(2 + len(plan.untuned) + sweeps)
        self.baselines = BaselineRuns(spec, self.dtype, self.device, self.progress, store, helpers)
        self._test_sample = Sample(Split.TEST, spec.seed, 0, plan.test_tasks)

    @property
    def learned(self) -> Contender:
        """The optimizer, in a run of all steps."""
        return self._learned_over(self._plan.horizon)

    def _learned_over(self, steps: int) -> Contender:
        each = {parts: Learned(backend, rests=True, horizon=steps) for parts, backend in self._backends.items()}
        return each[self._spec.family.tasks.parts()] if len(each) == 1 else ByParts(each)

    def tuned(self, names: Sequence[BaselineName]) -> Generator[MeasuringProgress, None, dict[BaselineName, Tuning]]:
        """The sweeps of baselines."""
        sample = Sample(Split.VALIDATION, self._spec.seed, TUNING_TRAJECTORY, self._plan.tuning_tasks)
        wanted = [self.baselines.tuned(name, self.tuning_family, sample) for name in names]
        return dict(zip(names, (yield from self.baselines.found(wanted)), strict=True))

    def set_targets(self, name: BaselineName, tuning: Tuning) -> Generator[MeasuringProgress, None, list[Target]]:
        """What this baseline reaches on fresh tasks."""
        sample = Sample(Split.VALIDATION, self._spec.seed, FRESH_TRAJECTORY, self._plan.tuning_tasks)
        wanted = self.baselines.curves(
            *(TUNED[name], tuning.best("final"), self.tuning_family, sample), "targets", f"setting targets with {name}"
        )
        [fresh] = yield from self.baselines.found([wanted])
        return targets(fresh)

    def tested(self, tunings: Mapping[BaselineName, Tuning]) -> Generator[MeasuringProgress, None, dict[str, Measured]]:
        """Both tiers on the test tasks: what is tuned as it is for the end and for the area."""
        wanted: list[Wanted[Curves]] = []
        of_final: dict[str, int] = {}
        of_area: dict[str, int] = {}
        for name, tuning in tunings.items():
            final, area = (tuning.best(criterion) for criterion in CRITERIA)
            of_final[name] = of_area[name] = len(wanted)
            wanted.append(self._on_test_tasks(TUNED[name], final, pictures=self._spec.family.tasks.pictured))
            if area != final:
                of_area[name] = len(wanted)
                wanted.append(self._on_test_tasks(TUNED[name], area))
            else:
                self.progress.done += 1
        for name in self._plan.untuned:
            of_final[name] = of_area[name] = len(wanted)
            wanted.append(self._on_test_tasks(UNTUNED[name], UNTUNED[name]))
        found = yield from self.baselines.found(wanted)
        return {name: Measured(found[place], found[of_area[name]]) for name, place in of_final.items()}

    def tested_learned(self, steps: int) -> Generator[MeasuringProgress, None, Curves]:
        """The optimizer on the test tasks, in a run of so many steps."""
        whole = steps == self._plan.horizon
        after = "" if whole else f" over {steps} steps"
        pictures = whole and self._spec.family.tasks.pictured
        found = yield from self.tested_as(
            "learned", self._learned_over(steps), steps, after=after, held_out=whole, pictures=pictures
        )
        return found

    def tested_as(
        self,
        name: str,
        contender: Contender,
        steps: int,
        *,
        after: str = "",
        held_out: bool = True,
        pictures: bool = False,
        begin: Tensor | None = None,
    ) -> Generator[MeasuringProgress, None, Curves]:
        """What is no baseline on the test tasks, in a run of so many steps. begin: as in `rollout.run`"""
        sample = self._test_sample
        message = f"measuring {name} on {sample.tasks} held-out tasks{after}"
        found = yield from self._measured(
            *(contender, self._test_family, sample, steps, message),
            held_out=held_out,
            pictures=pictures,
            begin=begin,
        )
        self.baselines.gradients["test"] += sample.tasks * (steps + 1)
        return found

    def on_fresh_tasks(self, name: str, contender: Contender) -> Generator[MeasuringProgress, None, Curves]:
        """A run on as many validation tasks as there are test tasks. Nothing was selected or tuned on these."""
        plan = self._plan
        sample = Sample(Split.VALIDATION, self._spec.seed, FRESH_TRAJECTORY, plan.test_tasks)
        message = f"comparing {name} on {sample.tasks} fresh validation tasks"
        found = yield from self._measured(contender, self.tuning_family, sample, plan.horizon, message)
        self.baselines.gradients["tuning"] += sample.tasks * (plan.horizon + 1)
        return found

    def _measured(
        self,
        contender: Contender,
        family: Family,
        sample: Sample,
        steps: int,
        message: str,
        *,
        held_out: bool = False,
        pictures: bool = False,
        begin: Tensor | None = None,
    ) -> Generator[MeasuringProgress, None, Curves]:
        work = run(
            *(contender, family, sample, steps),
            dtype=self.dtype,
            device=self.device,
            held_out=held_out,
            pictures=pictures,
            looks=looks(steps) if self._plan.on == "held_out" else (),
            begin=begin,
        )
        found = yield from self.progress.ticking(work, message)
        self.progress.done += 1
        return found

    def in_time(self, budgets: Budgets, whole: Curves) -> Generator[MeasuringProgress, None, dict[int, Curves]]:
        """The optimizer's curves after each number of steps that it has time for. One that asks how many steps a run
        has makes a run of each length, so that it ends where its time does; for another one `whole` is cut."""
        steps = {made for budget in budgets.values() for made in budget}
        if not self.knows_steps:
            return {made: whole.cut(made) for made in steps}
        horizon = self._plan.horizon
        found = {horizon: whole, 0: whole.cut(0)}
        for made in sorted({planned_steps(made, horizon) for made in steps} - found.keys()):
            found[made] = yield from self.tested_learned(made)
        return {made: found[planned_steps(made, horizon)] for made in steps}

    def one_task(self) -> TaskBatch:
        """What a step is timed on."""
        return self._one(self.tuning_family, Split.VALIDATION, FRESH_TRAJECTORY)

    def first_test_task(self) -> TaskBatch:
        """What is looked at closely."""
        return self._one(self._test_family, Split.TEST, 0)

    def _one(self, family: Family, split: Split, trajectory: int) -> TaskBatch:
        where = {"seed": self._spec.seed, "trajectory": trajectory}
        tasks, *_ = family.sample(split, **where, tasks=1, dtype=self.dtype, device=self.device)
        return tasks

    def _on_test_tasks(self, baseline: Baseline, contender: Contender, *, pictures: bool = False) -> Wanted[Curves]:
        sample = self._test_sample
        message = f"measuring {baseline.name} on {sample.tasks} held-out tasks"
        return self.baselines.curves(
            *(baseline, contender, self._test_family, sample, "test", message), held_out=True, pictures=pictures
        )
