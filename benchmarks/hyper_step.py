"""What hyper and mlp rules cost: a step of `LearnedOptimizer` beside Adam, and a meta-step with exact gradients.

    ./run bench hyper_step [--data FOLDER] [--rounds N] [--dry]

One thread, processor time, the best of several rounds in which all of them take turns. --data is the folder of a
service that has MNIST.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.core import report as core_report
from benchmarks.core.environment import ROOT
from benchmarks.learned_vs_tuned.report import machine
from gradsmith import LearnedOptimizer
from gradsmith.rules import Rule, build, weights
from models.backends import Backend, TorchBackend, backend_for, draw, sampled
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
RULES: dict[str, dict[str, str]] = {
    "hyper": {"kind": "hyper"},
    "hyper along Muon's direction": {"kind": "hyper", "direction": "muon"},
    "mlp": {"kind": "mlp"},
}
STEPS = 20
FEW, LONG_MILLISECONDS = 3, 100.0
SAMPLED = 500
"""Coordinates of each larger tensor, in rows whose weight gradient looks at some alone."""
META_STEPS = (("digits-mlp", 2, 25.0), ("mnist-mlp", 1, 60.0), ("mnist-mlp", 2, 60.0))
"""Families, how many tasks, and the milliseconds that were asked for."""

MLP_NANOSECONDS = 32
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
MARKS = ("<!-- hyper_step -->", "<!-- end of hyper_step -->")
Works = dict[str, Callable[[], object]]


def best_milliseconds(works: Works, rounds: int) -> dict[str, float]:
    """The least processor time of each, in milliseconds; what takes long goes through the first `FEW` rounds alone."""
    found: dict[str, float] = {}
    for number in range(rounds):
        for name, work in works.items():
            if number >= FEW and found[name] > LONG_MILLISECONDS:
                continue
            began = time.process_time()
            work()
            spent = 1e3 * (time.process_time() - began)
            found[name] = min(found.get(name, spent), spent)
    return found


def fresh(name: str) -> Rule:
    rule = build(RULES[name])
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
        name: LearnedOptimizer(parameters(), weights.dumps(fresh(name)), threads=1) for name in RULES
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
    for kind in RULES:
        rule, cpu = fresh(kind), torch.device("cpu")
        for backend in (
            backend_for(rule, torch.float32, cpu, parts=spec.parts(), mode="exact"),
            TorchBackend(rule, parts=spec.parts()),
        ):
            for mode in (MetaLoss("exact"), MetaLoss("detached")):
                works[f"{kind}, {backend.name}, {mode.mode}"] = window(tasks, backend, mode)
        chosen = draw([part.size for part in spec.parts()], count, SAMPLED, 0, like=theta)
        if kind == "mlp" and chosen is not None:
            few = sampled(backend_for(rule, torch.float32, cpu, parts=spec.parts(), mode="exact"), chosen)
            works[f"{kind}, {few.name}, exact, {SAMPLED} coordinates"] = window(tasks, few, MetaLoss("exact"))
    works["gradients of the tasks"] = lambda: [tasks.losses_and_gradient(theta, step) for step in range(STEPS)]
    works["products with their Hessians"] = lambda: [tasks.hessian_vector(theta, step, v) for step in range(STEPS)]
    return works


def window(tasks: TaskBatch, backend: Backend, loss: MetaLoss) -> Callable[[], object]:
    """The first window of a trajectory."""
    position = begin(tasks, backend)
    return lambda: unroll_window(tasks, position, STEPS, backend, loss)


def step_table(name: str, rounds: int) -> list[str]:
    """How long a step takes on parameters of these shapes, in Markdown."""
    coordinates = sum(torch.Size(shape).numel() for shape in SHAPES[name])
    found = best_milliseconds(steps(SHAPES[name]), rounds)
    lines = [
        f"### A step on {name}",
        "",
        "| optimizer | ms | ns a coordinate | of Adam, foreach |",
        "|---|---|---|---|",
    ]
    for optimizer, spent in found.items():
        share = spent / found["Adam, foreach"]
        lines.append(f"| {optimizer} | {spent:.3f} | {1e6 * spent / coordinates:.1f} | {share:.2f} |")
    return [*lines, ""]


def meta_step_table(family: str, count: int, asked: float, data: Path | None, rounds: int) -> list[str]:
    """How long a meta-step takes, in Markdown, and whether exact ones take what was asked for at most."""
    found = best_milliseconds(meta_steps(family, count, data), rounds)
    lines = [f"### A meta-step on {family}, tasks: {count}, steps: {STEPS}", "", "| what | ms |", "|---|---|"]
    lines += [f"| {name} | {spent:.1f} |" for name, spent in found.items()]
    lines.append("")
    own = {name: spent for name, spent in found.items() if ", native" in name and ", exact" in name}
    for name, spent in (own or {name: spent for name, spent in found.items() if "torch, exact" in name}).items():
        reached = "reached" if spent <= asked else "NOT REACHED"
        lines.append(f"- {name}: at most {asked:.0f} ms asked for, {spent:.1f}: {reached}.")
    return [*lines, ""]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What hyper and mlp rules cost.")
    parser.add_argument("--data", type=Path, help="data folder of a service; without it, MNIST is left out")
    parser.add_argument("--rounds", type=int, default=20, help="of which the best counts (default 20)")
    parser.add_argument("--dry", action="store_true", help="print, and write nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    command = f"./run bench hyper_step --rounds {options.rounds}" + (" --data FOLDER" if options.data else "")
    lines = [
        "## What rules that look at tensors cost",
        "",
        f"`{command}`, {machine()}. Least processor time of {options.rounds} rounds in which all rows take turns. An "
        f"mlp rule was asked to take at most {MLP_NANOSECONDS} ns a coordinate with AVX-512. Where a rule runs through "
        "torch, its tasks still have their kernel.",
        "",
    ]
    for name in SHAPES:
        lines += step_table(name, options.rounds)
    for family, count, asked in META_STEPS:
        if family != "mnist-mlp" or options.data is not None:
            lines += meta_step_table(family, count, asked, options.data, options.rounds)
    print("\n".join(lines))
    if not options.dry:
        core_report.write(RESULTS, lines[:-1], MARKS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
