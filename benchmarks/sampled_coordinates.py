"""What `recipe.sampled_coordinates` saves of a meta-step, and how far off it makes the meta-gradient.

    ./run bench sampled_coordinates

One thread, processor time, the best of several rounds in which all of them take turns. Prints, writes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.core.problem import Problem
from benchmarks.core.tasks import batch_of, spec_of
from benchmarks.hyper_step import best_milliseconds
from benchmarks.learned_vs_tuned.report import machine
from gradsmith.rules import build
from models.backends import backend_for, draw, sampled
from models.meta_loss import MetaLoss
from models.unroll import begin, unroll_window

STEPS = 20


def sampled_steps() -> dict[str, float]:
    """A window of 20 steps on the MNIST network (synthetic images), with all coordinates and with some of each tensor.
    Names say how far off the sampled gradient is, in the root mean square of some draws over its norm."""
    problem = Problem("mlp")
    tasks = batch_of(problem)
    works: dict[str, Callable[[], object]] = {}
    for kind, mode in (("lstm", "detached"), ("mlp", "exact")):
        rule = build({"kind": kind})
        rule.initialise(torch.Generator().manual_seed(0))
        backend = backend_for(rule, torch.float32, torch.device("cpu"), parts=spec_of(problem).parts(), mode=mode)
        position, loss = begin(tasks, backend), MetaLoss(mode)

        def gradient(backend=backend, position=position, loss=loss) -> torch.Tensor:  # type: ignore[no-untyped-def]
            return unroll_window(tasks, position, STEPS, backend, loss)[0].gradient

        whole = gradient()
        works[f"{kind}, {mode}, {backend.name}, all"] = gradient
        for most in (2000, 500):
            draws = [draw(problem.tensors, 1, most, seed, like=position.theta) for seed in range(4)]
            some = [partial(gradient, backend=sampled(backend, chosen)) for chosen in draws if chosen is not None]
            errors = [(one() - whole).square().sum() / whole.square().sum() for one in some]
            off = float(torch.stack(errors).mean().sqrt())
            works[f"{kind}, {most} of each tensor, off by {100 * off:.0f} %"] = some[0]
    return best_milliseconds(works, 6)


def main() -> int:
    torch.set_num_threads(1)
    print(machine())
    print(f"\nmeta-step, MNIST network, 1 task, {STEPS} steps")
    for name, milliseconds in sampled_steps().items():
        print(f"  {name:<44} {milliseconds:8.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
