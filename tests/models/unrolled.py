"""The truth about meta-gradients: autograd through the whole unrolled graph, in float64."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from gradsmith.rules import Rule, Segments, build
from gradsmith.rules.configs import MLPConfig
from models.families.functions import FunctionSpec
from models.families.mlp import MLPSpec
from models.families.quadratic import QuadraticSpec
from models.spec import Split
from models.tasks.catalogue import open_for_training

FAMILIES = {
    "quadratic": QuadraticSpec(dimension=5),
    "mlp": MLPSpec(hidden=(4,), batch_size=12),
    "function": FunctionSpec(function="rastrigin", dimension=3),
}


def make_rule(**settings) -> Rule:
    rule = build({"kind": "lstm", **settings}).double()
    generator = torch.Generator().manual_seed(3)
    rule.initialise(generator)
    at_zero = {"hyper": "readout.weight", "mlp": "readout.weight", "ntm_bfgs": "left_weight", "schedule": "log_rate"}
    if rule.kind in at_zero:
        with torch.no_grad():
            weight = rule.get_parameter(at_zero[rule.kind])
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return rule


def make_tasks(family, tasks=4, dtype=torch.float64, first=0):
    family = open_for_training(FAMILIES[family])
    [drawn] = family.sample(Split.TRAIN, seed=0, trajectory=0, tasks=tasks, first=first, dtype=dtype)
    return drawn


def through_the_whole_graph(
    rule, tasks, steps, windows, *, exact=False, shapes=(), planned=None, counted=lambda losses: losses
):
    """Plain autograd: theta keeps its graph from step to step, state and theta are cut between windows, and the rule's
    input is detached where `exact` is not asked for. Returns each window's meta-gradient, and theta at the end.

    shapes: of the tensors of a task, for rules that look across coordinates
    planned: how many steps a rule is told that there will be
    counted: what the meta-loss makes of the losses at theta_1 .. theta_T of each window
    """
    theta = tasks.initial()
    shapes = tuple(shapes) or ((tasks.coordinates_per_task,),)
    segments = Segments(tuple(map(math.prod, shapes)), tasks.tasks, shapes=shapes)
    state = rule.plan(rule.initial_state(tasks.coordinates, tensors=segments.rows, dtype=torch.float64), planned)
    gradients = []
    for window in range(windows):
        theta = theta.detach().requires_grad_()
        state = tuple(memory.detach() for memory in state)
        total = torch.zeros((), dtype=torch.float64)
        for step in range(window * steps, (window + 1) * steps):
            loss = tasks.losses(theta, step).sum()
            (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
            seen = gradient if exact else gradient.detach()
            update, state = rule(seen, state, segments)
            theta = theta + update
            total = total + counted(tasks.losses(theta, step + 1)).mean()
        pieces = torch.autograd.grad(total, list(rule.parameters()), allow_unused=True, materialize_grads=True)
        gradients.append(torch.cat([piece.reshape(-1) for piece in pieces]))
    return gradients, theta.detach()


class Averaging(Rule):
    """A rule that looks across the coordinates of a task: it must be replayed whole, with its segments."""

    kind: ClassVar[str] = "averaging"
    coordinatewise = False
    settings = MLPConfig(hidden_size=1, layers=1)  # what it takes is not looked at closely

    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor([0.01, 0.02], dtype=torch.float64))

    def initial_state(self, coordinates, *, tensors=1, dtype=torch.float32, device="cpu"):  # noqa: ARG002
        return (torch.zeros(coordinates, 1, dtype=dtype, device=device),)

    def forward(self, gradient, state, segments=None):
        counts = torch.bincount(segments.tasks)
        mean = torch.zeros(len(counts), dtype=gradient.dtype).index_add(0, segments.tasks, gradient.tanh()) / counts
        memory = 0.9 * state[0][:, 0] + self.rate[1] * mean[segments.tasks]
        return -self.rate[0] * gradient.tanh() - memory, (memory[:, None],)

    def config(self):
        return {"kind": self.kind}

    def initialise(self, generator):  # noqa: ARG002
        self.rate.data.fill_(0.01)
