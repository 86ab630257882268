"""NTM-BFGS: a step of BFGS by hand-set weights, its parts written out, and who may use it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gradsmith import LearnedOptimizer
from gradsmith.errors import StateMismatch, TooManyCoordinates
from gradsmith.rules import NTMBFGSRule, Segments
from gradsmith.rules.configs import NTMBFGSConfig
from gradsmith.rules.weights import dumps, loads

torch.set_num_threads(1)

OPEN, SHUT = 40.0, -60.0  # biases that make a gate one, and zero
SMALL, SLOPE = 1e-5, 1e-3  # what signals are scaled by, so that tanh and sigmoid are straight lines
STEEP = 3.0  # of a gate at its threshold


def make_rule(**settings: object) -> NTMBFGSRule:
    rule = NTMBFGSRule(NTMBFGSConfig(**settings)).double()  # type: ignore[arg-type]
    rule.initialise(torch.Generator().manual_seed(1))
    return rule


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bfgs_by_hand(n: int, largest: float, decades: float) -> NTMBFGSRule:
    """BFGS with the step length 1, for means of y s from `largest` down over so many decades.

    With s the last update, y the change of the gradient and u = M y, BFGS adds (1 + rho y.u) rho s s^T - rho (s u^T +
    u s^T), rho = 1 / y.s: with w = rho s, that is w (s + y.u w - u)^T - u w^T. Two read heads bring M g and M g_before,
    which is -s. A product x z is what two cells with the candidate x and the input gates sigmoid(kz), sigmoid(-kz)
    differ by. The first layer's averaging cells make y.s and y.u so; the second layer's output gates fall with y.s and
    sum up to its reciprocal (`reciprocal_of`); the third layer multiplies w with y.u.
    """
    gates = 64
    H, averaging = gates + 8, 4
    config = NTMBFGSConfig(
        hidden_size=H, layers=3, averaging=averaging, read_heads=2, write_heads=2, memory_size=n, input="raw",
        output_scale=1.0,
    )  # fmt: skip
    rule = NTMBFGSRule(config).double()
    first, second, third = rule.layers
    I, C, O = 0, 2 * H, 3 * H  # noqa: E741  rows of the input gates, candidates and output gates
    g, s, u, p = 4, 5, 6, 7  # cells that hand on the gradient, s, u and (in the second layer) the mean of y u
    x_g, x_now, x_before = 0, 1, 2  # what the first layer sees: g, M g, M g_before
    before = 3 + g  # the hidden cell that had the gradient, a step ago
    with torch.no_grad():
        for layer in (first, second, third):
            layer.bias[H : 2 * H] = SHUT  # nothing is remembered but by the hidden state
            layer.bias[I : I + H] = OPEN
            layer.bias[O:] = OPEN
        first.weight[C + g, x_g] = SMALL
        first.weight[C + s, x_before] = -SMALL
        first.weight[C + u, x_now], first.weight[C + u, x_before] = SMALL, -SMALL
        first.bias[:averaging] = 0.0
        for cell, sign in zip(range(averaging), (1, -1, 1, -1), strict=True):
            first.weight[C + cell, x_g], first.weight[C + cell, before] = SMALL, -1.0  # y
            first.weight[I + cell, x_before] = -SLOPE * sign  # times s, and for the others times u
            if cell > 1:
                first.weight[I + cell, x_now] = SLOPE * sign
        mean = 2 / (SMALL * SLOPE)  # of a product, for each unit of its cells' difference

        for cell in (g, s, u):
            second.weight[C + cell, cell] = 1.0
            third.weight[C + cell, cell] = 1.0
        second.weight[C + p, 2], second.weight[C + p, 3] = 1.0, -1.0
        thresholds, weights = reciprocal_of(largest, decades, gates)
        second.weight[C + 8 :, s][:gates] = 1.0
        second.bias[O + 8 :] = STEEP
        second.weight[O + 8 :, 0], second.weight[O + 8 :, 1] = -STEEP * mean / thresholds, STEEP * mean / thresholds

        w, more, less = 8, 9, 10  # the third layer's cells: w, and the two whose difference is w times the mean of y u
        for cell in (w, more, less):
            third.weight[C + cell, 8:H] = weights / n
        third.bias[I + more], third.bias[I + less] = 0.0, 0.0
        third.weight[I + more, p], third.weight[I + less, p] = SLOPE * mean, -SLOPE * mean

        rule.key_weight[0, 0] = 1.0
        rule.key_weight[1, 1 + g] = 1 / SMALL
        rule.result_weight[0] = -1.0
        rule.left_weight[0, w], rule.right_weight[0, s], rule.right_weight[0, u] = 1 / SMALL, 1 / SMALL, -1 / SMALL
        rule.right_weight[0, more], rule.right_weight[0, less] = 2 * n / SLOPE / SMALL, -2 * n / SLOPE / SMALL
        rule.left_weight[1, u], rule.right_weight[1, w] = -1 / SMALL, 1 / SMALL
    return rule.requires_grad_(False)


def reciprocal_of(largest: float, decades: float, gates: int) -> tuple[Tensor, Tensor]:
    """Thresholds T and weights, (gates,) each, so that the weighted sum of sigmoid(c - c q / T) is 1 / q, for q from
    `largest` down over so many decades: the trapezoid rule, over the logarithm of T, for

        integral of sigmoid(c - c q / T) / T d(log T) = log(1 + e^c) / (c q).

    What lies beyond the last threshold is a geometric series, which that one's weight has as well."""
    places = torch.linspace(-decades - 1, 2.5, gates, dtype=torch.float64) * math.log(10)
    gap = float(places[1] - places[0])
    thresholds = places.exp() * largest
    weights = gap / thresholds
    weights[-1] /= 1 - math.exp(-gap)
    return thresholds, weights * STEEP / math.log1p(math.exp(STEEP))


class Quadratic:
    """theta^T A theta / 2 - b^T theta with the eigenvalues of A near 1, where BFGS needs no search along its lines."""

    def __init__(self, n: int, seed: int) -> None:
        rotation, _ = torch.linalg.qr(drawn(n, n, seed=seed))
        self.A = rotation @ torch.diag(torch.linspace(0.6, 1.5, n, dtype=torch.float64)) @ rotation.T
        self.b = drawn(n, seed=seed + 1)

    def gradient(self, theta: Tensor) -> Tensor:
        return self.A @ theta - self.b


def bfgs(problem: Quadratic, n: int, steps: int) -> tuple[list[Tensor], list[Tensor]]:
    """Its thetas, and its estimate of the inverse Hessian at each step, by its textbook formula."""
    eye = torch.eye(n, dtype=torch.float64)
    thetas, estimates, gradients = [torch.zeros(n, dtype=torch.float64)], [eye], []
    for step in range(steps):
        gradients.append(problem.gradient(thetas[-1]))
        if step:
            s, y = thetas[-1] - thetas[-2], gradients[-1] - gradients[-2]
            rho = 1 / (y @ s)
            left = eye - rho * torch.outer(s, y)
            estimates.append(left @ estimates[-1] @ left.T + rho * torch.outer(s, s))
        thetas.append(thetas[-1] - estimates[-1] @ gradients[-1])
    return thetas[1:], estimates


def test_it_can_express_bfgs() -> None:
    """Two quadratics side by side, each with a matrix of its own, for five steps: the thetas and the matrices."""
    n, steps = 4, 5
    rule, problems = bfgs_by_hand(n, largest=2.0, decades=6.0), [Quadratic(n, 10), Quadratic(n, 20)]
    expected = [bfgs(problem, n, steps) for problem in problems]
    theta, state = torch.zeros(2 * n, dtype=torch.float64), rule.initial_state(2 * n, dtype=torch.float64)
    for step in range(steps):
        gradient = torch.cat([each.gradient(own) for each, own in zip(problems, theta.split(n), strict=True)])
        update, state = rule(gradient, state, Segments((1, n - 1), count=2))
        theta = theta + update
        for own, matrix, (thetas, estimates) in zip(theta.split(n), state[-2].split(n), expected, strict=True):
            torch.testing.assert_close(own, thetas[step], rtol=0, atol=2e-5)
            torch.testing.assert_close(matrix + torch.eye(n), estimates[step], rtol=0, atol=1e-3)
    moved = [float((estimates[-1] - torch.eye(n)).norm()) for _, estimates in expected]
    assert min(moved) > 0.5, "or gradient descent would pass"
    errors = [float(problem.gradient(own).norm()) for problem, own in zip(problems, theta.split(n), strict=True)]
    assert max(errors) < 1e-2


def test_a_step_is_the_one_that_its_class_describes() -> None:
    """Written out for one task, through torch's own LSTM cells."""
    rule, n = make_rule(hidden_size=5, layers=2, averaging=2, read_heads=2, memory_size=6, input="raw"), 4
    rule.requires_grad_(False)
    rule.left_weight.copy_(drawn(3, 5, seed=7))
    cells = [torch.nn.LSTMCell(3, 5, dtype=torch.float64), torch.nn.LSTMCell(5, 5, dtype=torch.float64)]
    for cell, layer in zip(cells, rule.layers, strict=True):
        cell.requires_grad_(False)
        cell.weight_ih.copy_(layer.get_parameter("weight")[:, : cell.input_size])
        cell.weight_hh.copy_(layer.get_parameter("weight")[:, cell.input_size :])
        cell.bias_ih.copy_(layer.get_parameter("bias"))
        cell.bias_hh.zero_()
    matrix, state = torch.eye(n, dtype=torch.float64), rule.initial_state(n, dtype=torch.float64)
    theirs = [(torch.zeros(n, 5).double(), torch.zeros(n, 5).double()) for _ in cells]
    for gradient in drawn(4, n, seed=3):
        update, state = rule(gradient, state)
        x = gradient[:, None]
        keys = torch.cat((x, theirs[-1][0]), dim=1) @ rule.key_weight.T  # (n, read heads)
        signal = torch.cat((x, matrix @ keys), dim=1)
        for number, cell in enumerate(cells):
            hidden, memory = cell(signal, theirs[number])
            hidden = torch.cat((hidden[:, :2].mean(dim=0).expand(n, 2), hidden[:, 2:]), dim=1)
            theirs[number], signal = (hidden, memory), hidden
        for left, l0, right, r0 in zip(
            rule.left_weight, rule.left_bias, rule.right_weight, rule.right_bias, strict=True
        ):
            matrix = matrix + torch.outer(signal @ left + l0, signal @ right + r0)
        expected = signal @ rule.readout_weight + rule.readout_bias + matrix @ keys @ rule.result_weight
        torch.testing.assert_close(update, 0.1 * expected, rtol=1e-9, atol=1e-12)


def test_a_loop_of_users_runs_what_was_saved() -> None:
    rule = make_rule(memory_size=8).float()
    torch.nn.init.normal_(rule.left_weight, generator=torch.Generator().manual_seed(2))
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 4)]
    optimizer = LearnedOptimizer(parameters, loads(dumps(rule)))
    state = rule.initial_state(7)
    for gradient in drawn(4, 7, seed=5).float():
        for parameter, own in zip(parameters, gradient.split([3, 4]), strict=True):
            parameter.grad = own.clone()
        before = torch.cat([parameter.detach() for parameter in parameters])
        optimizer.step()
        update, state = rule(gradient, state)
        moved = torch.cat([parameter.detach() for parameter in parameters]) - before
        torch.testing.assert_close(moved, update.detach(), rtol=1e-4, atol=1e-6)
    parameters[0].grad = None
    with pytest.raises(StateMismatch, match="Give every parameter a gradient in every step"):
        optimizer.step()


def test_what_never_had_a_gradient_does_not_move_and_writes_nothing() -> None:
    rule = make_rule(memory_size=5)
    rule.requires_grad_(False)
    rule.left_weight.copy_(drawn(3, 20, seed=7))
    state = rule.initial_state(5, dtype=torch.float64)
    for gradient in drawn(3, 5, seed=1):
        gradient[2] = 0.0
        update, state = rule(gradient, state)
        assert float(update[2]) == 0.0
        assert all(float(tensor[2].abs().sum()) == 0.0 for tensor in state)
    assert float(update.abs().min()) == 0.0 < float(update.abs().max())


def test_a_task_that_is_too_large_is_refused_with_the_setting_that_says_so() -> None:
    rule = make_rule(memory_size=5)
    message = "with memory_size 5 is to move 6 coordinates together"
    with pytest.raises(TooManyCoordinates, match=message):
        rule(drawn(6), rule.initial_state(6, dtype=torch.float64))
    rule(drawn(10), rule.initial_state(10, dtype=torch.float64), Segments((2, 3), count=2))
    parameter = torch.nn.Parameter(torch.zeros(2, 3))
    parameter.grad = torch.ones(2, 3)
    with pytest.raises(TooManyCoordinates, match=message):
        LearnedOptimizer([parameter], rule.float()).step()
    assert torch.equal(parameter.detach(), torch.zeros(2, 3))


def test_a_fresh_rule_leaves_the_matrix_alone() -> None:
    rule = make_rule()
    _, state = rule(drawn(9), rule.initial_state(9, dtype=torch.float64))
    assert not state[-2].any()
    assert sum(tensor.shape[1] for tensor in state) == rule.settings.costs().state
