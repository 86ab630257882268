"""Global averaging cells: what they compute, that they can clip, and who runs them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradsmith import LearnedOptimizer
from gradsmith.errors import UnknownRule
from gradsmith.rules import LSTMRule, Segments
from gradsmith.rules.configs import LSTMConfig
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import native_kernel
from gradsmith.rules.weights import dumps, loads
from models.backends import TorchBackend, backend_for

torch.set_num_threads(1)

OPEN, SHUT = 40.0, -60.0  # biases that make a gate one, and zero
SMALL = 1e-4  # what signals are scaled by, so that tanh lets them through as they are


def make_rule(**settings: object) -> LSTMRule:
    rule = LSTMRule(LSTMConfig(**settings)).double()  # type: ignore[arg-type]
    rule.initialise(torch.Generator().manual_seed(1))
    return rule


def test_they_put_out_the_mean_of_each_task_through_torchs_own_cells() -> None:
    rule = make_rule(input="raw", hidden_size=6, averaging=2)
    cells = [nn.LSTMCell(1, 6, dtype=torch.float64), nn.LSTMCell(6, 6, dtype=torch.float64)]
    with torch.no_grad():
        for cell, layer in zip(cells, rule.layers, strict=True):
            width = cell.input_size
            cell.weight_ih.copy_(layer.get_parameter("weight")[:, :width])
            cell.weight_hh.copy_(layer.get_parameter("weight")[:, width:])
            cell.bias_ih.copy_(layer.get_parameter("bias"))
            cell.bias_hh.zero_()
    state = rule.initial_state(8, dtype=torch.float64)
    theirs = [(torch.zeros(8, 6).double(), torch.zeros(8, 6).double()) for _ in cells]
    for gradient in torch.randn(4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64):
        update, state = rule(gradient, state, Segments((3, 1), count=2))
        signal = gradient[:, None]
        for number, cell in enumerate(cells):
            hidden, memory = cell(signal, theirs[number])
            hidden = hidden.clone()
            for task in (slice(0, 4), slice(4, 8)):
                hidden[task, :2] = hidden[task, :2].mean(dim=0)
            theirs[number], signal = (hidden, memory), hidden
        expected = 0.1 * (signal @ rule.readout_weight + rule.readout_bias)
        torch.testing.assert_close(update, expected, rtol=1e-9, atol=1e-12)


def clipping(bound: float, rate: float, coordinates: int) -> LSTMRule:
    """SGD with L2 clipping, by hand. In the first layer two averaging cells hold the mean of g sigmoid(kg) and of
    g sigmoid(-kg), whose difference is that of g tanh(kg/2), k/2 times the mean square; a third one hands g on. In the
    second layer the output gates of all cells fall with the mean square, each at a threshold of its own, and the
    read-out makes min(1, bound / |g|) of them."""
    rule = LSTMRule(LSTMConfig(input="raw", hidden_size=26, averaging=2, output_scale=1.0)).double()
    H, k = 26, 1e-2
    first, second = rule.layers
    thresholds = torch.logspace(-2.2, 2.6, H - 2, dtype=torch.float64) * bound**2 / coordinates

    def gates(mean_square: Tensor) -> Tensor:
        return torch.sigmoid(3 - 3 * mean_square[:, None] / thresholds)

    with torch.no_grad():
        for layer in (first, second):
            layer.bias[H : 2 * H] = SHUT  # nothing is remembered
            layer.bias[:H] = OPEN
            layer.bias[3 * H :] = OPEN
        first.bias[:2] = 0.0
        first.weight[0, 0], first.weight[1, 0] = k, -k
        first.weight[2 * H : 2 * H + 3, 0] = SMALL
        second.weight[2 * H + 2 : 3 * H, 2] = 1.0  # the candidates: g
        per_unit = 2 / (SMALL * k)  # the mean square for each unit of the cells' difference
        second.bias[3 * H + 2 :] = 3.0
        second.weight[3 * H + 2 :, 0] = -3 * per_unit / thresholds
        second.weight[3 * H + 2 :, 1] = 3 * per_unit / thresholds
        seen = torch.logspace(-3, 2.6, 400, dtype=torch.float64) * bound**2 / coordinates
        wanted = (bound / (seen * coordinates).sqrt()).clamp(max=1.0)
        share = gates(seen) / wanted[:, None]  # relative errors are what counts
        parts = torch.linalg.pinv(share, rtol=1e-5) @ torch.ones(400, dtype=torch.float64)
        rule.readout_weight[2:] = parts * -rate / SMALL
    return rule


def test_they_can_express_clipping_by_the_l2_norm() -> None:
    """Against torch.nn.utils.clip_grad_norm_ and torch's SGD, from a twentieth of the bound to twenty times as much,
    two tasks side by side with norms of their own."""
    bound, rate, n = 2.0, 0.1, 12
    rule = clipping(bound, rate, n)
    norms = [bound * 10**power for power in torch.linspace(-1.3, 1.3, 14).tolist()]
    for own, other in zip(norms, reversed(norms), strict=True):
        gradients, expected = [], []
        for number, norm in enumerate((own, other)):
            drawn = torch.randn(n, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
            theta = torch.zeros(n, dtype=torch.float64, requires_grad=True)
            theta.grad = drawn * norm / drawn.norm()
            gradients.append(theta.grad.clone())
            nn.utils.clip_grad_norm_([theta], bound)
            torch.optim.SGD([theta], lr=rate).step()
            expected.append(theta.detach())
        state = rule.initial_state(2 * n, dtype=torch.float64)
        update, _ = rule(torch.cat(gradients), state, Segments((n - 2, 2), count=2))
        for found, wanted in zip(update.detach().split(n), expected, strict=True):
            assert float(found.norm() / wanted.norm()) == pytest.approx(1, abs=0.05)
            assert float(torch.cosine_similarity(found, wanted, dim=0)) == pytest.approx(1, abs=1e-3)


def test_no_kernel_runs_them_and_torch_does() -> None:
    rule = make_rule(averaging=3).float()
    refusal = native_kernel(rule)
    assert isinstance(refusal, Refusal)
    assert "averaging" in refusal.reason
    assert isinstance(backend_for(rule, torch.float32, torch.device("cpu")), TorchBackend)


def test_a_task_has_its_own_means_and_what_never_had_a_gradient_stays() -> None:
    rule = make_rule(averaging=4)
    gradient = torch.randn(10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    gradient[2] = 0.0
    rule.requires_grad_(False)
    two = rule(gradient, rule.initial_state(10, dtype=torch.float64), Segments((5,), count=2))
    one = rule(gradient[:5], rule.initial_state(5, dtype=torch.float64))
    torch.testing.assert_close(two[0][:5], one[0])
    louder = rule(gradient * 3, rule.initial_state(10, dtype=torch.float64))[0]
    assert not torch.allclose(louder[:5], rule(gradient[:5] * 3, rule.initial_state(5, dtype=torch.float64))[0])
    assert float(two[0][2]) == 0.0
    assert all(float(tensor[2].abs().sum()) == 0.0 for tensor in two[1])


def test_a_loop_of_users_runs_them() -> None:
    """All parameters of a group are one task: their means are shared."""
    rule = make_rule(averaging=4, input="raw").float()
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 4)]
    optimizer = LearnedOptimizer(parameters, loads(dumps(rule)))
    state = rule.initial_state(7)
    for gradient in torch.randn(3, 7, generator=torch.Generator().manual_seed(5)):
        for parameter, own in zip(parameters, gradient.split([3, 4]), strict=True):
            parameter.grad = own.clone()
        before = torch.cat([parameter.detach() for parameter in parameters])
        optimizer.step()
        update, state = rule(gradient, state)
        torch.testing.assert_close(torch.cat([p.detach() for p in parameters]) - before, update.detach())


def test_a_file_from_before_there_were_any_has_none_and_too_many_are_refused() -> None:
    assert b"averaging" not in dumps(make_rule())
    assert loads(dumps(make_rule())).config()["averaging"] == 0
    assert loads(dumps(make_rule(averaging=2))).config()["averaging"] == 2
    with pytest.raises(UnknownRule, match="a layer has hidden_size 6 cells; send 6 at most"):
        LSTMConfig(hidden_size=6, averaging=7)
