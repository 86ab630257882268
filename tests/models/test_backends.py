"""Every backend computes what the reference computes, can be forced, and stands odd shapes and numbers."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from gradsmith.rules import RuleSet, build, weights
from models import captured
from models.backends import NativeBackend, TorchBackend, backend_for, dtype_for
from models.errors import BackendUnavailable
from models.evaluation.evaluate import evaluate
from models.families import FAMILIES
from models.families.mlp import MLPSpec
from models.meta_train import MetaStep, TrainingResult, meta_train
from models.spec import Resources, Split, overridden
from models.tasks.catalogue import open_for_training
from models.unroll import begin, unroll_window
from tests import compiler
from tests.compiler import no_kernel

CPU = torch.device("cpu")
RULES = [{}, {"input": "raw", "layers": 1, "hidden_size": 7}, {"layers": 3, "hidden_size": 4}]


def rule_with(dtype=torch.float32, **settings):
    rule = build({"kind": "lstm", **settings})
    rule.initialise(torch.Generator().manual_seed(3))
    return rule.to(dtype)


def forced(name, rule, threads=1, parts=()):
    """The backend of this name, for the rule's own precision; skips where there is no compiler to make it."""
    try:
        return backend_for(rule, next(rule.parameters()).dtype, CPU, threads, wanted=name, parts=parts)
    except BackendUnavailable as error:
        no_kernel(error)


@pytest.mark.parametrize("broken", [{"GRADSMITH_NATIVE": "off"}, {"CXX": "false"}], ids=["off", "compiler"])
def test_a_kernel_that_cannot_be_had_skips_a_test_only_where_there_is_no_compiler(monkeypatch, tmp_path, broken):
    for name, value in {"GRADSMITH_CACHE_DIR": str(tmp_path), "GRADSMITH_KERNELS": "", **broken}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(compiler, "COMPILER", "c++")
    with pytest.raises(pytest.fail.Exception, match=r"the native kernel is not: .*forces the backend native"):
        forced("native", rule_with(hidden_size=2, layers=1))
    monkeypatch.setattr(compiler, "COMPILER", None)
    with pytest.raises(pytest.skip.Exception, match=r"there is no C\+\+ compiler here"):
        forced("native", rule_with(hidden_size=2, layers=1))


def in_double(rule):
    twin = build(rule.config()).double()
    twin.load_state_dict({name: value.double() for name, value in rule.state_dict().items()})
    return twin


def some_window(steps, coordinates, dtype=torch.float32):
    """Gradients over many orders of magnitude, as a trajectory has them, and weights of the updates."""
    generator = torch.Generator().manual_seed(steps + coordinates)
    size = torch.exp(4 * torch.randn(steps, coordinates, generator=generator))
    G = size * torch.randn(steps, coordinates, generator=generator)
    return G.to(dtype), torch.randn(steps, coordinates, generator=generator).to(dtype)


def window_gradient(backend, G, D):
    """Of a window that begins with a memory which a step has filled; and theta after that step."""
    memory = backend.initial_memory(G.shape[1])
    theta = torch.zeros(G.shape[1], dtype=G.dtype)
    memory = backend.step(theta, G[0], memory)
    return backend.window_gradient(memory, G, D), theta


# The native kernel of other rules: tests/sdk/test_native.py, which compiles them.
AGREE = [("torch", torch.float64, 1e-12, rule) for rule in RULES]
AGREE += [("torch", torch.float32, 1e-5, rule) for rule in RULES]
AGREE += [("native", torch.float32, 1e-5, RULES[0])]


@pytest.mark.parametrize(("name", "dtype", "tolerance", "settings"), AGREE, ids=str)
@pytest.mark.parametrize(("steps", "coordinates"), [(1, 1), (1, 33), (5, 31), (20, 33), (20, 500)])
def test_every_backend_agrees_with_the_reference(name, dtype, tolerance, settings, steps, coordinates):
    """Max abs difference over max abs value of each weight tensor, on equal inputs; also of theta after a step."""
    rule = rule_with(dtype, **settings)
    truth = in_double(rule)
    G, D = some_window(steps, coordinates, dtype)
    found, theta = window_gradient(forced(name, rule), G, D)
    reference = backend_for(truth, torch.float64, CPU, wanted="reference")
    expected, expected_theta = window_gradient(reference, G.double(), D.double())
    sizes = [parameter.numel() for parameter in rule.parameters()]
    for ours, theirs in [*zip(found.split(sizes), expected.split(sizes), strict=True), (theta, expected_theta)]:
        assert (ours.double() - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_the_reference_is_plain_autograd():
    """Through the rule's own forward, written down here once more: no replay, no blocks."""
    rule = rule_with(torch.float64)
    G, D = some_window(4, 9, torch.float64)
    state, total = rule.initial_state(9, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for gradient, weight in zip(G, D, strict=True):
        update, state = rule(gradient, state)
        total = total + update @ weight
    expected = torch.cat([piece.reshape(-1) for piece in torch.autograd.grad(total, list(rule.parameters()))])
    reference = backend_for(rule, torch.float64, CPU, wanted="reference")
    found = reference.window_gradient(reference.initial_memory(9), G, D)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", ["torch", "native", "reference"])
@pytest.mark.parametrize(("steps", "coordinates"), [(1, 1), (1, 33), (7, 31)])
@pytest.mark.parametrize("value", [0.0, 1e30, -1e30, 1e-42], ids=["zero", "huge", "huge and negative", "denormal"])
def test_odd_shapes_and_sizes_stay_finite(name, steps, coordinates, value):
    rule = rule_with(dtype_for(name))
    dtype = next(rule.parameters()).dtype
    G, D = torch.full((steps, coordinates), value, dtype=dtype), torch.ones(steps, coordinates, dtype=dtype)
    found, theta = window_gradient(forced(name, rule), G, D)
    assert torch.isfinite(found).all()
    assert torch.isfinite(theta).all()
    assert found.abs().max() > 0, "biases have a gradient whatever comes in"


@pytest.mark.parametrize("name", ["torch", "native", "reference"])
def test_a_nan_gradient_spoils_its_coordinate_and_no_other(name):
    rule = rule_with(dtype_for(name))
    dtype = next(rule.parameters()).dtype
    backend = forced(name, rule)
    gradient = torch.ones(33, dtype=dtype)
    gradient[7] = torch.nan
    thetas = []
    for row in (torch.ones_like(gradient), gradient):
        theta = torch.zeros(33, dtype=dtype)
        backend.step(theta, row, backend.initial_memory(33))
        thetas.append(theta)
    others = torch.arange(33) != 7
    assert torch.isnan(thetas[1][7])
    assert torch.equal(thetas[0][others], thetas[1][others])
    G = gradient.expand(3, 33)
    snapshot = backend.initial_memory(33)
    assert not torch.isfinite(backend.window_gradient(snapshot, G, torch.ones(3, 33, dtype=dtype))).all()


@pytest.mark.parametrize("name", ["torch", "native"])
def test_nan_gradients_of_a_task_skip_the_meta_step_and_leave_the_weights(training_spec, monkeypatch, name):
    """The optimizee's own gradient turns NaN in the second window: what is skipped is that window's meta-step, and
    the run goes on from new tasks with the weights of before."""
    forced(name, rule_with())
    spec = training_spec(meta_steps=8)
    spec = spec.model_copy(update={"resources": Resources(backend=name)})
    original, seen, weights = captured.unroll_window, [], []

    def poisoned(tasks, position, steps, backend, meta_loss):
        seen.append(position.step)
        weights.append(parameters_to_vector(backend.parameters()).detach().clone())
        if len(seen) == 2:
            position.gradient[3] = torch.nan
        return original(tasks, position, steps, backend, meta_loss)

    monkeypatch.setattr(captured, "unroll_window", poisoned)
    *events, result = meta_train(spec)
    steps = [event for event in events if isinstance(event, MetaStep)]
    assert [step.skipped for step in steps] == [False, True] + 6 * [False]
    assert seen[:3] == [0, 5, 0]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1])
    assert result.summary["skipped_steps"] == 1


def test_a_window_at_the_function_level_may_be_longer_than_any_horizon():
    """Minibatches are functions of the step, so a trajectory has no end of its own; a job's windows divide its
    horizon."""
    [tasks] = open_for_training(FAMILIES["quadratic"].tasks).sample(Split.TRAIN, seed=0, trajectory=0, tasks=2)
    rule = rule_with()
    window, after = unroll_window(tasks, begin(tasks, TorchBackend(rule)), 150, TorchBackend(rule))
    assert window.losses.shape == (150, 2)
    assert after.step == 150
    with pytest.raises(ValueError, match="horizon 100 is not a multiple of unroll_steps 150"):
        overridden(FAMILIES["quadratic"].recipe, {"unroll_steps": 150})


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_the_native_backends_bits_do_not_depend_on_its_threads(threads):
    rule = rule_with()
    G, D = some_window(6, 3000)
    alone = window_gradient(forced("native", rule), G, D)
    assert all(map(torch.equal, alone, window_gradient(forced("native", rule, threads), G, D)))


# --- the choice -------------------------------------------------------------------------------------------------


def test_a_forced_backend_is_what_runs():
    rule = rule_with()
    assert backend_for(rule, torch.float32, CPU, wanted="torch").name == "torch"
    assert isinstance(forced("native", rule), NativeBackend)
    assert backend_for(rule.double(), torch.float64, CPU, wanted="reference").name == "reference"


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("native", {"hidden_size": 200, "layers": 1}, "at most 4 layers of 128"),
        ("triton", {}, "a CUDA device"),
    ],
)
def test_a_backend_that_is_not_here_is_refused_with_what_it_needs(name, settings, reason):
    with pytest.raises(BackendUnavailable, match=f"forces the backend {name}.*{reason}.*resources.backend auto") as had:
        backend_for(rule_with(**settings), torch.float32, CPU, wanted=name)
    shape = f"{settings.get('layers', 2)} x {settings.get('hidden_size', 20)}"
    assert f"cannot run this rule (lstm, {shape}, log_sign input) here: " in str(had.value)


def test_a_worker_without_the_kernel_refuses_a_job_that_forces_it(training_spec, monkeypatch):
    monkeypatch.setenv("GRADSMITH_NATIVE", "off")
    spec = training_spec().model_copy(update={"resources": Resources(backend="native")})
    with pytest.raises(BackendUnavailable, match="GRADSMITH_NATIVE=off"):
        next(meta_train(spec))


@pytest.mark.parametrize("name", ["native", "torch", "reference"])
@pytest.mark.parametrize("patterns", [{"*": {}}, {"weight": {"hidden_size": 7}, "*bias": {}}], ids=["one", "several"])
def test_what_a_coordinate_forgets_is_its_own_memory_alone(name, patterns):
    """Its next step is a first one, whatever its neighbours remember; and theirs goes on as if nothing had been."""
    tasks = MLPSpec(hidden=(3,), batch_size=8)
    rules = RuleSet({pattern: rule_with(**settings) for pattern, settings in patterns.items()})
    backend = forced(name, rules, parts=tasks.parts())
    count = 2 * tasks.coordinates_per_task
    G, _ = some_window(4, count)
    where = torch.arange(count) % 3 == 0

    def last_step(memory):
        theta = torch.zeros(count)
        backend.step(theta, G[3], memory)
        return theta

    def three_steps():
        memory = backend.initial_memory(count)
        for gradient in G[:3]:
            memory = backend.step(torch.zeros(count), gradient, memory)
        return memory

    anew, on = last_step(backend.initial_memory(count)), last_step(three_steps())
    forgot = last_step(backend.forget(three_steps(), where))
    assert torch.equal(forgot, torch.where(where, anew, on))
    assert not torch.equal(anew, on)


@pytest.mark.parametrize(("backend", "device"), [("native", "gpu"), ("triton", "cpu")])
def test_a_backend_that_contradicts_its_device_is_no_resource(backend, device):
    with pytest.raises(ValueError, match=f"backend {backend} runs on device"):
        Resources(backend=backend, device=device)


def test_the_reference_runs_the_whole_job_in_float64(training_spec, monkeypatch):
    seen = set()
    original = captured.unroll_window

    def watched(tasks, position, steps, backend, meta_loss):
        window, position = original(tasks, position, steps, backend, meta_loss)
        seen.update({backend.parameters()[0].dtype, tasks.dtype, position.theta.dtype, window.gradient.dtype})
        return window, position

    monkeypatch.setattr(captured, "unroll_window", watched)
    short = training_spec(meta_steps=8)
    *_, truth = meta_train(short.model_copy(update={"resources": Resources(backend="reference")}))
    assert seen == {torch.float64}
    assert isinstance(truth, TrainingResult)
    assert truth.summary["runtime"]["backend"] == "reference"
    *_, usual = meta_train(short)
    assert usual.validation_score == pytest.approx(truth.validation_score, rel=1e-3)
    assert usual.validation_score != truth.validation_score


def test_an_evaluation_runs_on_the_backend_that_it_forces(evaluation_spec):
    spec = evaluation_spec(horizon=5, test_tasks=4, tuning_tasks=2, baselines=("sgd",))
    trained = weights.dumps(rule_with())
    finals = {}
    for name in ("torch", "reference"):
        *_, last = evaluate(trained, spec.model_copy(update={"resources": Resources(backend=name)}))
        assert last.result["runtime"]["backend"] == name
        finals[name] = last.result["optimizers"]["learned"]["final"]["mean"]
    assert finals["torch"] == pytest.approx(finals["reference"], rel=1e-4)
    assert finals["torch"] != finals["reference"]
