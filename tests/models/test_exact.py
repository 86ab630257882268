"""Exact meta-gradients equal autograd through the whole unrolled graph, second derivatives of the tasks included."""

from __future__ import annotations

import functools
import math
import re

import pytest
import torch
from pydantic import ValidationError
from torch.nn.utils import parameters_to_vector

from gradsmith.rules import RuleSet, build
from gradsmith.rules.configs import CONFIGS
from gradsmith.rules.kernels.base import Refusal
from models.backends import NativeBackend, TorchBackend, backend_for
from models.errors import BackendUnavailable
from models.groups import Groups
from models.memory import likely_backend
from models.meta_loss import LEAST_LOSS, MetaLoss, square_rooted
from models.meta_train import MetaStep, TrainingResult, meta_train
from models.spec import Resources
from models.tasks.base import TaskBatch
from models.training.rule import load_weights
from models.unroll import begin, unroll_window
from tests.compiler import no_kernel
from tests.models.unrolled import FAMILIES, Averaging, make_rule, make_tasks, through_the_whole_graph

CPU = torch.device("cpu")
EXACT = MetaLoss("exact")
SETTINGS = (
    {"input": "raw", "layers": 1, "hidden_size": 7},
    {"layers": 2, "hidden_size": 4, "output_scale": 1.0},
    {"kind": "mlp", "input": "momenta", "hidden_size": 5},
)
SEE_OTHERS = (
    {"kind": "hyper"},
    {"kind": "hyper", "clock": "time+fraction"},
    {"kind": "hyper", "clock": "time+fraction", "direction": "muon"},
    {"kind": "schedule", "over": "fraction", "direction": "muon", "knots": 5},
    {"kind": "mlp"},
    {"kind": "lstm", "averaging": 2, "hidden_size": 4, "input": "raw"},
    {"kind": "schedule", "direction": "nag", "knots": 5},
    {"kind": "schedule", "direction": "adam", "knots": 5, "over": "fraction"},
    {"kind": "ntm_bfgs", "averaging": 2, "hidden_size": 4, "memory_size": 256, "input": "raw"},
)
WAYS = ("graphs kept", "graphs made again", "graphs made again, in blocks")


def roots(losses):
    """2 sqrt(loss), continued with its slope below LEAST_LOSS."""
    small = losses.detach() < LEAST_LOSS
    return torch.where(small, losses * LEAST_LOSS**-0.5, 2 * losses.clamp(min=LEAST_LOSS).sqrt())


def relative_error(found, truth):
    return float((found - truth).abs().max() / truth.abs().max())


def bound(rule, tasks, family, way=WAYS[0]):
    parts = () if rule.coordinatewise else FAMILIES[family].parts()
    if way == WAYS[0]:
        return TorchBackend(rule, parts=parts)
    blocks = 3 if way == WAYS[2] else 1
    block_floats = rule.settings.costs().autograd * -(-tasks.coordinates // blocks)
    return TorchBackend(rule, parts=parts, graphs_bytes=0, block_floats=block_floats)


def errors(rule, tasks, meta_loss, expected, steps, way=WAYS[0], family="quadratic"):
    backend = bound(rule, tasks, family, way)
    position = begin(tasks, backend)
    found = []
    for reference in expected:
        window, position = unroll_window(tasks, position, steps, backend, meta_loss)
        found.append(relative_error(window.gradient, reference))
    return found


@functools.cache
def the_truth(family, settings):
    shapes = tuple(part.shape for part in FAMILIES[family].parts())
    rule, tasks = make_rule(**SETTINGS[settings]), make_tasks(family)
    gradients, _ = through_the_whole_graph(rule, tasks, 6, 3, exact=True, shapes=shapes)
    return gradients


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", SETTINGS, ids=repr)
def test_the_meta_gradient_is_that_of_the_whole_graph(family, settings, way):
    expected = the_truth(family, SETTINGS.index(settings))
    found = errors(make_rule(**settings), make_tasks(family), EXACT, expected, 6, way, family)
    assert max(found) <= 1e-9
    detached = errors(make_rule(**settings), make_tasks(family), MetaLoss(), expected, 6, family=family)
    assert max(detached) > 1e-4, "second derivatives matter here, or nothing is tested"


@pytest.mark.parametrize("mode", ["detached", "exact"])
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        (family, settings)
        for family in ("quadratic", "mlp")
        for settings in SEE_OTHERS
        if FAMILIES[family].coordinates_per_task <= settings.get("memory_size", math.inf)
    ],
    ids=repr,
)
def test_that_of_a_rule_that_knows_tensors_is_too(family, mode, settings):
    """The tensors of a task are those of its family, and what the rule holds constant is so in the whole graph."""
    rule, tasks, parts = make_rule(**settings, output_scale=0.2), make_tasks(family), FAMILIES[family].parts()
    expected, theta = through_the_whole_graph(
        rule, tasks, 5, 2, exact=mode == "exact", shapes=[part.shape for part in parts], planned=9
    )
    for budget in (2**30, 0):
        backend = TorchBackend(rule, parts=parts, graphs_bytes=budget)
        position = begin(tasks, backend, horizon=9)
        for reference in expected:
            window, position = unroll_window(tasks, position, 5, backend, MetaLoss(mode))
            assert relative_error(window.gradient, reference) <= 1e-9
        torch.testing.assert_close(position.theta, theta, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["detached", "exact"])
@pytest.mark.parametrize("family", ["quadratic", "mlp"])
@pytest.mark.parametrize("kind", ["hyper", "mlp"])
def test_that_of_the_compiled_kernel_is_too_in_its_precision(family, mode, kind):
    parts = FAMILIES[family].parts()
    rule, tasks = make_rule(kind=kind, output_scale=0.2), make_tasks(family)
    shapes = [part.shape for part in parts]
    expected, _ = through_the_whole_graph(rule, tasks, 5, 2, exact=mode == "exact", shapes=shapes)
    kernel = backend_for(rule.float(), torch.float32, CPU, parts=parts, mode=mode)
    if not kernel.name.startswith("native"):
        no_kernel(f"{kind} runs through torch")
    single = make_tasks(family, dtype=torch.float32)
    position = begin(single, kernel)
    for reference in expected:
        window, position = unroll_window(single, position, 5, kernel, MetaLoss(mode))
        assert relative_error(window.gradient.double(), reference) <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_products_by_finite_differences_err_by_little(family):
    """In float64 by 1e-5 of the meta-gradient at most; docs/science.md states the error in float32."""
    tasks = make_tasks(family)

    class Differences:
        def __getattr__(self, name):
            return getattr(tasks, name)

        hessian_vector = TaskBatch.hessian_vector

    assert max(errors(make_rule(**SETTINGS[2]), Differences(), EXACT, the_truth(family, 2), 6, family=family)) <= 1e-5


@pytest.mark.parametrize("mode", ["detached", "exact"])
def test_a_loss_may_count_by_its_root(mode):
    rule, tasks = make_rule(kind="mlp", input="momenta", output_scale=0.2), make_tasks("quadratic")
    expected, _ = through_the_whole_graph(rule, tasks, 6, 2, exact=mode == "exact", counted=roots)
    assert max(errors(rule, tasks, MetaLoss(mode, square_rooted), expected, 6)) <= 1e-9


def test_losses_near_zero_count_in_proportion():
    tasks = make_tasks("quadratic", tasks=3)
    losses = torch.tensor([4.0, LEAST_LOSS, 1e-9], dtype=torch.float64)
    weighted = square_rooted(tasks, tasks.initial(), 1, losses, torch.ones(15, dtype=torch.float64))
    torch.testing.assert_close(weighted[::5], torch.tensor([0.5, LEAST_LOSS**-0.5, LEAST_LOSS**-0.5]).double())


def test_the_slope_is_that_of_the_meta_loss_itself():
    """Central differences of the losses along random directions in the space of the weights: no autograd at all."""
    rule, tasks = make_rule(hidden_size=5, layers=1, input="raw"), make_tasks("mlp", tasks=2)
    backend = TorchBackend(rule)
    start = begin(tasks, backend)
    window, _ = unroll_window(tasks, start, 8, backend, EXACT)
    weights = parameters_to_vector(rule.parameters()).detach().clone()

    def meta_loss(at):
        load_weights(rule, at)
        return float(unroll_window(tasks, start, 8, backend)[0].losses.sum(dim=0).mean())

    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        direction = torch.randn(weights.shape, generator=generator, dtype=torch.float64)
        h = 1e-5
        slope = (meta_loss(weights + h * direction) - meta_loss(weights - h * direction)) / (2 * h)
        assert slope == pytest.approx(float(window.gradient @ direction), rel=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_rule_that_looks_across_its_task(way):
    rule, tasks = Averaging(), make_tasks("quadratic")
    expected, _ = through_the_whole_graph(rule, tasks, 5, 2, exact=True)
    assert max(errors(rule, tasks, EXACT, expected, 5, way)) <= 1e-9


def test_several_rules_see_one_another_through_the_tasks():
    """Each moves its own parts, and the Hessian mixes them."""
    tasks = make_tasks("mlp")
    parts = FAMILIES["mlp"].parts()
    rules = RuleSet(
        {"*": make_rule(hidden_size=4, input="raw"), "bias": make_rule(kind="mlp", hidden_size=3, input="momenta")}
    )
    backend = backend_for(rules, torch.float64, CPU, parts=parts, mode="exact")
    window, _ = unroll_window(tasks, begin(tasks, backend), 4, backend, EXACT)

    one_task = torch.cat([torch.full((part.size,), part.role == "bias") for part in parts])
    is_bias = one_task.repeat(tasks.tasks)
    theta, total = tasks.initial(), 0.0
    members = dict(rules.members())
    states = {name: rule.initial_state(tasks.coordinates, dtype=torch.float64) for name, rule in members.items()}
    theta.requires_grad_()
    for step in range(4):
        (gradient,) = torch.autograd.grad(tasks.losses(theta, step).sum(), theta, create_graph=True)
        updates = {}
        for name, rule in members.items():
            updates[name], states[name] = rule(gradient, states[name])
        theta = theta + torch.where(is_bias, updates["bias"], updates["*"])
        total = total + tasks.losses(theta, step + 1).mean()
    truth = torch.cat([piece.reshape(-1) for piece in torch.autograd.grad(total, list(backend.parameters()))])
    assert relative_error(window.gradient, truth) <= 1e-9


def test_groups_of_tasks_add_up_to_all_of_them():
    rule = make_rule(kind="mlp", input="momenta")
    backend = TorchBackend(rule, parts=FAMILIES["mlp"].parts())

    def plain(tasks, position, steps):
        return unroll_window(tasks, position, steps, backend, EXACT)

    whole = Groups((make_tasks("mlp", tasks=3),), backend).unroll(plain, 5)
    halves = Groups((make_tasks("mlp", tasks=2), make_tasks("mlp", tasks=1, first=2)), backend).unroll(plain, 5)
    torch.testing.assert_close(halves.losses, whole.losses)
    assert relative_error(halves.gradient, whole.gradient) <= 1e-12


@pytest.mark.parametrize("settings", [{}, {"input": "raw"}, {"kind": "mlp"}, {"kind": "hyper"}], ids=repr)
def test_a_coordinate_without_a_gradient_keeps_the_meta_gradient_finite(settings):
    """An image's dark pixels: log 0 and sqrt 0 have infinite slopes, which nothing multiplies by zero."""
    rule = make_rule(**settings).float()
    window = TorchBackend(rule).exact_window(2, 3)
    memory = rule.initial_state(2)
    for _ in range(3):
        memory = window.step(torch.zeros(2), torch.tensor([0.0, 0.3]), memory)
    found = [window.back(torch.ones(2)) for _ in range(3)]
    assert torch.isfinite(torch.cat([*found, window.gradient()])).all()


def test_kernels_leave_exact_meta_gradients_to_torch():
    rule = build({"kind": "lstm"})
    if not isinstance(backend_for(rule, torch.float32, CPU), NativeBackend):
        no_kernel(f"{rule.kind} runs through torch")
    assert isinstance(backend_for(rule, torch.float32, CPU, mode="exact"), TorchBackend)
    with pytest.raises(BackendUnavailable, match=r"native, which cannot run .* here: its meta-gradients are detached"):
        backend_for(rule, torch.float32, CPU, wanted="native", mode="exact")
    tasks = make_tasks("quadratic", dtype=torch.float32)
    bound = backend_for(rule, torch.float32, CPU, wanted="native")
    with pytest.raises(BackendUnavailable, match=re.escape("Send resources.backend torch, or recipe.meta_gradient")):
        unroll_window(tasks, begin(tasks, bound), 2, bound, EXACT)


def test_a_job_that_forces_a_kernel_without_exact_windows_is_told_at_once(training_spec):
    def forced(kind):
        spec = training_spec(meta_gradient="exact", rule={"kind": kind})
        return type(spec).model_validate(spec.model_dump() | {"resources": Resources(backend="native").model_dump()})

    for kind, config in CONFIGS.items():
        if not config.learns:
            continue
        if "native" in config().exact_kernels:
            assert likely_backend(forced(kind)) == "native"
        else:
            with pytest.raises(ValidationError, match=r"send resources\.backend auto or torch, or meta"):
                forced(kind)
            assert likely_backend(training_spec(meta_gradient="exact", rule={"kind": kind})) == "torch"


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_kernels_that_a_kind_claims_are_those_that_have_its_exact_windows(kind):
    rule = build({"kind": kind})
    kernel = backend_for(rule, torch.float32, CPU)
    if not kernel.name.startswith("native"):
        if kind in ("hyper", "lstm", "mlp"):
            no_kernel(f"{kind} runs through torch")
        assert CONFIGS[kind]().exact_kernels == (), "a kind that no kernel runs claims none"
        return
    has_exact = not isinstance(kernel.exact_window(0, 0), Refusal)
    assert has_exact == ("native" in CONFIGS[kind]().exact_kernels)


def test_a_training_with_exact_meta_gradients_learns_and_counts_its_products(training_spec):
    spec = training_spec(
        rule={"kind": "mlp", "hidden_size": 4, "input": "momenta"},
        meta_gradient="exact",
        loss_weighting="sqrt",
        meta_steps=16,
        pool=1,
    )
    *events, result = meta_train(spec)
    losses = [event.loss for event in events if isinstance(event, MetaStep)]
    assert len(losses) == 16
    assert isinstance(result, TrainingResult)
    assert result.validation_score < result.standing_still
    assert result.summary["runtime"]["backend"] == "torch"
    # 4 trajectories of 8 tasks: a gradient each at the start, then 5 and 4 products a window
    assert result.summary["cost"]["training"]["gradient_evaluations"] == 4 * 8 + 16 * 8 * 9
