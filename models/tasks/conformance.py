"""What every family promises, checked on one: `gradsmith-server families check NAME`.

Training, validation, evaluation and CUDA graphs rely on each of these promises, and most of them break in silence: a
wrong gradient trains a rule for another problem, a task that depends on its neighbours gives other results on two ranks
than on one.
"""

from __future__ import annotations

import copy
import logging
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.errors import FamilyBroken, SplitHeldOut
from models.spec import Split
from models.task_spec import TaskSpec
from models.tasks import footprint
from models.tasks.base import TaskBatch
from models.tasks.catalogue import TRAINING_SPLITS, open_for_testing, open_for_training, opened
from models.tasks.randomness import key, normals

logger = logging.getLogger(__name__)

TASKS, MANY, STEPS = 5, 64, (0, 7)
DIRECTIONS = 6
GRADIENT_TOLERANCE = 1e-4  # of the slope along a direction; a central difference in float64 is a hundred times closer
PRODUCT_TOLERANCE = 1e-4  # of a product's length; the default's own difference errs by 1e-6
COMPANY_TOLERANCE = 1e-9  # of float64 numbers, which another order of summation changes in the last bits


class Broken(Exception):
    """The family does not keep a promise; `str(error)` says which, and what was seen."""


@dataclass(frozen=True)
class Subject:
    """The family that is looked at."""

    spec: TaskSpec
    data_dir: Path | None = None

    def drawn(
        self,
        *,
        split: Split = Split.TRAIN,
        seed: int = 1,
        tasks: int = TASKS,
        first: int = 0,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
    ) -> tuple[TaskBatch, ...]:
        """Tasks of a family that is opened for them anew."""
        family = open_for_testing if split is Split.TEST else open_for_training
        return family(self.spec, self.data_dir).sample(
            split, seed=seed, trajectory=3, tasks=tasks, first=first, dtype=dtype, device=device
        )


def conformance(subject: Subject) -> Iterator[tuple[str, str | None]]:
    """The name of each promise, and how it is broken; None where it is kept.

    A family that cannot be opened breaks `open`, and nothing else is looked at. An exception that ends several checks
    is logged once.
    """
    try:
        open_for_training(subject.spec, subject.data_dir)
    except Exception as error:  # a plug-in raises what it likes
        if not isinstance(error, FamilyBroken):  # which has been logged
            logger.exception("The family cannot be opened.")
        yield "open", f"{type(error).__name__}: {error}"
        return
    logged: list[str] = []
    for name, check in CHECKS.items():
        try:
            check(subject)
        except Broken as broken:
            yield name, str(broken)
        except footprint.DrawingFailed as failed:
            told = str(failed).rstrip()
            if not any(told.endswith(known) for known in logged):
                logger.error("The check %r ended with an exception.\n%s", name, told)
            yield (
                name,
                f"the process that drew the tasks failed: {told.splitlines()[-1] if told else 'it said nothing'}",
            )
        except Exception as error:
            last = "".join(traceback.format_exception_only(error)).rstrip()
            if last not in logged:
                logger.exception("The check %r ended with an exception.", name)
                logged.append(last)
            yield name, f"{type(error).__name__}: {error}"
        else:
            yield name, None


def _size(subject: Subject) -> None:
    spec, batches = subject.spec, subject.drawn(tasks=MANY)
    if type(spec).model_validate_json(spec.model_dump_json()) != spec:
        raise Broken(f"the spec is another one after it was written as JSON and read: {spec!r}")
    names = [part.name for part in spec.parts()]
    if len(set(names)) < len(names):
        raise Broken(f"parts() uses a name twice: {', '.join(names)}")
    if (counted := sum(batch.tasks for batch in batches)) != MANY:
        raise Broken(f"{MANY} tasks were asked for, and the batches have {counted}")
    if (largest := max(batch.coordinates_per_task for batch in batches)) != spec.coordinates_per_task:
        raise Broken(f"parts() add up to {spec.coordinates_per_task} coordinates, and the largest task has {largest}")
    for tasks in batches:
        theta = tasks.initial()
        losses, gradient = tasks.losses_and_gradient(theta, 0)
        found = [tuple(each.shape) for each in (theta, losses, gradient)]
        wanted = [(tasks.coordinates,), (tasks.tasks,), (tasks.coordinates,)]
        if found != wanted:
            raise Broken(f"starting points, losses and gradient have the shapes {found}, and should have {wanted}")
        theta += 1.0
        if torch.equal(tasks.initial(), theta):
            raise Broken("initial() gives the same tensor twice, so that a run would move the start of the next")


def _gradient(subject: Subject) -> None:
    for tasks in subject.drawn():
        for step in STEPS:
            _gradient_of(tasks, step)


def _gradient_of(tasks: TaskBatch, step: int) -> None:
    theta = _somewhere(tasks)
    losses, gradient = tasks.losses_and_gradient(theta, step)
    if losses.requires_grad or gradient.requires_grad:
        raise Broken("losses_and_gradient keeps a graph; give back constants (torch.no_grad, detach)")
    free = theta.clone().requires_grad_()
    plain = tasks.losses(free, step)
    _same(f"losses() and losses_and_gradient() at step {step}", plain.detach(), losses, COMPANY_TOLERANCE)
    (expected,) = torch.autograd.grad(plain.sum(), free)
    _same(f"the gradient of step {step} and autograd's of losses()", gradient, expected, GRADIENT_TOLERANCE)
    for number in range(DIRECTIONS):
        direction = _noise(f"direction {number}", theta)
        h = 1e-6 * float(theta.abs().mean() + 1.0)
        ahead, behind = (tasks.losses(theta + sign * h * direction, step).detach() for sign in (1, -1))
        slopes = (ahead - behind) / (2 * h)
        along = (gradient * direction).view(tasks.tasks, -1)
        # Along a random direction terms cancel; what they add up to without their signs is the scale.
        errors = (slopes - along.sum(dim=1)).abs() / (along.abs().sum(dim=1) + 1e-12)
        if not float(errors.median()) < GRADIENT_TOLERANCE:  # one task may stand at a kink
            raise Broken(
                f"at step {step} the gradient along a random direction is {float(along[0].sum()):.6g}, and finite "
                f"differences of the loss give {float(slopes[0]):.6g}"
            )


def _hessian(subject: Subject) -> None:
    for tasks in subject.drawn():
        for step in STEPS:
            _product_of(tasks, step)


def _parted(subject: Subject) -> None:
    promised = subject.spec.parts_data
    if len(subject.spec.weighted_points) > 1 and not promised:
        return  # some of a mixture's families may have data
    for tasks in subject.drawn():
        parted = tasks.parted()
        if (parted is not None) != promised:
            raise Broken(f"parts_data is {promised}, and parted() gives {'none' if parted is None else 'parted tasks'}")
        if parted is None:
            continue
        if parted.outer is None:
            raise Broken("parted() gives tasks without `outer`")
        theta = tasks.initial()
        if not torch.equal(parted.initial(), theta):
            raise Broken("a parted task starts elsewhere than the whole one")
        inner, outer = (each.losses_and_gradient(theta, STEPS[0])[1] for each in (parted, parted.outer))
        if torch.equal(inner, outer):
            raise Broken("the outer gradient is the inner one: both are of the same data")


def _pictures(subject: Subject) -> None:
    promised = subject.spec.pictured
    for tasks in subject.drawn():
        theta = tasks.initial()
        before, images = theta.clone(), tasks.pictures(theta)
        if (images is not None) != promised:
            raise Broken(f"pictured is {promised}, and pictures() gives {'none' if images is None else 'pictures'}")
        for name, each in ({} if images is None else {"pictures": images} | dict(tasks.given_pictures())).items():
            if each.dtype != torch.uint8 or each.dim() != 4 or (each.shape[0], each.shape[3]) != (tasks.tasks, 3):
                raise Broken(
                    f"{name} are {each.dtype} of the shape {tuple(each.shape)}; they should be uint8 of the shape "
                    f"({tasks.tasks}, height, width, 3)"
                )
        if not torch.equal(theta, before):
            raise Broken("pictures() moves the parameters")


def _product_of(tasks: TaskBatch, step: int) -> None:
    theta = _somewhere(tasks)
    u, v = (_noise(name, theta) for name in ("u", "v"))
    products = [tasks.hessian_vector(theta, step, each) for each in (u, v)]
    _, gradient = tasks.losses_and_gradient(theta, step)
    again = tasks.hessian_vector(theta, step, v, gradient=gradient)
    if products[1].shape != theta.shape or products[1].requires_grad:
        raise Broken("hessian_vector gives back a constant of the shape (coordinates,), like the gradient")
    _same(f"the products of step {step} with and without the gradient", again, products[1], COMPANY_TOLERANCE)
    h = 1e-6 * float(theta.abs().mean() + 1.0)
    ahead, behind = (tasks.losses_and_gradient(theta + sign * h * v, step)[1] for sign in (1, -1))
    slopes = (ahead - behind) / (2 * h)
    errors = [
        float((found - truth).norm() / (truth.norm() + 1e-12))
        for found, truth in zip(_by_task(tasks, products[1]), _by_task(tasks, slopes), strict=True)
    ]
    if not sorted(errors)[len(errors) // 2] < PRODUCT_TOLERANCE:  # one task may stand at a kink
        raise Broken(
            f"at step {step} hessian_vector and the gradient's finite differences differ by "
            f"{sorted(errors)[len(errors) // 2]:.1e} of their size"
        )
    # A difference of gradients is symmetric only as far as it is exact, and along a random u terms cancel.
    sides = [(u * products[1]).view(tasks.tasks, -1), (v * products[0]).view(tasks.tasks, -1)]
    apart = (sides[0].sum(dim=1) - sides[1].sum(dim=1)).abs() / (sides[0].abs().sum(dim=1) + 1e-12)
    if not float(apart.median()) < PRODUCT_TOLERANCE:
        raise Broken(f"at step {step} <u, Hv> and <v, Hu> differ by {float(apart.median()):.1e} of their size")
    alone = torch.zeros_like(v)
    alone[: tasks.coordinates_per_task] = v[: tasks.coordinates_per_task]
    one = tasks.hessian_vector(theta, step, alone, gradient=gradient)
    _same("a task's product alone and in company", one[: tasks.coordinates_per_task], _by_task(tasks, again)[0], 1e-9)
    if bool(_by_task(tasks, one)[1:].any()):
        raise Broken(f"at step {step} a direction of the first task alone gives the others a product")


def _by_task(tasks: TaskBatch, along: Tensor) -> Tensor:
    """(coordinates,) -> (tasks, coordinates of one)."""
    return along.view(tasks.tasks, -1)


def _company(subject: Subject) -> None:
    left = _prints(subject.drawn())
    for index in range(TASKS):
        [alone] = _prints(subject.drawn(tasks=1, first=index))
        same = [row for row in left if torch.allclose(row, alone, rtol=COMPANY_TOLERANCE, atol=0.0)]
        if not same:
            raise Broken(f"task {index} has another start, loss or gradient alone than it has among {TASKS} tasks")
        left = [row for row in left if row is not same[0]]


def _splits(subject: Subject) -> None:
    for splits, hidden in ((TRAINING_SPLITS, Split.TEST), ({Split.TEST}, Split.TRAIN)):
        family = opened(subject.spec, splits, subject.data_dir)
        try:
            family.sample(hidden, seed=1, trajectory=0, tasks=1)
        except SplitHeldOut:
            continue
        raise Broken(f"a family that is opened for {', '.join(sorted(splits))} gives tasks of the {hidden} split")
    seen = [tuple(row.tolist()) for split in Split for row in _prints(subject.drawn(split=split))]
    if len(set(seen)) < len(seen):
        raise Broken("tasks of two splits, or two tasks of one, are the same: draw each from its own seed")


def _seeds(subject: Subject) -> None:
    torch.manual_seed(1)
    first = subject.drawn()
    torch.manual_seed(2)
    again = subject.drawn()
    for one, other in zip(first, again, strict=True):
        for step in (40, *STEPS):  # what was asked before must not matter
            other.losses_and_gradient(other.initial(), step)
        truth = _answers(one)
        for name, value in _answers(other).items():
            if not torch.equal(value, truth[name]):
                raise Broken(f"{name} differs between two draws of the same seed: use models.tasks.randomness alone")
    seen = [tuple(row.tolist()) for seed in (1, 2) for row in _prints(subject.drawn(seed=seed))]
    if len(set(seen)) < len(seen):
        raise Broken("another seed gives a task that the first has as well")


def _kinds_of_numbers(subject: Subject) -> None:
    precise = [_answers(tasks) for tasks in subject.drawn()]
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)  # what names no dtype becomes visible
        try:
            found = [_answers(tasks) for tasks in subject.drawn(dtype=torch.float32, device=device)]
        finally:
            torch.set_default_dtype(default)
        for truth, answers in zip(precise, found, strict=True):
            for name, value in answers.items():
                if value.dtype != torch.float32 or value.device.type != device:
                    raise Broken(f"{name} of a float32 batch on {device} is {value.dtype} on {value.device.type}")
                _same(f"{name} in float32 and in float64", value.double().cpu(), truth[name], 1e-3)


def _graphs(subject: Subject) -> None:
    ours, other = _of_one_size(subject)
    twin = copy.deepcopy(ours)  # before it has computed anything that it may keep
    theta = ours.initial()
    for step in STEPS:
        counted = ours.losses_and_gradient(theta, torch.tensor(step))
        for found, truth in zip(counted, ours.losses_and_gradient(theta, step), strict=True):
            _same(f"step {step} as a number and as a tensor", found, truth, COMPANY_TOLERANCE)
    given = other.buffers()
    for name, mine in twin.buffers().items():
        mine.copy_(given[name])
    answers = _answers(twin)
    for name, value in _answers(other).items():
        if not torch.equal(answers[name], value):
            raise Broken(f"buffers() leaves out a tensor: with those of another batch, {name} is not the other's")


def _of_one_size(subject: Subject) -> tuple[TaskBatch, TaskBatch]:
    """Two batches of different tasks of which one may be copied into the other."""
    met: dict[tuple[object, ...], TaskBatch] = {}
    for first in range(MANY):
        [tasks] = subject.drawn(tasks=1, first=first)
        key = (type(tasks), tasks.namespace, tasks.coordinates_per_task)
        if key in met:
            return met[key], tasks
        met[key] = tasks
    raise Broken(f"no two of {MANY} tasks have the same class, namespace and size")


def _memory(subject: Subject) -> None:
    if (wrong := footprint.compared(subject.spec, subject.data_dir)) is not None:
        raise Broken(wrong)


CHECKS: Mapping[str, Callable[[Subject], None]] = {
    "size": _size,
    "gradient": _gradient,
    "hessian": _hessian,
    "parted": _parted,
    "pictures": _pictures,
    "company": _company,
    "splits": _splits,
    "seeds": _seeds,
    "dtype": _kinds_of_numbers,
    "graphs": _graphs,
    "memory": _memory,
}


def _noise(name: str, like: Tensor) -> Tensor:
    """Standard normal numbers, the same for the same name."""
    stream = torch.tensor([key("conformance", name)], dtype=torch.int64)
    return normals(stream, like.numel())[0].to(like.dtype)


def _somewhere(tasks: TaskBatch) -> Tensor:
    """A point beside the start, where a symmetry of the start hides nothing."""
    start = tasks.initial()
    return start + 0.1 * (start.abs().mean() + 0.1) * _noise("place", start)


def _answers(tasks: TaskBatch) -> dict[str, Tensor]:
    """All that a batch says, by name."""
    theta = tasks.initial()
    found = {"the start": theta}
    for step in STEPS:
        losses, gradient = tasks.losses_and_gradient(theta, step)
        found |= {f"the loss of step {step}": losses, f"the gradient of step {step}": gradient}
    return found


def _prints(batches: Collection[TaskBatch]) -> list[Tensor]:
    """Numbers by which each task is known: its start, and its losses and gradients at some place and several steps."""
    rows: list[Tensor] = []
    for tasks in batches:
        weights = _noise("print", torch.empty(tasks.coordinates_per_task, dtype=tasks.dtype))
        columns = [tasks.initial().view(tasks.tasks, -1) @ weights]
        for step in (0, 1, 2, 7):
            losses, gradient = tasks.losses_and_gradient(0.5 * weights.repeat(tasks.tasks), step)
            columns += [losses, gradient.view(tasks.tasks, -1) @ weights]
        rows += torch.stack(columns, dim=1)
    return rows


def _same(what: str, found: Tensor, truth: Tensor, tolerance: float) -> None:
    """Raises Broken where they differ by more than this share of their size."""
    scale = float(torch.maximum(found.abs().max(), truth.abs().max())) or 1.0
    error = float((found - truth).abs().max()) / scale
    if not error <= tolerance:
        raise Broken(f"{what} differ by {error:.1e} of their size")
