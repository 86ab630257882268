"""Muon, SOAP and L-BFGS as rules: `LearnedOptimizer` on the tensors of a network is the baseline on its flat axis."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradsmith import LearnedOptimizer
from gradsmith.rules import RuleSet, TunedRule, build
from gradsmith.rules.orthogonal import orthogonalized
from gradsmith.rules.shapes import MOST_ROWS, matrix, side_numbers, sides
from gradsmith.rules.weights import dumps, loads
from models.backends import backend_for
from models.baselines import TUNED
from models.families.conv import ConvSpec
from models.families.mlp import MLPSpec
from models.families.quadratic import QuadraticSpec
from models.rollout import Learned, Sample, curves, run
from models.spec import Split
from models.task_spec import TaskSpec
from models.tasks.base import TaskBatch
from models.tasks.catalogue import open_for_tuning
from models.tuning import Tuned

torch.set_num_threads(1)

STEPS = 24  # two renewals of SOAP's bases, and more pairs than L-BFGS keeps
CONV = ConvSpec(channels=(4, 6), hidden=(5,), batch_size=32, groups=1)
MLP = MLPSpec(hidden=(6, 6), batch_size=32)  # two matrices are alike
RATES = {"muon": 0.05, "soap": 0.02, "lbfgs": 0.5}


def one_task(spec: TaskSpec, dtype: torch.dtype = torch.float64) -> TaskBatch:
    [tasks] = open_for_tuning(spec).sample(Split.VALIDATION, seed=0, trajectory=0, tasks=1, dtype=dtype)
    return tasks


def config(name: str, schedule: str = "linear") -> dict[str, Any]:
    return {"kind": "tuned", "optimizer": name, "learning_rate": RATES[name], "schedule": schedule}


def of_baseline(name: str, tasks: TaskBatch) -> list[Tensor]:
    theta = tasks.initial()
    stepper = Tuned(TUNED[name], RATES[name], "linear", STEPS).start(tasks)
    points = []
    for step in range(STEPS):
        stepper.step(theta, tasks.losses_and_gradient(theta, step)[1])
        points.append(theta.clone())
    return points


class Network:
    """The parameters of a task as a network has them, and its gradients on each step's minibatch."""

    def __init__(self, tasks: TaskBatch) -> None:
        self.tasks = tasks
        pieces = tasks.initial().split([part.size for part in tasks.parts])
        self.parameters = [
            nn.Parameter(piece.view(part.shape).clone()) for piece, part in zip(pieces, tasks.parts, strict=True)
        ]

    def groups(self) -> list[dict[str, Any]]:
        """Three of them, and neighbours in different ones."""
        return [{"params": self.parameters[first::3]} for first in range(min(3, len(self.parameters)))]

    def theta(self) -> Tensor:
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])

    def step(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        _, gradient = self.tasks.losses_and_gradient(self.theta(), step)
        for parameter, piece in zip(
            self.parameters, gradient.split([each.numel() for each in self.parameters]), strict=True
        ):
            parameter.grad = piece.view(parameter.shape).clone()
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        *((name, spec) for name in ("muon", "soap") for spec in (CONV, MLP)),
        *(("lbfgs", spec) for spec in (CONV, QuadraticSpec())),
    ],
)
def test_the_rule_is_the_baseline_on_real_networks_in_several_groups(name: str, spec: TaskSpec) -> None:
    """With the file's round trip, a schedule, and a new optimizer in the middle that goes on from a saved state."""
    network, rule = Network(one_task(spec)), loads(dumps(build(config(name))))
    optimizer = LearnedOptimizer(network.groups(), rule, steps=STEPS)
    for step, expected in enumerate(of_baseline(name, one_task(spec))):
        if step == STEPS // 2:
            saved = io.BytesIO()
            torch.save(optimizer.state_dict(), saved)
            saved.seek(0)
            twin, other = copy.deepcopy(network), rule
            optimizer.step()  # what is saved is a copy
            network, optimizer = twin, LearnedOptimizer(twin.groups(), other, steps=STEPS)
            optimizer.load_state_dict(torch.load(saved))
        network.step(optimizer, step)
        torch.testing.assert_close(network.theta(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", RATES)
def test_it_goes_on_bit_for_bit_in_float32(name: str) -> None:
    ours = Network(one_task(CONV, torch.float32))
    optimizer = LearnedOptimizer(ours.groups(), build(config(name)), steps=STEPS)
    for step in range(12):
        ours.step(optimizer, step)
    theirs = copy.deepcopy(ours)
    other = LearnedOptimizer(theirs.groups(), build(config(name)), steps=1000)
    other.load_state_dict(optimizer.state_dict())
    for step in range(12, 15):
        ours.step(optimizer, step)
        theirs.step(other, step)
    assert torch.equal(ours.theta(), theirs.theta())


@pytest.mark.parametrize("name", ["muon", "soap"])
def test_an_evaluation_of_the_rule_is_that_of_the_baseline(name: str) -> None:
    """Several tasks side by side, by the backend that evaluations use."""
    family, sample = open_for_tuning(CONV), Sample(Split.VALIDATION, 0, 0, 3)
    rule = build(config(name))
    backend = backend_for(rule, torch.float64, torch.device("cpu"), parts=CONV.parts())
    found = curves(run(Learned(backend, rests=True, horizon=15), family, sample, 15, dtype=torch.float64))
    tuned = Tuned(TUNED[name], RATES[name], "linear", 15)
    expected = curves(run(tuned, family, sample, 15, dtype=torch.float64))
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-8, atol=0)


def library(name: str) -> Callable[[list[nn.Parameter]], list[torch.optim.Optimizer]]:
    """Other people's optimizers, for the parameters of a network of dense layers."""

    def make(parameters: list[nn.Parameter]) -> list[torch.optim.Optimizer]:
        rate, biases = RATES[name], [each for each in parameters if each.dim() == 1]
        if name == "muon":
            weights = [each for each in parameters if each.dim() == 2]
            settings = {"momentum": 0.95, "weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw"}
            return [torch.optim.Muon(weights, lr=rate, **settings), torch.optim.AdamW(biases, lr=rate)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pytorch_optimizer import SOAP
        return [SOAP(parameters, lr=rate)]

    return make


@pytest.mark.parametrize(("name", "tolerance"), [("muon", 0.03), ("soap", 1e-3)])
def test_it_is_what_other_peoples_packages_do_on_a_torch_model(name: str, tolerance: float) -> None:
    """torch's Muon rounds to bfloat16 and pytorch_optimizer's QR to float32; so each is near, and not equal."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 5)).double()
    other = copy.deepcopy(model)
    start = torch.cat([each.detach().reshape(-1) for each in model.parameters()])
    ours = [LearnedOptimizer(model.named_parameters(), build(config(name, "constant")))]
    theirs = library(name)(list(other.parameters()))
    inputs, wanted = torch.randn(50, 7).double(), torch.randn(50, 5).double()
    for _ in range(12):
        for network, optimizers in ((model, ours), (other, theirs)):
            network.zero_grad()
            (network(inputs) - wanted).square().mean().backward()
            for optimizer in optimizers:
                optimizer.step()
    found, expected = (torch.cat([each.detach().reshape(-1) for each in net.parameters()]) for net in (model, other))
    assert (found - expected).norm() < tolerance * (expected - start).norm()


def test_a_parameter_that_comes_later_and_one_that_rests_have_memories_of_their_own() -> None:
    """SOAP's memory has another number of rows for every shape; those alike that began at different times are computed
    apart."""
    rule = build(config("soap", "constant"))

    def parameter(seed: int) -> nn.Parameter:
        return nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))

    def gradient(seed: int) -> Tensor:
        return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    first, second = parameter(0), parameter(1)
    together = LearnedOptimizer([first], rule)
    alone = {number: [parameter(number)] for number in (0, 1)}
    apart = {number: LearnedOptimizer(own, rule) for number, own in alone.items()}
    for step in range(14):
        if step == 3:
            together.add_param_group({"params": [second]})
        first.grad = None if step == 6 else gradient(step)
        second.grad = gradient(100 + step) if step >= 3 else None
        together.step()
        for number, each in enumerate((first, second)):
            alone[number][0].grad = each.grad
            apart[number].step()
    torch.testing.assert_close(first, alone[0][0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(second, alone[1][0], rtol=1e-10, atol=1e-12)


def test_several_rules_and_memory_in_half_precision() -> None:
    network = Network(one_task(CONV, torch.float32))
    names = [(part.name, each) for part, each in zip(network.tasks.parts, network.parameters, strict=True)]
    rules = RuleSet({"weight": build(config("soap", "constant")), "*": build(config("muon", "constant"))})
    optimizer = LearnedOptimizer(names, rules, state_dtype=torch.bfloat16)
    first = float(network.tasks.losses(network.theta(), 0))
    for step in range(STEPS):
        network.step(optimizer, step)
    assert float(network.tasks.losses(network.theta(), 0)) < 0.8 * first
    memory = optimizer.state[network.parameters[0]]["memory"]
    assert [each.dtype for each in memory] == [torch.bfloat16] * 2 + [torch.float32] * 3
    basis = memory[3][:16].view(4, 4)  # of the rows of a (4, 1, 3, 3)
    torch.testing.assert_close(basis.T @ basis, torch.eye(4), rtol=0, atol=1e-5)


def test_what_a_shape_says() -> None:
    assert [matrix(shape) for shape in ((), (5,), (5, 1), (1, 5), (2, 3), (4, 2, 3, 3), (3, 0))] == [
        *(None, None, None, None),
        *((2, 3), (4, 18), None),
    ]
    assert sides((MOST_ROWS + 1, 3)) == (3,)
    assert side_numbers((4, 2, 3)) == 16 + 36
    rule = build(config("soap"))
    assert isinstance(rule, TunedRule)
    memory = rule.memory_for([(4, 3), (5,)], tasks=2)
    assert [tuple(each.shape) for each in memory] == [(34, 1), (34, 1), (50, 1), (50, 1), (4, 2)]
    assert rule.settings.costs_for([(4, 3), (5,)]).state == 3 + 2 * 2  # numbers of a coordinate, rounded up


def test_matrices_of_zeros_stay_zero() -> None:
    """A layer that is never used has no gradient, and its direction is none, not NaN."""
    assert not orthogonalized(torch.zeros(2, 3, 4)).any()
    for name in ("muon", "soap", "lbfgs"):
        parameter = nn.Parameter(torch.zeros(3, 4))
        optimizer = LearnedOptimizer([parameter], build(config(name, "constant")))
        for _ in range(3):
            parameter.grad = torch.zeros(3, 4)
            optimizer.step()
        assert not parameter.any()
