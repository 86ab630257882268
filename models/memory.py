"""How much memory a job will need. A job that needs too much is refused at POST, and again by its worker.

The prediction adds up what a run holds at its fullest moment, phase by phase, in the order of the code that allocates
it. It counts resident memory, all processes of the job together, and should be within 20 % of the measured peak:
`./run bench memory` prints both, and decision 0025 says where torch's heap makes that a matter of luck. The API uses
this module, so it needs no torch.

Only the worker knows which backend will run. POST assumes the native kernel wherever it fits, which every worker with a
compiler or the worker image has; a worker predicts again with the backend that it has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias, assert_never

from gradsmith.rules.configs import Costs as RuleCosts
from gradsmith.rules.configs import TunedConfig
from gradsmith.rules.kernels.sizes import WIDTHS, Sizes
from models.baselines import TUNED
from models.spec import EvaluateSpec, JobSpec, MetaTrainSpec, PreviewSpec, SweepSpec
from models.spec.family_tier import DIRECTIONS, rules_of, training_of
from models.task_spec import Costs, TaskSpec

Computes = Literal["native", "torch", "reference", "triton"]

BLOCK_FLOATS = 8_000_000
"""Numbers that a replayed block may hold (32 MB in float32): 1,300 coordinates of a 20-step window of the 2x20 LSTM.
Smaller blocks spend their time in the overhead of torch's calls; larger ones gain nothing and leave the cache."""

CHUNK_COORDINATES = 16_384
"""How many coordinates a learned rule runs on at once in validation and evaluation. Tasks do not depend on each other,
so this only bounds memory and keeps states in the cache."""

ABREAST_COORDINATES, ABREAST_NUMBERS = 2**18, 2**22
"""How many coordinates a hand-made optimizer runs on at once, and how many numbers gradients may take meanwhile. Its
step is many small operations of torch, whose overhead hardly depends on their size: Muon on 128 networks on digits
takes 0.3 of the time that chunks of ten take."""

KEPT_BYTES = 104 * 2**20
"""How much the native backend keeps of a window at most instead of computing it again: both layers of the 2x20 LSTM
for 6,800 coordinates and 20 steps, or one layer for 13,600. Decision 0026."""

GROUP_COORDINATES = (2048, 8192)
"""How many coordinates go through a window side by side: the least, below which torch's calls cost more than the work,
and the most, above which the state leaves the caches. Between the two it is as many as `KEPT_BYTES` hold whole. A task
is never divided."""

WORKER_BYTES = 285 * 2**20  # Python, torch, the worker's own libraries and connections
_TORCHRUN_BYTES = 225 * 2**20  # torch once more
_DRAWN_AT_ONCE, _DRAWING_BYTES = 1_000_000, 50  # numbers, and bytes for each of them, while tasks are drawn
_BOOTSTRAP_BYTES = 40 * 2**20
_HELPER_BYTES = 64 * 2**20  # pages of a forked process that are no longer its parent's (models.evaluation.sharing)


_Rules: TypeAlias = tuple[tuple[float, RuleCosts], ...]


@dataclass(frozen=True)
class _Sizes:
    """What a job of any kind is made of."""

    family: TaskSpec
    rules: _Rules
    """What each rule takes, and the share of the coordinates that it moves; none where nothing is learned."""
    computes: Computes
    threads: int
    apart: bool = False
    """Whether all coordinates go through the rule's network and only some teach it."""

    @cached_property
    def coordinates(self) -> int:
        """How many numbers an optimizer moves in one task."""
        return self.family.coordinates_per_task

    @cached_property
    def costs(self) -> Costs:
        """What one task of the family takes."""
        return self.family.costs()

    @property
    def width(self) -> int:
        return 8 if self.computes == "reference" else 4

    @cached_property
    def state(self) -> int:
        """Bytes of the rules' memory for one coordinate, in the mean."""
        return self.width * _mean((share, rule.state) for share, rule in self.rules)

    def on_kernel(self, rule: RuleCosts) -> Sizes | None:
        """The sizes of the LSTM kernel that computes this rule; None where another or torch does."""
        return rule.sizes if self.computes == "native" else None

    def leaves(self, rule: RuleCosts) -> int:
        """Numbers that a step of a rule that looks at tensors leaves on its kernel; 0 for another, and on torch."""
        return rule.left + rule.outputs * self.apart if self.computes == "native" else 0


def memory_estimate_bytes(spec: JobSpec, *, computes: Computes | None = None, threads: int | None = None) -> int:
    """Peak resident memory of all processes of this job.

    computes: what the worker has; default: what most workers have for this job, see `likely_backend`
    threads: of each process, where the spec leaves them to be calibrated; default 1
    """
    rules = _rules(spec)
    backend = computes or _likely_backend(spec, rules, native=True)
    sizes = _Sizes(spec.family.tasks, rules, backend, threads or spec.resources.threads_or(1), spec.learns_apart)
    loading, resident = sizes.costs.loading_bytes, sizes.costs.resident_bytes
    least = 0
    match spec:
        case MetaTrainSpec():
            families = [
                replace(sizes, family=each.tasks, rules=_rules(spec.on(each.tasks))) for each in spec.components
            ]
            running = _training(families, spec)
            loading = max(each.costs.loading_bytes for each in families)
            resident = sum({each.family.datasets: each.costs.resident_bytes for each in families}.values())
        case EvaluateSpec():
            running = _evaluating(sizes, spec)
            if spec.evaluation.family_tier:
                running = max(running, _family_tier(sizes, spec))
        case PreviewSpec():
            running = _previewing(sizes, spec)
            least = 0 if spec.training is None else memory_estimate_bytes(spec.training, threads=threads)
        case SweepSpec():
            return 0  # its children are jobs of their own
        case _:
            assert_never(spec)
    each = max(least, WORKER_BYTES + max(loading, resident + running))
    processes = spec.resources.processes
    if processes == 1:
        return each
    return WORKER_BYTES + _TORCHRUN_BYTES + processes * each  # the worker's own hears the others, torchrun starts them


def tasks_abreast(coordinates_per_task: int, costs: Costs = Costs()) -> int:
    """How many tasks a hand-made optimizer runs on at once."""
    working = max(1, costs.used + costs.used_bytes // 4)
    return max(1, min(ABREAST_COORDINATES // coordinates_per_task, ABREAST_NUMBERS // working))


def helper_bytes(spec: EvaluateSpec) -> int:
    """What a process takes that helps an evaluation with its baselines (models.evaluation.sharing)."""
    sizes = _Sizes(spec.family.tasks, (), "reference" if spec.resources.backend == "reference" else "torch", 1)
    plan = spec.evaluation
    curve = sizes.width * (plan.horizon + 1) * plan.test_tasks
    running = _running_baselines(sizes, max(plan.test_tasks, plan.tuning_tasks), plan.baselines)
    return _HELPER_BYTES + running + 3 * curve + sizes.costs.held_out_bytes


def group_tasks(coordinates_per_task: int, record: int, unroll_steps: int) -> int:
    """How many tasks at most go through a window side by side (models.groups). record: numbers that a step of the rule
    leaves of a coordinate on a tape, 0 where there is none."""
    least, most = GROUP_COORDINATES
    kept_whole = KEPT_BYTES // (4 * record * unroll_steps) if record else most
    return max(1, min(most, max(least, kept_whole)) // coordinates_per_task)


def record_of(spec: JobSpec) -> int:
    """Numbers that a step leaves of one coordinate on a tape, in the mean over a task; exact windows have none."""
    return _record(_rules(spec), spec)


def _record(rules: _Rules, spec: JobSpec) -> int:
    return 0 if spec.meta_gradient == "exact" else _mean((share, rule.record) for share, rule in rules)


def _rules(spec: JobSpec) -> _Rules:
    whole = spec.family.tasks.coordinates_per_task
    found = []
    for rule, parts in spec.assigned().values():
        size = sum(part.size for part in parts)
        found.append((size / whole, rule.config.costs_for([part.shape for part in parts])))
    return tuple(found)


def _mean(each: Iterable[tuple[float, int]]) -> int:
    """The mean of numbers with their shares, rounded up."""
    return math.ceil(sum(share * number for share, number in each) - 1e-9)


def batch_estimate_bytes(tasks: TaskSpec, count: int) -> int:
    """Peak memory of `count` float32 tasks that are drawn and compute their losses and gradient once."""
    costs, theta = tasks.costs(), 4 * tasks.coordinates_per_task
    held, used = 4 * costs.held + costs.held_bytes, 4 * costs.used + costs.used_bytes
    return count * held + max(count * (theta + used) + 4 * costs.working, _drawing(costs, count))


def likely_backend(spec: JobSpec, *, native: bool = True) -> Computes:
    """What will compute this job on a worker that has it all. native: whether workers have the native kernel."""
    return _likely_backend(spec, _rules(spec), native=native)


def _likely_backend(spec: JobSpec, rules: _Rules, *, native: bool) -> Computes:
    if spec.resources.backend != "auto":
        return spec.resources.backend
    if spec.meta_gradient == "exact":
        kinds = (rule.config for rule, _ in spec.assigned().values())
        fits = any("native" in config.exact_kernels for config in kinds)
    else:
        fits = any(rule.sizes is not None or rule.left for _, rule in rules)
    fits = fits and spec.resources.device == "cpu"
    return "native" if native and fits else "torch"


# --- phases -----------------------------------------------------------------------------------------------------


def _training(families: list[_Sizes], spec: MetaTrainSpec) -> int:
    """A meta-step or a validation of the family that takes the most, beside a pool of the largest trajectories and the
    buffers of the other families' backends."""
    T = spec.recipe.unroll_steps
    standing = spec.recipe.pool * max(_standing(sizes, spec) for sizes in families)
    buffers = {
        tuple(sizes.family.parts()): _buffers(sizes, _group(sizes, spec) * sizes.coordinates, T) for sizes in families
    }
    return max(
        max(_window(sizes, spec, standing), _validating(sizes, spec, standing))
        + sum(taken for parts, taken in buffers.items() if parts != tuple(sizes.family.parts()))
        for sizes in families
    )


def _window(sizes: _Sizes, spec: MetaTrainSpec, standing: int) -> int:
    """A meta-step. All tasks of the pool hold their position; the group in its window also holds the gradients G (T + 1
    rows) and their suffix sums D (twice while they are made), the rule's memory before it, and what the backend
    needs."""
    T = spec.recipe.unroll_steps
    group = _group(sizes, spec)
    coordinates = group * sizes.coordinates
    row = sizes.width * coordinates
    counted = (
        T * row if spec.recipe.loss_weighting != "sum" or spec.recipe.on != "training" else 0
    )  # as outer gradients of their own
    held = standing + (T + 3) * row + counted + sizes.state * coordinates
    stepping = _minibatch(sizes, group) + _step(sizes) * coordinates
    if spec.meta_gradient == "exact":  # theta and the gradient of each step once more, and what the rule remembers
        graphs = _graphs(sizes, coordinates, T, fewer=spec.recipe.learns_apart)
        kept = T * (2 * row + sizes.state * coordinates) + graphs
        return held + kept + stepping + 4 * row + _slack(sizes, group)
    differentiating = T * row + _gradient(sizes, coordinates, T)
    buffers = _buffers(sizes, coordinates, T) + _slack(sizes, group)
    return held + buffers + max(stepping, 2 * T * row, differentiating)


def _standing(sizes: _Sizes, spec: MetaTrainSpec) -> int:
    """Tasks of a trajectory that is under way, with where they are: theta, its gradient and the rule's memory."""
    tasks = spec.tasks_per_process
    parted = tasks * sizes.costs.parted_bytes if spec.recipe.on == "held_out" else 0
    return _problem(sizes, tasks) + parted + (2 * sizes.width + sizes.state) * tasks * sizes.coordinates


def _graphs(sizes: _Sizes, coordinates: int, steps: int, *, fewer: bool) -> int:
    """What autograd keeps of an exact window, the graphs of all steps or of one block of one; or the records of a
    kernel. fewer: graphs may be smaller than that, so that all of them fit after all"""
    total = 0
    for share, rule in sizes.rules:
        if sizes.leaves(rule):
            total += _kept(sizes, rule, math.ceil(share * coordinates), steps)
            continue
        each = sizes.width * math.ceil(share * coordinates) * rule.autograd
        block = each if rule.whole else min(each, sizes.width * BLOCK_FLOATS)
        total += each * steps if each * steps <= KEPT_BYTES else max(block, KEPT_BYTES * fewer)
    return total


def _group(sizes: _Sizes, spec: MetaTrainSpec) -> int:
    """Tasks of the largest group."""
    tasks = spec.tasks_per_process
    if spec.resources.device != "cpu":
        return tasks
    most = group_tasks(sizes.coordinates, _record(sizes.rules, spec), spec.recipe.unroll_steps)
    return -(-tasks // -(-tasks // most))


def _validating(sizes: _Sizes, spec: MetaTrainSpec, standing: int) -> int:
    """Fixed tasks, a chunk at a time, beside the trajectory that goes on afterwards."""
    tasks = spec.tasks_per_process
    coordinates = tasks * sizes.coordinates
    trajectory = standing + 2 * sizes.width * coordinates
    group = _group(sizes, spec)
    grouped = group * sizes.coordinates
    buffers = _buffers(sizes, grouped, spec.recipe.unroll_steps) + _slack(sizes, group)
    longest = spec.recipe.horizons_validated[-1]
    curves = 3 * sizes.width * (longest + 1) * spec.recipe.validation_tasks
    held_out = sizes.costs.held_out_bytes if spec.recipe.on == "held_out" else 0
    return trajectory + buffers + _rollout(sizes, spec.recipe.validation_tasks) + curves + held_out


def _evaluating(sizes: _Sizes, spec: EvaluateSpec) -> int:
    """An evaluation keeps every optimizer's curve to the end: the learned one's, two for each tuned baseline, and
    one for each untuned one."""
    plan = spec.evaluation
    curve = (plan.horizon + 1) * plan.test_tasks
    kept = sizes.width * curve * (1 + 2 * len(plan.baselines) + len(plan.untuned))
    running = _rollout(sizes, max(plan.test_tasks, plan.tuning_tasks), plan.baselines) + 2 * sizes.width * curve
    running = max(running + sizes.costs.held_out_bytes, _anatomy(sizes))
    resampling = _BOOTSTRAP_BYTES + 8 * (4 * curve + 3 * (plan.horizon + 1) * plan.bootstrap_samples)
    return kept + max(running, resampling)


def _family_tier(sizes: _Sizes, spec: EvaluateSpec) -> int:
    """The training of a schedule, which torch computes, beside the curves that the evaluation has so far."""
    heaviest = rules_of(dict.fromkeys(DIRECTIONS, 1.0))[-1]
    training = training_of(spec, heaviest)
    computes: Computes = "reference" if sizes.computes == "reference" else "torch"
    own = replace(sizes, rules=_rules(training), computes=computes)
    plan = spec.evaluation
    kept = (plan.horizon + 1) * plan.test_tasks * (1 + 2 * len(plan.baselines) + len(plan.untuned))
    return sizes.width * kept + _training([own], training)


def _anatomy(sizes: _Sizes) -> int:
    """One task with the rule's memory, which every gradient of a response gets a copy of, and two baselines beside it,
    each with three numbers of a coordinate, twice."""
    each = 2 * sizes.state + _step(sizes) + 18 * sizes.width
    return _problem(sizes, 1) + _minibatch(sizes, 1) + each * sizes.coordinates


def _previewing(sizes: _Sizes, spec: PreviewSpec) -> int:
    """A preview keeps two curves for each baseline to the end."""
    plan = spec.evaluation
    curve = (plan.horizon + 1) * plan.tuning_tasks
    kept = sizes.width * curve * 2 * len(plan.baselines)
    running = _rollout(sizes, plan.tuning_tasks, plan.baselines) + 2 * sizes.width * curve
    resampling = _BOOTSTRAP_BYTES + 8 * (4 * curve + 3 * (plan.horizon + 1) * plan.bootstrap_samples)
    return kept + max(running, resampling)


def _rollout(sizes: _Sizes, tasks: int, baselines: Sequence[str] = ()) -> int:
    """A run forward of the rule, or of the baseline that takes the most."""
    learned = _running(sizes, tasks, max(1, CHUNK_COORDINATES // sizes.coordinates), sizes.state + _step(sizes))
    return max(learned, _running_baselines(sizes, tasks, baselines))


def _running_baselines(sizes: _Sizes, tasks: int, baselines: Sequence[str]) -> int:
    each = max((_baseline(sizes, name) for name in baselines), default=0)
    return _running(sizes, tasks, tasks_abreast(sizes.coordinates, sizes.costs), each) if baselines else 0


def _running(sizes: _Sizes, tasks: int, at_once: int, each: int) -> int:
    """A run forward on a chunk of the tasks; the next chunk is drawn before the last one is freed. each: bytes for each
    coordinate, beside theta, its gradient and two moments"""
    chunk = min(tasks, at_once)
    problems = min(2, -(-tasks // chunk)) * _problem(sizes, chunk)
    stepping = _minibatch(sizes, chunk) + (each + 6 * sizes.width) * chunk * sizes.coordinates
    return problems + max(stepping, _drawing(sizes.costs, chunk))


def _baseline(sizes: _Sizes, name: str) -> int:
    """Bytes for each coordinate that a baseline takes beside theta, its gradient and two moments: of those that run a
    rule of kind `tuned`, what it remembers and what a step takes."""
    if TUNED[name].torch is not None:
        return 0
    costs = TunedConfig(optimizer=name).costs_for([part.shape for part in sizes.family.parts()])
    return sizes.width * (costs.state + costs.step)


# --- parts ------------------------------------------------------------------------------------------------------


def _problem(sizes: _Sizes, tasks: int) -> int:
    """What a batch of tasks holds."""
    return tasks * (sizes.width * sizes.costs.held + sizes.costs.held_bytes)


def _slack(sizes: _Sizes, tasks: int) -> int:
    """Memory that glibc's heap keeps after it was freed: that of drawn tasks, and gaps between the temporaries of
    torch's steps, where it is a matter of luck (none to twice this was seen). A block of 32 MiB or more is mapped, and
    returns to the system at once."""
    coordinates = tasks * sizes.coordinates
    largest = max(share * rule.largest for share, rule in sizes.rules)
    mapped = sizes.width * largest * coordinates >= 32 * 2**20
    fragments = 0 if mapped or _step(sizes) == 0 else 5 * (_step(sizes) + sizes.state) * coordinates // 4
    return _drawing(sizes.costs, tasks) + fragments


def _drawing(costs: Costs, tasks: int) -> int:
    """Numbers are drawn in float64, some tasks at a time; one task is never divided."""
    each = costs.drawn
    return _DRAWING_BYTES * min(tasks * each, max(_DRAWN_AT_ONCE, each))


def _minibatch(sizes: _Sizes, tasks: int) -> int:
    """What tasks take to compute their losses and their gradient."""
    return sizes.width * sizes.costs.working + tasks * (sizes.width * sizes.costs.used + sizes.costs.used_bytes)


def _step(sizes: _Sizes) -> int:
    """Bytes for each coordinate, beside the rule's memory, while the rule makes a step; the kernel works in place."""
    in_place = (bool(sizes.on_kernel(rule) or sizes.leaves(rule)) for _, rule in sizes.rules)
    each = ((share, 0 if done else rule.step) for done, (share, rule) in zip(in_place, sizes.rules, strict=True))
    gathered = 3 if len(sizes.rules) > 1 else 0  # a rule's own theta and gradient, and which coordinates they are
    return sizes.width * (_mean(each) + gathered)


def _gradient(sizes: _Sizes, coordinates: int, steps: int) -> int:
    """What backends take while they differentiate a window, one rule after the other, and then free."""
    return max(_differentiating(sizes, rule, math.ceil(share * coordinates), steps) for share, rule in sizes.rules)


def _differentiating(sizes: _Sizes, rule: RuleCosts, coordinates: int, steps: int) -> int:
    gathered = 0 if len(sizes.rules) == 1 else 2 * sizes.width * steps * coordinates
    kernel = sizes.on_kernel(rule)
    if kernel is not None:
        return gathered + sizes.threads * _workspace(kernel, steps)
    if sizes.leaves(rule):
        return gathered
    if sizes.computes == "reference" or not rule.replay:
        floats = coordinates * steps * rule.autograd
        return gathered + sizes.width * (floats if rule.whole else min(floats, BLOCK_FLOATS))
    return gathered


def _buffers(sizes: _Sizes, coordinates: int, steps: int) -> int:
    """What backends keep from window to window. The native backend keeps a tape of gates and c, for as many whole
    layers as the budget holds, or a part of one; torch's replay keeps one block's buffers, and a second set where the
    last block is shorter."""
    return sum(_kept(sizes, rule, math.ceil(share * coordinates), steps) for share, rule in sizes.rules)


def _kept(sizes: _Sizes, rule: RuleCosts, coordinates: int, steps: int) -> int:
    kernel = sizes.on_kernel(rule)
    if kernel is not None:
        layer = 4 * coordinates * steps * rule.record // kernel.layers
        return min(KEPT_BYTES, layer * max(1, min(kernel.layers, KEPT_BYTES // layer)))
    if sizes.leaves(rule):
        return 4 * coordinates * steps * sizes.leaves(rule)
    if sizes.computes == "reference" or not rule.replay:
        return 0
    floats = steps * rule.replay
    blocks = -(-coordinates // max(1, BLOCK_FLOATS // floats))
    size = -(-coordinates // blocks)
    return sizes.width * floats * size * (2 if coordinates % size else 1)


def _workspace(kernel: Sizes, steps: int) -> int:
    """What a thread of the kernel takes on the CPU with the widest vectors; POST does not know the worker's CPU."""
    return max(kernel.workspace_bytes(steps, width) for width in WIDTHS.values())
