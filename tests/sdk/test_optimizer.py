"""LearnedOptimizer: an ordinary torch optimizer that runs the very rule that was trained."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gradsmith
from gradsmith.errors import StateMismatch, UnknownSource, UnsupportedParameter
from gradsmith.rules import LSTMRule, Rule, build
from gradsmith.rules.kernels.native import NativeKernel, native_kernel
from gradsmith.rules.weights import dumps

torch.set_num_threads(1)


def make_rule(seed: int = 0, **settings: object) -> Rule:
    rule = build({"kind": "lstm", **settings})
    rule.initialise(torch.Generator().manual_seed(seed))
    return rule


def make_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)


def make_batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(32, 6, generator=generator).to(dtype), torch.randint(0, 3, (32,), generator=generator)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    inputs, labels = make_batch(next(model.parameters()).dtype)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


@pytest.fixture(autouse=True, params=["auto", "off"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs twice: on the compiled kernel, where this machine can have one, and through torch."""
    if request.param == "off":
        monkeypatch.setenv("GRADSMITH_NATIVE", "off")
    return str(request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_twenty_steps_are_the_rule_applied_by_hand_bit_for_bit(dtype: torch.dtype) -> None:
    """The rule as the trainer applies it: by the compiled kernel where there is one for it, else through torch."""
    rule = make_rule()
    model, twin = make_model(dtype), make_model(dtype)
    train(model, gradsmith.LearnedOptimizer(model.parameters(), rule), 20)

    rule = copy.deepcopy(rule).to(dtype)
    assert isinstance(rule, LSTMRule)
    kernel = native_kernel(rule) if dtype == torch.float32 else None
    inputs, labels = make_batch(dtype)
    theta = flat(twin)
    state = rule.initial_state(theta.numel(), dtype=dtype)
    packed = None if not isinstance(kernel, NativeKernel) else kernel.initial_state(theta.numel())
    for _ in range(20):
        nn.utils.vector_to_parameters(theta, twin.parameters())
        twin.zero_grad()
        nn.functional.cross_entropy(twin(inputs), labels).backward()
        gradient = torch.cat([parameter.grad.reshape(-1) for parameter in twin.parameters()])
        with torch.no_grad():
            if isinstance(kernel, NativeKernel) and packed is not None:
                theta = theta.clone()  # the parameters are views of it
                kernel.step(kernel.weights(rule), theta, gradient, packed)
            else:
                update, state = rule(gradient, state)
                theta = theta + update
    assert torch.equal(flat(model), theta)


def test_parameters_in_groups_move_as_they_do_alone() -> None:
    """Coordinates do not see one another, so how they are grouped does not matter (1e-12, other vector tails)."""
    rule = make_rule()
    together, apart = make_model(torch.float64), make_model(torch.float64)
    train(together, gradsmith.LearnedOptimizer(together.parameters(), rule), 20)
    optimizer = gradsmith.LearnedOptimizer([{"params": apart[0].parameters()}], rule)
    optimizer.add_param_group({"params": apart[2].parameters()})
    train(apart, optimizer, 20)
    torch.testing.assert_close(flat(together), flat(apart), rtol=0, atol=1e-12)


def test_the_caller_s_rule_is_neither_changed_nor_watched() -> None:
    rule = make_rule()
    before = dumps(rule)
    model, twin = make_model(), make_model()
    optimizer = gradsmith.LearnedOptimizer(model.parameters(), rule)
    train(twin, gradsmith.LearnedOptimizer(twin.parameters(), rule), 5)
    assert dumps(rule) == before
    assert all(parameter.requires_grad for parameter in rule.parameters())
    rule.initialise(torch.Generator().manual_seed(99))
    train(model, optimizer, 5)
    assert torch.equal(flat(model), flat(twin))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_saved_run_continues_bit_for_bit(dtype: torch.dtype) -> None:
    rule = make_rule()
    straight, first = make_model(dtype), make_model(dtype)
    train(straight, gradsmith.LearnedOptimizer(straight.parameters(), rule), 20)

    optimizer = gradsmith.LearnedOptimizer(first.parameters(), rule)
    train(first, optimizer, 10)
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    second = make_model(dtype)
    second.load_state_dict(saved["model"])
    resumed = gradsmith.LearnedOptimizer(second.parameters(), rule)
    resumed.load_state_dict(saved["optimizer"])
    train(second, resumed, 10)
    assert torch.equal(flat(straight), flat(second))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_memory_of_half_precision_is_restored_in_full(dtype: torch.dtype) -> None:
    rule = make_rule()
    model, other = make_model(dtype), make_model(dtype)
    optimizer = gradsmith.LearnedOptimizer(model.parameters(), rule)
    train(model, optimizer, 3)
    restored = gradsmith.LearnedOptimizer(other.parameters(), rule)
    restored.load_state_dict(optimizer.state_dict())
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        for saved, loaded in zip(optimizer.state[one]["memory"], restored.state[two]["memory"], strict=True):
            assert loaded.dtype == saved.dtype == torch.float32
            assert not torch.equal(saved, saved.to(dtype).float()), "it has bits that rounding would lose"
            assert torch.equal(loaded, saved)


def test_a_deep_copy_continues_like_the_original() -> None:
    model = make_model()
    optimizer = gradsmith.LearnedOptimizer(model.parameters(), make_rule())
    train(model, optimizer, 3)
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    train(model, optimizer, 3)
    train(twin, twin_optimizer, 3)
    assert torch.equal(flat(model), flat(twin))


def test_state_of_another_rule_is_refused() -> None:
    model = make_model()
    optimizer = gradsmith.LearnedOptimizer(model.parameters(), make_rule(0))
    train(model, optimizer, 1)
    other = gradsmith.LearnedOptimizer(make_model().parameters(), make_rule(1))
    with pytest.raises(StateMismatch, match="same weights"):
        other.load_state_dict(optimizer.state_dict())


def test_state_of_another_model_is_refused() -> None:
    rule = make_rule()
    model = make_model()
    optimizer = gradsmith.LearnedOptimizer(model.parameters(), rule)
    train(model, optimizer, 1)
    other = gradsmith.LearnedOptimizer(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)).parameters(), rule)
    with pytest.raises(StateMismatch, match=r"parameter 0 has 24 coordinates .*another model"):
        other.load_state_dict(optimizer.state_dict())


def test_a_parameter_without_gradient_stays_and_keeps_its_memory() -> None:
    rule = make_rule()
    frozen, moving = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(4))
    optimizer = gradsmith.LearnedOptimizer([frozen, moving], rule)
    frozen.grad, moving.grad = torch.full((3,), 0.5), torch.full((4,), 0.5)
    optimizer.step()
    after_one = frozen.detach().clone()
    frozen.grad = None
    optimizer.step()
    assert torch.equal(frozen, after_one)
    frozen.grad = torch.full((3,), 0.5)
    optimizer.step()

    state, gradient = rule.initial_state(3), torch.full((3,), 0.5)
    expected = torch.ones(3)
    with torch.no_grad():
        for _ in range(2):  # two steps with a gradient: the one without does not count
            update, state = rule(gradient, state)
            expected = expected + update
    torch.testing.assert_close(frozen.detach(), expected)


def test_without_any_gradient_nothing_happens() -> None:
    model = make_model()
    before = flat(model)
    gradsmith.LearnedOptimizer(model.parameters(), make_rule()).step()
    assert torch.equal(flat(model), before)


def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned() -> None:
    parameter = nn.Parameter(torch.tensor([2.0]))
    optimizer = gradsmith.LearnedOptimizer([parameter], make_rule())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert parameter.item() != 2.0


def test_mixed_precision_in_one_group_runs_each_in_its_own() -> None:
    rule = make_rule()
    half, double = nn.Parameter(torch.ones(3, dtype=torch.bfloat16)), nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = gradsmith.LearnedOptimizer([half, double], rule)
    half.grad, double.grad = torch.ones_like(half), torch.ones_like(double)
    optimizer.step()
    with torch.no_grad():
        update, _ = copy.deepcopy(rule).double()(torch.ones(3).double(), rule.initial_state(3, dtype=torch.float64))
    assert torch.equal(double.detach(), 1 + update)
    assert optimizer.state[half]["memory"][0].dtype == torch.float32
    torch.testing.assert_close(half.detach().double(), 1 + update, rtol=0, atol=2**-7)


@pytest.mark.parametrize(
    ("parameter", "named"),
    [
        (torch.zeros(3, dtype=torch.complex64, requires_grad=True), "complex64"),
        (torch.zeros(3, dtype=torch.int64), "int64"),
        (torch.zeros(3, 3).to_sparse().requires_grad_(), "sparse"),
    ],
)
def test_parameters_it_cannot_train_are_refused(parameter: Tensor, named: str) -> None:
    with pytest.raises(UnsupportedParameter, match=named):
        gradsmith.LearnedOptimizer([parameter], make_rule())
    optimizer = gradsmith.LearnedOptimizer([nn.Parameter(torch.zeros(2))], make_rule())
    with pytest.raises(UnsupportedParameter, match=named):
        optimizer.add_param_group({"params": [parameter]})
    assert len(optimizer.param_groups) == 1


def test_a_sparse_gradient_moves_what_the_same_dense_one_moves_and_stays_as_it_was() -> None:
    ends = []
    for sparse in (True, False):
        torch.manual_seed(0)
        embedding, dense = nn.Embedding(5, 2, sparse=sparse), nn.Parameter(torch.ones(2))
        optimizer = gradsmith.LearnedOptimizer([dense, embedding.weight], make_rule())
        for rows in ([1], [1, 3], [3], [0, 0]):
            optimizer.zero_grad()
            (embedding(torch.tensor(rows)).square().sum() + dense.square().sum()).backward()
            gradient = embedding.weight.grad
            optimizer.step()
            assert embedding.weight.grad is gradient
            assert gradient is not None
            assert gradient.is_sparse == sparse
        ends.append(torch.cat([embedding.weight.detach().reshape(-1), dense.detach()]))
    assert torch.equal(*ends)


def test_a_loss_is_maximized_as_its_negative_is_minimized_and_gradients_stay_as_they_are() -> None:
    downhill, uphill = (nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    other = nn.Parameter(torch.ones(2))
    minimizing = gradsmith.LearnedOptimizer([downhill], make_rule())
    maximizing = gradsmith.LearnedOptimizer([{"params": [uphill], "maximize": True}, {"params": [other]}], make_rule())
    everywhere = gradsmith.LearnedOptimizer([nn.Parameter(torch.ones(2))], make_rule(), maximize=True)
    assert everywhere.param_groups[0]["maximize"] is True
    for _ in range(4):
        downhill.grad, uphill.grad = 2 * downhill.detach(), -2 * uphill.detach()
        given = uphill.grad.clone()
        other.grad = torch.ones(2)
        minimizing.step()
        maximizing.step()
        assert torch.equal(uphill.grad, given)
    assert torch.equal(uphill, downhill)
    assert not torch.equal(uphill, torch.linspace(-1, 1, 7))
    again = gradsmith.LearnedOptimizer([{"params": [uphill]}, {"params": [other]}], make_rule())
    again.load_state_dict(maximizing.state_dict())
    assert [bool(group.get("maximize")) for group in again.param_groups] == [True, False]


def test_it_prints_what_it_is() -> None:
    text = repr(gradsmith.LearnedOptimizer([nn.Parameter(torch.zeros(2))], make_rule()))
    assert text.startswith("LearnedOptimizer (")
    assert "lstm(hidden_size=20, layers=2, input=log_sign" in text


def test_the_rule_comes_from_an_object_bytes_or_a_file(tmp_path: Path) -> None:
    rule = make_rule()
    path = tmp_path / "rule.safetensors"
    path.write_bytes(dumps(rule))
    results = []
    for source in (rule, dumps(rule), path, str(path), gradsmith.load(path)):
        model = make_model()
        train(model, gradsmith.LearnedOptimizer(model.parameters(), source), 3)
        results.append(flat(model))
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("text", ["quadratic", "no/such/file.safetensors", "", "Quad ratic@best"])
def test_a_text_that_names_nothing_says_what_would(text: str) -> None:
    with pytest.raises(UnknownSource, match="quadratic@best"):
        gradsmith.LearnedOptimizer([nn.Parameter(torch.zeros(2))], text)
