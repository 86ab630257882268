"""What an anatomy says of updates is what torch's own optimizers and `LearnedOptimizer` do."""

from __future__ import annotations

import json

import pytest
import torch

import gradsmith
from gradsmith.rules import RuleSet, build
from models.backends import backend_for
from models.baselines import TUNED
from models.evaluation.anatomy import GRADIENTS, STEPS, anatomy, beside, chosen_steps
from models.families.mlp import MLPSpec
from models.families.quadratic import QuadraticSpec
from models.measured import plain
from models.rollout import Learned
from models.spec import Split
from models.tasks.catalogue import open_for_testing
from models.tuning import Tuned

QUADRATIC, NETWORK = QuadraticSpec(), MLPSpec(dataset="digits", hidden=(4,))
RATE = 0.02


def rule_of(kind, **settings):
    made = build({"kind": kind, **settings})
    made.initialise(torch.Generator().manual_seed(0))
    return made


def task_of(spec, dtype=torch.float32):
    [task] = open_for_testing(spec).sample(Split.TEST, seed=0, trajectory=0, tasks=1, dtype=dtype)
    return task


def seen(rule, spec, steps=12, seed=0, others=None, dtype=torch.float32):
    backend = backend_for(rule.to(dtype), dtype, torch.device("cpu"), parts=spec.parts())
    if others is None:
        others = {"adam": Tuned(TUNED["adam"], RATE, "constant", steps)}
    work = anatomy(Learned(backend, rests=True, horizon=steps), others, task_of(spec, dtype), spec.parts(), steps, seed)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def place_of(spec, coordinate):
    """Its place on the task's axis."""
    start = 0
    for part in spec.parts():
        if part.name == coordinate["part"]:
            table = torch.arange(part.size).view(part.shape)
            return start + int(table[tuple(coordinate["index"])])
        start += part.size
    raise AssertionError(coordinate)


class Run:
    """An optimizer of torch's kind on the task: each part is a parameter."""

    def __init__(self, spec, make, dtype=torch.float32):
        self.task, self.spec = task_of(spec, dtype), spec
        theta = self.task.initial()
        self.parameters = [torch.nn.Parameter(each.clone()) for each in theta.split([p.size for p in spec.parts()])]
        for parameter, part in zip(self.parameters, spec.parts(), strict=True):
            parameter.data = parameter.data.view(part.shape)
        self.optimizer = make([(p.name, q) for p, q in zip(spec.parts(), self.parameters, strict=True)])
        self.count = 0

    @property
    def theta(self):
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters])

    def gradient(self):
        return self.task.losses_and_gradient(self.theta, self.count)[1]

    def step(self, gradient):
        before = self.theta
        for parameter, own in zip(self.parameters, gradient.split([p.numel() for p in self.parameters]), strict=True):
            parameter.grad = own.view(parameter.shape).clone()
        self.optimizer.step()
        self.count += 1
        return self.theta - before


def adam(named):
    return torch.optim.Adam([parameter for _, parameter in named], lr=RATE)


def test_the_update_histories_of_adam_are_those_of_torch():
    found = seen(rule_of("lstm"), NETWORK, dtype=torch.float64)
    run = Run(NETWORK, adam, torch.float64)
    places = [place_of(NETWORK, each) for each in found["coordinates"]]
    for step in range(12):
        moved = run.step(run.gradient())[places].tolist()
        assert [row[step] for row in found["updates"]["adam"]] == pytest.approx(moved, rel=1e-4, abs=1e-12)


def test_responses_are_to_the_history_of_the_learned_run():
    """The learned one is plain SGD, so its response is a straight line. Adam, by torch, meets SGD's gradients."""
    sgd = rule_of("tuned", optimizer="sgd", learning_rate=0.01)
    found = seen(sgd, NETWORK, dtype=torch.float64)
    assert [each["after"] for each in found["responses"]] == [after for after in chosen_steps(12) for _ in range(2)]
    for response in found["responses"]:
        place = place_of(NETWORK, found["coordinates"][response["coordinate"]])
        follower = Run(NETWORK, lambda named: torch.optim.SGD([q for _, q in named], lr=0.01), torch.float64)
        history = []
        for _ in range(response["after"] + 1):
            history.append(follower.gradient())
            follower.step(history[-1])
        scale = torch.stack(history)[:, place].square().mean().sqrt()
        assert response["had"] == pytest.approx(float(history[-1][place]), rel=1e-4)
        assert response["gradient"][-1] == pytest.approx(3 * float(scale), rel=1e-4)
        assert len(response["gradient"]) == GRADIENTS
        assert response["update"]["learned"] == pytest.approx([-0.01 * g for g in response["gradient"]], rel=1e-4)
        for number in (0, 20):
            watcher = Run(NETWORK, adam, torch.float64)
            for gradient in history[:-1]:
                watcher.step(gradient)
            given = history[-1].clone()
            given[place] = response["gradient"][number]
            expected = float(watcher.step(given)[place])
            assert response["update"]["adam"][number] == pytest.approx(expected, rel=2e-4, abs=1e-9)


RULES = {kind: {} for kind in ("lstm", "mlp", "hyper", "schedule", "tuned", "several")} | {
    "averaging": {"kind": "lstm", "averaging": 4},
    "ntm_bfgs": {"memory_size": 10},
}


@pytest.mark.parametrize("kind", RULES)
def test_it_is_what_users_run(kind):
    both = {"weight": rule_of("hyper"), "*": rule_of("lstm")}
    rule = RuleSet(both) if kind == "several" else rule_of(**{"kind": kind} | RULES[kind])
    spec = QUADRATIC if kind == "ntm_bfgs" else NETWORK
    found = seen(rule, spec, steps=6)

    def learned(named):
        return gradsmith.LearnedOptimizer(named, rule, steps=6)

    places = [place_of(spec, each) for each in found["coordinates"]]
    run = Run(spec, learned)
    for step in range(6):
        moved = run.step(run.gradient())[places].tolist()
        assert [row[step] for row in found["updates"]["learned"]] == pytest.approx(moved, rel=2e-3, abs=2e-7)
    response = found["responses"][-1]
    probe, place = Run(spec, learned), places[response["coordinate"]]
    for _ in range(response["after"]):
        probe.step(probe.gradient())
    given = probe.gradient().clone()
    given[place] = response["gradient"][3]
    expected = float(probe.step(given)[place])
    assert response["update"]["learned"][3] == pytest.approx(expected, rel=2e-3, abs=2e-7)


def test_the_seed_decides_which_coordinates_and_every_tensor_is_looked_at():
    first, same, other = (seen(rule_of("lstm"), NETWORK, steps=2, seed=seed) for seed in (1, 1, 2))
    assert first == same
    assert first["coordinates"] != other["coordinates"]
    assert {each["part"] for each in first["coordinates"]} == {part.name for part in NETWORK.parts()}
    assert len(first["coordinates"]) == len({str(each) for each in first["coordinates"]}) == 6
    assert all(each["had"] != 0 for each in first["responses"]), "pixels that are never lit have no gradient"


def test_what_diverges_is_told_as_nothing_and_one_step_is_enough():
    wild = rule_of("tuned", optimizer="sgd", learning_rate=1e6)
    found = plain(seen(wild, QUADRATIC, steps=40))
    json.dumps(found, allow_nan=False)
    assert found["updates"]["learned"][0][-1] is None
    assert found["responses"][-1]["had"] is None
    assert seen(wild, QUADRATIC, steps=1)["steps"] == 1


def test_only_the_first_steps_of_a_long_run_are_looked_at():
    found = seen(rule_of("tuned", optimizer="sgd", learning_rate=1e-3), QUADRATIC, steps=STEPS + 1)
    assert found["steps"] == STEPS == len(found["updates"]["learned"][0])


def test_baselines_that_were_not_tuned_stand_at_the_learning_rate_of_torch():
    usual = beside({}, 10)
    assert {name: each.learning_rate for name, each in usual.items()} == {
        name: getattr(torch.optim, TUNED[name].torch)([torch.nn.Parameter(torch.zeros(1))]).defaults["lr"]
        for name in ("adam", "rmsprop")
    }
