"""What hyper and mlp rules cost: a step of `LearnedOptimizer` beside Adam, and a meta-step with exact gradients.

    ./run bench hyper_step [--data FOLDER] [--rounds N]

One thread, processor time, the best of several rounds in which all of them take turns. Prints tables in Markdown, and
writes nothing. --data is the folder of a service that has MNIST.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.learned_vs_tuned.report import machine
from gradsmith import LearnedOptimizer
from gradsmith.rules import Rule, build, weights
from models.backends import Backend, TorchBackend, backend_for
from models.families import FAMILIES
from models.meta_loss import MetaLoss
from models.spec import Split
from models.tasks.base import TaskBatch
from models.tasks.catalogue import open_for_training
from models.unroll import begin, unroll_window

SHAPES = {
    "1,000 x 1,000": ((1000, 1000),),
    "digits-mlp, 4 tensors": ((64, 20), (20,), (20, 10), (10,)),
}
KINDS = ("hyper", "mlp")
STEPS = 20
Works = dict[str, Callable[[], object]]


def best_milliseconds(works: Works, rounds: int) -> dict[str, float]:
    """The least processor time of each, in milliseconds."""
    found: dict[str, float] = {}
    for _ in range(rounds):
        for name, work in works.items():
            began = time.process_time()
            work()
            spent = 1e3 * (time.process_time() - began)
            found[name] = min(found.get(name, spent), spent)
    return found


def fresh(kind: str) -> Rule:
    rule = build({"kind": kind})
    rule.initialise(torch.Generator().manual_seed(0))
    return rule


def steps(shapes: tuple[tuple[int, ...], ...]) -> Works:
    """A step of each optimizer on parameters of these shapes."""

    def parameters() -> list[torch.nn.Parameter]:
        made = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
        for parameter in made:
            parameter.grad = torch.randn_like(parameter)
        return made

    optimizers: dict[str, torch.optim.Optimizer] = {
        kind: LearnedOptimizer(parameters(), weights.dumps(fresh(kind)), threads=1) for kind in KINDS
    }
    optimizers["Adam, foreach"] = torch.optim.Adam(parameters(), foreach=True)
    optimizers["Adam, fused"] = torch.optim.Adam(parameters(), fused=True)
    return {name: optimizer.step for name, optimizer in optimizers.items()}


def meta_steps(family: str, count: int, data: Path | None) -> Works:
    """A window of each rule and backend, and what its tasks take of it: gradients, and products with Hessians."""
    spec = FAMILIES[family].tasks
    [tasks] = open_for_training(spec, data).sample(Split.TRAIN, seed=0, trajectory=0, tasks=count)
    theta = tasks.initial()
    v = torch.randn(theta.shape, generator=torch.Generator().manual_seed(0))
    works: Works = {}
    for kind in KINDS:
        rule, cpu = fresh(kind), torch.device("cpu")
        for backend in (
            backend_for(rule, torch.float32, cpu, parts=spec.parts(), mode="exact"),
            TorchBackend(rule, parts=spec.parts()),
        ):
            for mode in (MetaLoss("exact"), MetaLoss("detached")):
                works[f"{kind}, {backend.name}, {mode.mode}"] = window(tasks, backend, mode)
    works["gradients of the tasks"] = lambda: [tasks.losses_and_gradient(theta, step) for step in range(STEPS)]
    works["products with their Hessians"] = lambda: [tasks.hessian_vector(theta, step, v) for step in range(STEPS)]
    return works


def window(tasks: TaskBatch, backend: Backend, loss: MetaLoss) -> Callable[[], object]:
    """The first window of a trajectory."""
    position = begin(tasks, backend)
    return lambda: unroll_window(tasks, position, STEPS, backend, loss)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What hyper and mlp rules cost.")
    parser.add_argument("--data", type=Path, help="data folder of a service; without it, MNIST is left out")
    parser.add_argument("--rounds", type=int, default=20, help="of which the best counts (default 20)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(machine())
    for name, shapes in SHAPES.items():
        coordinates = sum(torch.Size(shape).numel() for shape in shapes)
        print(f"\n### A step on {name}\n\n| optimizer | ms | ns a coordinate | of Adam, foreach |\n|---|---|---|---|")
        found = best_milliseconds(steps(shapes), options.rounds)
        for optimizer, spent in found.items():
            share = spent / found["Adam, foreach"]
            print(f"| {optimizer} | {spent:.3f} | {1e6 * spent / coordinates:.1f} | {share:.2f} |")
    for family, count in (("digits-mlp", 2), ("mnist-mlp", 1), ("mnist-mlp", 2)):
        if family == "mnist-mlp" and options.data is None:
            continue
        print(f"\n### A meta-step on {family}, tasks: {count}, steps: {STEPS}\n\n| what | ms |\n|---|---|")
        for name, spent in best_milliseconds(meta_steps(family, count, options.data), options.rounds).items():
            print(f"| {name} | {spent:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
