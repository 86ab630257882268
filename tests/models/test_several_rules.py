"""Several rules for one task: each moves its own parts, as it would alone, and learns from its own gradient."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from gradsmith.errors import UnknownRule
from gradsmith.rules import RuleSet, build, weights
from gradsmith.rules.assignment import best_match
from models.backends import CompositeBackend, backend_for
from models.errors import TaskSizeUnknown
from models.families.mlp import MLPSpec
from models.memory import memory_estimate_bytes
from models.meta_train import TrainingResult, meta_train
from models.rollout import Learned
from models.spec import Split
from models.tasks.catalogue import open_for_training
from models.training.rule import untrained
from models.unroll import begin, unroll_window

CPU = torch.device("cpu")
TASKS = MLPSpec(hidden=(3,), batch_size=8)
RULES = {
    "weight": {"kind": "lstm", "hidden_size": 7},
    "*bias": {"kind": "mlp"},
}  # whose kernels other tests compile, too


def make_set(dtype: torch.dtype = torch.float64) -> RuleSet:
    rules = RuleSet({pattern: build(config) for pattern, config in RULES.items()}).to(dtype)
    rules.initialise(torch.Generator().manual_seed(2))
    with torch.no_grad():
        for _, rule in rules.members():
            for parameter in rule.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    return rules


@pytest.mark.parametrize(
    ("patterns", "name", "roles", "found"),
    [
        (["*"], "layer0.weight", ["weight"], "*"),
        (["*", "weight"], "layer0.weight", ["weight"], "weight"),
        (["*", "weight", "layer0.*"], "layer0.weight", ["weight"], "layer0.*"),
        (["layer?.weight", "layer0.*"], "layer0.weight", ["weight"], "layer?.weight"),  # 12 plain characters against 7
        (["layer0.*", "layer0.weight"], "layer0.weight", ["weight"], "layer0.weight"),
        (["b.*", "a*b", "*b.c"], "ab.c", ["weight"], "*b.c"),
        (["bias", "vector"], None, ["bias", "vector"], "bias"),
        (["vector", "a*"], None, ["bias", "vector"], "vector"),
        (["weight"], "layer0.bias", ["bias"], None),
        (["a?c", "ab?"], "abc", ["bias"], "a?c"),  # by alphabet
    ],
)
def test_the_most_specific_pattern_wins(
    patterns: list[str], name: str | None, roles: list[str], found: str | None
) -> None:
    assert best_match(patterns, name, roles) == found
    assert best_match(patterns[::-1], name, roles) == found


def the_truth(rules: RuleSet, G: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    """theta after the window's steps and its gradient: part by part and task by task, by autograd."""
    parts, (steps, coordinates) = TASKS.parts(), G.shape
    theta, total = torch.zeros(coordinates, dtype=G.dtype), torch.zeros((), dtype=G.dtype)
    per_task = sum(part.size for part in parts)
    for task in range(coordinates // per_task):
        offset = task * per_task
        for part in parts:
            where = slice(offset, offset + part.size)
            rule = dict(rules.members())["weight" if part.name.endswith("weight") else "*bias"]
            state = rule.initial_state(part.size, dtype=G.dtype)
            for step in range(steps):
                update, state = rule(G[step, where], state)
                theta[where] += update.detach()
                total = total + update @ D[step, where]
            offset += part.size
    pieces = torch.autograd.grad(total, list(rules.parameters()))
    return theta, torch.cat([piece.reshape(-1) for piece in pieces])


@pytest.mark.parametrize("wanted", ["torch", "reference"])
def test_each_part_is_moved_by_its_own_rule(wanted: str) -> None:
    rules, generator = make_set(), torch.Generator().manual_seed(4)
    coordinates = 3 * TASKS.coordinates_per_task
    G, D = torch.randn(2, 4, coordinates, generator=generator, dtype=torch.float64)
    backend = backend_for(rules, torch.float64, CPU, wanted=wanted, parts=TASKS.parts())
    assert isinstance(backend, CompositeBackend)
    theta, memory = torch.zeros(coordinates, dtype=torch.float64), backend.initial_memory(coordinates)
    window = backend.for_window(coordinates, 4)
    snapshot, memory = memory, window.kept(memory)
    for gradient in G:
        memory = window.step(theta, gradient, memory)
    moved, gradient = the_truth(rules, G, D)
    torch.testing.assert_close(theta, moved, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(window.window_gradient(snapshot, G, D), gradient, rtol=1e-10, atol=1e-12)
    assert list(backend.parameters()) == list(rules.parameters())


def test_one_rule_for_all_parts_is_that_rule_alone() -> None:
    """Also on the compiled kernel, whose memory moves in place, where there is one."""
    rule = build({"kind": "lstm"})
    rule.initialise(torch.Generator().manual_seed(0))
    [tasks] = open_for_training(TASKS).sample(Split.TRAIN, seed=0, trajectory=0, tasks=2)
    found = []
    for one in (rule, RuleSet({"*": rule})):
        backend = backend_for(one, torch.float32, CPU, parts=TASKS.parts())
        position = begin(tasks, backend)
        for _ in range(2):
            window, position = unroll_window(tasks, position, 3, backend)
        found.append((window.gradient, position.theta))
    assert all(map(torch.equal, *found))


def test_a_part_without_a_rule_is_named() -> None:
    rules = RuleSet({"weight": build({"kind": "lstm"})})
    with pytest.raises(UnknownRule, match=r"no rule of this optimizer is for layer0\.bias \(bias\).* are weight\. "):
        backend_for(rules, torch.float32, CPU, parts=TASKS.parts())


def test_tasks_of_another_size_than_the_parts_are_refused() -> None:
    """Not moved by whichever rule their coordinates happen to fall to."""
    [tasks] = open_for_training(TASKS).sample(Split.TRAIN, seed=0, trajectory=0, tasks=2, dtype=torch.float64)
    backend = backend_for(make_set(), torch.float64, CPU, parts=TASKS.parts()[:2])
    for start in (begin, lambda batch, bound: Learned(bound).start(batch)):
        with pytest.raises(TaskSizeUnknown, match=r"has 235 coordinates, and the parts of its family have 195\."):
            start(tasks, backend)


def test_a_set_of_rules_is_one_weights_file() -> None:
    rules = make_set(torch.float32)
    data = weights.dumps(rules, {"family": "digits-mlp"})
    assert weights.dumps(rules, {"family": "digits-mlp"}) == data
    described = weights.metadata(data)["rule"]
    assert described == {"kind": "several", "rules": {p: build(config).config() for p, config in RULES.items()}}
    back = weights.loads(data)
    assert isinstance(back, RuleSet)
    assert back.patterns == ("*bias", "weight")
    assert set(back.state_dict()) >= {"rules.0.readout.bias", "rules.1.readout_bias"}
    assert all(map(torch.equal, back.parameters(), rules.parameters()))


def test_a_job_trains_each_rule_on_its_parts(training_spec) -> None:
    spec = training_spec("digits-mlp", meta_steps=4, tasks=2, validation_interval=4, validation_tasks=2, rules=RULES)
    assert {pattern: [part.name for part in parts] for pattern, (_, parts) in spec.assigned().items()} == {
        "weight": ["layer0.weight", "layer1.weight"],
        "*bias": ["layer0.bias", "layer1.bias"],
    }
    *_, result = meta_train(spec)
    assert isinstance(result, TrainingResult)
    trained = weights.loads(result.weights)
    assert isinstance(trained, RuleSet)
    fresh = untrained(spec)
    assert trained.config() == fresh.config()
    for (pattern, rule), (_, before) in zip(trained.members(), fresh.members(), strict=True):
        before.initialise(torch.Generator().manual_seed(0))
        moved = parameters_to_vector(rule.parameters()) - parameters_to_vector(before.parameters())
        assert moved.abs().max() > 1e-4, pattern
    *_, again = meta_train(spec)
    assert again.weights == result.weights


def test_a_recipe_says_which_rule_is_whose(training_spec) -> None:
    rest = training_spec("digits-mlp", rules={"*": {"kind": "mlp"}, "layer1.weight": {"kind": "lstm"}}).recipe
    assert (rest.rule.kind, {pattern: rule.kind for pattern, rule in rest.rules.items()}) == (
        "mlp",
        {"layer1.weight": "lstm"},
    )
    with pytest.raises(ValidationError, match=r"the rule for 'wieght' would move nothing: .*layer0.weight \(weight\)"):
        training_spec("digits-mlp", rules={"wieght": {}})
    with pytest.raises(ValidationError, match="theta"):
        training_spec("quadratic", rules={"bias": {}})


def test_memory_of_several_rules_is_between_that_of_each_alone(training_spec) -> None:
    def estimate(**rules: object) -> int:
        spec = training_spec("digits-mlp", tasks=512, **rules)
        return memory_estimate_bytes(spec, computes="torch")

    small, large = {"kind": "mlp", "hidden_size": 2}, {"kind": "lstm", "hidden_size": 100}
    both = estimate(rule=small, rules={"layer0.weight": large})
    assert estimate(rule=small) < both < estimate(rule=large)


@pytest.mark.parametrize("tuned", ["rule", "rules"])
def test_a_rule_that_has_nothing_to_learn_is_not_trained(training_spec, tuned):
    given = {"rule": {"kind": "tuned"}} if tuned == "rule" else {"rules": {"bias": {"kind": "tuned"}, "*": {}}}
    with pytest.raises(ValidationError, match="kind 'tuned' has nothing to learn"):
        training_spec("digits-mlp", **given)
