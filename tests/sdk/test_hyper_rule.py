"""The hyper rule against independent oracles: torch's own Adam, one step after the other in plain Python, finite
differences; and what it promises: tensors do not see one another, order does not matter, what has no gradient rests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradsmith import LearnedOptimizer
from gradsmith.errors import StateMismatch
from gradsmith.rules import HyperRule, Segments, build
from gradsmith.rules.configs import HyperConfig
from gradsmith.rules.weights import dumps, loads

# Literals, not the module's own: a file of weights does not record the decays, so a change breaks every file there is.
MOMENTA, SQUARES, FAST, SLOW, ALIGNMENT = (0.5, 0.9, 0.97), 0.99, 0.5, 0.95, 0.7
HORIZONS = (1, 3, 10, 30, 100, 300, 1000)

SIZES = (5, 1, 3)

PLANNED = 5  # fewer steps than are made below: the end of the plan is passed

torch.set_num_threads(1)


def make_rule(seed: int = 0, **settings: Any) -> HyperRule:
    """A rule whose read-out does something, in float64."""
    rule = HyperRule(HyperConfig(**settings)).double()
    generator = torch.Generator().manual_seed(seed)
    rule.initialise(generator)
    with torch.no_grad():
        for parameter in rule.readout.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return rule


def some_gradients(steps: int, coordinates: int) -> Tensor:
    generator = torch.Generator().manual_seed(steps)
    size = torch.exp(3 * torch.randn(coordinates, generator=generator, dtype=torch.float64))
    return size * torch.randn(steps, coordinates, generator=generator, dtype=torch.float64)


def run(rule: HyperRule, gradients: Tensor, segments: Segments, dtype: torch.dtype = torch.float64) -> Tensor:
    state = rule.plan(rule.initial_state(segments.coordinates, tensors=segments.rows, dtype=dtype), PLANNED)
    updates = []
    for gradient in gradients:
        update, state = rule(gradient, state, segments)
        updates.append(update.detach())
    return torch.stack(updates)


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return dot(a, b) / (math.sqrt(dot(a, a)) * math.sqrt(dot(b, b)) + 1e-30)


def written_out(rule: HyperRule, gradients: list[list[float]]) -> list[list[float]]:
    """The updates of ONE tensor, number by number in plain Python."""
    weights = {name: value.tolist() for name, value in rule.state_dict().items()}
    n = len(gradients[0])
    means = {b: [0.0] * n for b in MOMENTA}
    squares, last, fast, slow, aligned = [0.0] * n, [0.0] * n, 0.0, 0.0, [0.0] * 3
    updates = []
    for t, g in enumerate(gradients, start=1):
        compared = (last, means[0.9], means[0.97])
        aligned = [
            ALIGNMENT * a + (1 - ALIGNMENT) * cosine(other, g) for a, other in zip(aligned, compared, strict=True)
        ]
        means = {b: [b * m + (1 - b) * x for m, x in zip(means[b], g, strict=True)] for b in MOMENTA}
        squares = [SQUARES * v + (1 - SQUARES) * x * x for v, x in zip(squares, g, strict=True)]
        fast, slow = (b * old + (1 - b) * dot(g, g) / n for b, old in ((FAST, fast), (SLOW, slow)))
        r, late = math.sqrt(slow / (1 - SLOW**t)), math.sqrt(fast / (1 - FAST**t))
        hat = {b: [m / (1 - b**t) for m in means[b]] for b in MOMENTA}
        sizes = [late, *(math.sqrt(dot(hat[b], hat[b]) / n) for b in (0.9, 0.97))]
        signal = [math.log(r) / 4 + 1, *(math.log(size / r) for size in sizes), *(3 * a for a in aligned)]
        signal = [max(-4.0, min(4.0, x)) for x in signal] + [math.tanh(t / horizon - 1) for horizon in HORIZONS]
        if rule.settings.clock == "time+fraction":
            signal += [2 * min((t - 1) / PLANNED, 1) - 1, math.tanh(max(PLANNED - t + 1, 0) / 10 - 1)]
        for level in range(rule.settings.layers):
            rows = zip(weights[f"layers.{level}.weight"], weights[f"layers.{level}.bias"], strict=True)
            signal = [x if x > 0 else math.exp(x) - 1 for x in (dot(row, signal) + bias for row, bias in rows)]
        outputs = zip(weights["readout.weight"], weights["readout.bias"], strict=True)
        *coefficients, magnitude = [dot(row, signal) + bias for row, bias in outputs]
        rate = rule.settings.output_scale * math.exp(max(-7.0, min(5.0, magnitude)))
        update = []
        for i in range(n):
            s = math.sqrt(squares[i] / (1 - SQUARES**t)) + 1e-3 * r
            over_s = [x / s for x in (g[i], hat[0.5][i], hat[0.9][i], hat[0.97][i])]
            over_r = [x / r for x in (g[i], hat[0.9][i], hat[0.97][i])]
            update.append(rate * dot(coefficients, over_s + over_r))
        last = update
        updates.append(update)
    return updates


@pytest.mark.parametrize(
    "settings", [{}, {"hidden_size": 5, "layers": 3, "output_scale": 1.0}, {"clock": "time+fraction"}]
)
def test_its_updates_are_those_written_out_by_hand(settings: dict[str, Any]) -> None:
    """Two tasks of three tensors, each computed alone in plain Python: no tensor sees another."""
    rule, segments = make_rule(**settings), Segments(SIZES, 2)
    gradients = some_gradients(7, segments.coordinates)
    found = torch.split(run(rule, gradients, segments), list(SIZES * 2), dim=1)
    for own, updates in zip(torch.split(gradients, list(SIZES * 2), dim=1), found, strict=True):
        expected = torch.tensor(written_out(rule, own.tolist()), dtype=torch.float64)
        torch.testing.assert_close(updates, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_fresh_rule_is_adam(seed: int) -> None:
    """Its epsilon is a thousandth of the tensor's running root mean square, so torch's Adam is given that in each
    step."""
    rule = HyperRule().double()
    rule.initialise(torch.Generator().manual_seed(seed))
    gradients, mean_square = some_gradients(12, 9), 0.0
    theirs = torch.zeros(9, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([theirs], lr=0.03, betas=(0.9, 0.99))
    for t, gradient in enumerate(gradients, start=1):
        mean_square = SLOW * mean_square + (1 - SLOW) * gradient.square().mean().item()
        adam.param_groups[0]["eps"] = 1e-3 * math.sqrt(mean_square / (1 - SLOW**t))
        theirs.grad = gradient
        adam.step()
    ours = run(rule, gradients, Segments((9,))).sum(dim=0)
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-10, atol=1e-12)


def test_the_order_of_a_tensors_coordinates_does_not_matter() -> None:
    rule, gradients, order = (
        make_rule(),
        some_gradients(6, 9),
        torch.randperm(9, generator=torch.Generator().manual_seed(1)),
    )
    there = run(rule, gradients, Segments((9,)))
    torch.testing.assert_close(run(rule, gradients[:, order], Segments((9,))), there[:, order], rtol=1e-10, atol=1e-14)


def test_a_scale_of_the_gradient_shows_in_one_feature_alone() -> None:
    """With the weights of log r at zero, a thousand times the gradient makes the same steps."""
    rule, gradients = make_rule(), some_gradients(6, 9)
    with torch.no_grad():
        rule.layers[0].get_parameter("weight")[:, 0] = 0
    there = run(rule, gradients, Segments((9,)))
    torch.testing.assert_close(run(rule, 1000 * gradients, Segments((9,))), there, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_never_had_a_gradient_rests(dtype: torch.dtype) -> None:
    """A coordinate of a tensor that moves, and a whole tensor."""
    rule, segments = make_rule().to(dtype), Segments((4, 3))
    assert rule.rests
    gradients = torch.tensor([[1.0, 0, -2, 0, 0, 0, 0], [3.0, 0, 0, 0, 0, 0, 0]], dtype=dtype)
    state = rule.initial_state(7, tensors=2, dtype=dtype)
    for gradient in gradients:
        update, state = rule(gradient, state, segments)
        assert (update != 0).tolist() == [True, False, True, False, False, False, False]
    for tensor in state[:-1]:
        assert not tensor[[1, 3, 4, 5, 6]].any()


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15])
def test_extreme_gradients_give_finite_steps(size: float) -> None:
    rule = make_rule().float()
    updates = run(rule, size * some_gradients(5, 9).float(), Segments(SIZES), torch.float32)
    assert updates.isfinite().all()


def test_a_step_is_counted_in_float32_at_least() -> None:
    """In bfloat16 the count would stand still at 256."""
    half, double = (
        build({"kind": "hyper"}).initial_state(4, tensors=2, dtype=d) for d in (torch.bfloat16, torch.float64)
    )
    assert [tensor.dtype for tensor in half] == [torch.bfloat16] * 3 + [torch.float32]
    assert {tensor.dtype for tensor in double} == {torch.float64}
    assert (
        sum(tensor.shape[1] * tensor.element_size() for tensor in build({"kind": "hyper"}).initial_state(4)[:-1]) == 20
    )


def test_its_gradient_is_the_finite_difference() -> None:
    """With respect to the weights, through several steps: each step's own share, as what it has seen is constant."""
    rule, segments = make_rule(hidden_size=3), Segments(SIZES)
    gradients, weigh = some_gradients(4, 9), torch.randn(4, 9, generator=torch.Generator().manual_seed(5)).double()
    names = [name for name, _ in rule.named_parameters()]
    states = [rule.initial_state(9, tensors=3, dtype=torch.float64)]
    for gradient in gradients[:-1]:
        states.append(tuple(tensor.detach() for tensor in rule(gradient, states[-1], segments)[1]))

    def loss(*values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        steps = zip(gradients, states, weigh, strict=True)
        return sum(
            (torch.func.functional_call(rule, given, (g, state, segments))[0] @ w for g, state, w in steps),
            torch.zeros(()),
        )

    inputs = tuple(parameter.detach().clone().requires_grad_() for parameter in rule.parameters())
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-7)


def test_with_what_it_holds_constant_its_derivatives_by_gradient_and_momenta_are_those_of_its_numerators() -> None:
    """d(update)/d(gradient) against the same formula with s, r and the coefficients held: finite differences of the
    plain sum, and the factor 1 - (1 - b)/(1 - b^t) on g/s."""
    rule, segments, gradients = make_rule(), Segments((9,)), some_gradients(3, 9)
    state = rule.initial_state(9, tensors=1, dtype=torch.float64)
    for gradient in gradients[:-1]:
        state = tuple(tensor.detach() for tensor in rule(gradient, state, segments)[1])
    t, g = 3, gradients[-1].clone().requires_grad_()
    means = state[0].clone().requires_grad_()
    update, after = rule(g, (means, *state[1:]), segments)
    by_gradient, by_means = torch.autograd.grad(update.sum(), (g, means), retain_graph=True)
    assert not any(tensor.requires_grad for tensor in after[1:])  # squares, last update and the tensor's numbers

    along, rate = (value.detach() for value in _coefficients(rule, gradients[-1], state, segments))
    squares = SQUARES * state[1][:, 0] + (1 - SQUARES) * gradients[-1] ** 2
    slow = SLOW * state[3][0, 2] + (1 - SLOW) * gradients[-1].square().mean()
    r = (slow / (1 - SLOW**t)).sqrt()
    s = (squares / (1 - SQUARES**t)).sqrt() + 1e-3 * r
    start = [1 - b**t for b in MOMENTA]
    through = [along[k + 1] / s / start[k] for k in range(3)]
    through[1], through[2] = through[1] + along[5] / r / start[1], through[2] + along[6] / r / start[2]
    expected = rate * (along[0] / s * (1 - (1 - SQUARES) / (1 - SQUARES**t)) + along[4] / r)
    expected = expected + rate * sum((1 - b) * each for b, each in zip(MOMENTA, through, strict=True))
    torch.testing.assert_close(by_gradient, expected, rtol=1e-9, atol=1e-12)
    kept = torch.stack([rate * b * each for b, each in zip(MOMENTA, through, strict=True)], dim=1)
    torch.testing.assert_close(by_means, kept, rtol=1e-9, atol=1e-12)


def _coefficients(
    rule: HyperRule, gradient: Tensor, state: tuple[Tensor, ...], segments: Segments
) -> tuple[Tensor, Tensor]:
    """The coefficients of the directions and the rate in this step, read off at the read-out."""
    seen: list[Tensor] = []
    handle = rule.readout.register_forward_hook(lambda _module, _inputs, outputs: seen.append(outputs))
    rule(gradient, state, segments)
    handle.remove()
    return seen[0][0, :-1], rule.settings.output_scale * seen[0][0, -1].exp()


def test_saved_and_read_back_it_is_the_same() -> None:
    rule = make_rule().float()
    back = loads(dumps(rule))
    gradients = some_gradients(3, 9).float()
    assert isinstance(back, HyperRule)
    assert torch.equal(
        run(back, gradients, Segments(SIZES), torch.float32), run(rule, gradients, Segments(SIZES), torch.float32)
    )


def some_model() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(7)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (4,), (2, 4))]


def stepped(optimizer: LearnedOptimizer, parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def test_as_an_optimizer_it_steps_each_parameter_as_a_tensor_of_its_own() -> None:
    rule, parameters = make_rule().float(), some_model()
    expected = [parameter.detach().clone() for parameter in parameters]
    optimizer = LearnedOptimizer(parameters, rule)
    states = [rule.initial_state(parameter.numel()) for parameter in parameters]
    for seed in range(3):
        stepped(optimizer, parameters, seed)
        for number, parameter in enumerate(parameters):
            assert parameter.grad is not None
            update, states[number] = rule(parameter.grad.reshape(-1), states[number])
            expected[number] += update.detach().view(parameter.shape)
    for parameter, theirs in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("state_dtype", [torch.float32, torch.bfloat16])
def test_its_state_goes_on_bit_for_bit_and_counts_exactly(state_dtype: torch.dtype) -> None:
    rule, parameters = make_rule().float(), some_model()
    optimizer = LearnedOptimizer(parameters, rule, state_dtype=state_dtype)
    for seed in range(260):
        stepped(optimizer, parameters, seed)
    *own, numbers = optimizer.state[parameters[0]]["memory"]
    assert {tensor.dtype for tensor in own} == {state_dtype}
    assert (numbers.dtype, numbers[0, 0].item()) == (torch.float32, 260)
    others = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    other = LearnedOptimizer(others, rule, state_dtype=state_dtype)
    other.load_state_dict(optimizer.state_dict())
    for seed in (1, 2):
        stepped(optimizer, parameters, seed)
        stepped(other, others, seed)
    assert all(map(torch.equal, parameters, others))


def test_a_state_of_other_sizes_is_refused() -> None:
    saved = LearnedOptimizer(some_model()[:1], make_rule().float())
    stepped(saved, saved.param_groups[0]["params"], 0)
    other = LearnedOptimizer([nn.Parameter(torch.zeros(5))], make_rule().float())
    with pytest.raises(StateMismatch, match="another model"):
        other.load_state_dict(saved.state_dict())


def test_files_of_rules_that_do_not_know_the_planned_steps_stay_as_they_were() -> None:
    back = loads(dumps(build({"kind": "hyper", "clock": "time+fraction"})))
    assert isinstance(back, HyperRule)
    assert back.settings.clock == "time+fraction"
    assert b"clock" not in dumps(build({"kind": "hyper"}))


def test_an_optimizer_hands_its_plan_to_the_rule() -> None:
    """In float32, in the compiled kernel where there is one."""
    rule = make_rule(clock="time+fraction").float()
    parameter, gradients = nn.Parameter(torch.zeros(9)), some_gradients(7, 9).float()
    optimizer = LearnedOptimizer([parameter], rule, steps=PLANNED)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    expected = run(rule, gradients, Segments((9,)), torch.float32).sum(dim=0)
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-6)
