"""What a hyper rule costs: a step of `LearnedOptimizer` beside torch's Adam, and a meta-step with exact gradients; and
what the other rules save where their weight gradients look at some coordinates.

    ./run bench hyper_step

One thread, processor time, the best of several rounds in which all of them take turns. Prints a table, writes nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.core.problem import Problem
from benchmarks.core.tasks import batch_of, spec_of
from benchmarks.learned_vs_tuned.report import machine
from gradsmith import LearnedOptimizer
from gradsmith.rules import build, weights
from models.backends import TorchBackend, backend_for, draw, sampled
from models.families import FAMILIES
from models.meta_loss import MetaLoss
from models.spec import Split
from models.tasks.catalogue import open_for_training
from models.unroll import begin, unroll_window

SHAPES = {
    "1,000 x 1,000": ((1000, 1000),),
    "digits-mlp, 4 tensors": ((64, 20), (20,), (20, 10), (10,)),
}
TASKS, STEPS, ROUNDS = 2, 20, 30


def best_milliseconds(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least processor time of each, in milliseconds."""
    found: dict[str, float] = {}
    for _ in range(rounds):
        for name, work in works.items():
            began = time.process_time()
            work()
            spent = 1e3 * (time.process_time() - began)
            found[name] = min(found.get(name, spent), spent)
    return found


def steps(shapes: tuple[tuple[int, ...], ...]) -> dict[str, float]:
    """A step of each optimizer on parameters of these shapes."""
    rule = build({"kind": "hyper"})
    rule.initialise(torch.Generator().manual_seed(0))

    def parameters() -> list[torch.nn.Parameter]:
        made = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
        for parameter in made:
            parameter.grad = torch.randn_like(parameter)
        return made

    optimizers = {
        "hyper": LearnedOptimizer(parameters(), weights.dumps(rule), threads=1),
        "Adam, foreach": torch.optim.Adam(parameters(), foreach=True),
        "Adam, fused": torch.optim.Adam(parameters(), fused=True),
    }
    return best_milliseconds({name: optimizer.step for name, optimizer in optimizers.items()}, ROUNDS)


def meta_steps() -> dict[str, float]:
    """A window of 20 steps of two digits tasks, and the gradients that it needs in any case."""
    family = FAMILIES["digits-mlp"].tasks
    [tasks] = open_for_training(family).sample(Split.TRAIN, seed=0, trajectory=0, tasks=TASKS)
    rule = build({"kind": "hyper"})
    rule.initialise(torch.Generator().manual_seed(0))
    cpu = torch.device("cpu")
    fastest = backend_for(rule, torch.float32, cpu, parts=family.parts(), mode="exact")
    works: dict[str, Callable[[], object]] = {}
    for backend in (fastest, TorchBackend(rule, parts=family.parts())):
        for mode in ("exact", "detached"):
            position, loss = begin(tasks, backend), MetaLoss(mode)

            def window(backend=backend, position=position, loss=loss) -> object:  # type: ignore[no-untyped-def]
                return unroll_window(tasks, position, STEPS, backend, loss)

            works[f"{mode}, {backend.name}"] = window
    theta = tasks.initial()
    works[f"{STEPS} gradients alone"] = lambda: [tasks.losses_and_gradient(theta, step) for step in range(STEPS)]
    return best_milliseconds(works, 8)


def sampled_steps() -> dict[str, float]:
    """A window of 20 steps on the MNIST network (synthetic images), with all coordinates and with some of each tensor.
    Names say how far off the sampled gradient is, in the root mean square of some draws over its norm."""
    problem = Problem("mlp")
    tasks = batch_of(problem)
    works: dict[str, Callable[[], object]] = {}
    for kind, mode in (("lstm", "detached"), ("mlp", "exact")):
        rule = build({"kind": kind})
        rule.initialise(torch.Generator().manual_seed(0))
        wanted = "torch" if kind == "mlp" else "auto"
        backend = backend_for(
            *(rule, torch.float32, torch.device("cpu")), wanted=wanted, parts=spec_of(problem).parts(), mode=mode
        )
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
    tables = {f"step, {name}": steps(shapes) for name, shapes in SHAPES.items()}
    tables[f"meta-step, MNIST network, 1 task, {STEPS} steps"] = sampled_steps()
    tables[f"meta-step, digits-mlp, {TASKS} tasks, {STEPS} steps"] = meta_steps()
    for title, found in tables.items():
        print(f"\n{title}")
        for name, milliseconds in found.items():
            print(f"  {name:<44} {milliseconds:8.3f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
