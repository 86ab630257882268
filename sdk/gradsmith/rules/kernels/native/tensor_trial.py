"""A kernel of rules that look at tensors is tried against the rule before it is handed out."""

from __future__ import annotations

import torch
from torch import Tensor

from gradsmith.rules.base import Segments
from gradsmith.rules.kernels.native.tensor_kernel import TensorKernel
from gradsmith.rules.kernels.tensor_truth import PLANNED, KernelRule, by_autograd, drawn

SEGMENTS = Segments((36, 3, 28), 2, shapes=((9, 4), (3,), (4, 7)))
_STEPS = 3


def worst_error(kernel: TensorKernel, rule: KernelRule) -> float:
    """The largest of three errors of a window of steps, theta's and those of both gradients, against a rule of the same
    configuration in float64: largest difference over largest value. NaN when the kernel gives NaN."""
    # The caller may be within autocast or under another default device: neither changes what is right.
    with torch.enable_grad(), torch.autocast("cpu", enabled=False), torch.device("cpu"):
        truth = drawn(rule, 0)
        generator = torch.Generator("cpu").manual_seed(1)
        G, D = torch.randn(2, _STEPS, SEGMENTS.coordinates, generator=generator, dtype=torch.float32)
        expected = by_autograd(truth, SEGMENTS, G.double(), D.double())
        found = by_kernel(kernel, truth, SEGMENTS, G, D)
    return max(
        ((one.double() - other).abs().max() / other.abs().max()).item()
        for one, other in zip(found, expected, strict=True)
    )


def by_kernel(
    kernel: TensorKernel, rule: KernelRule, segments: Segments, G: Tensor, D: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same in float32, by the kernel."""
    weights, sizes = kernel.weights(rule), kernel.sizes(segments)
    state = rule.plan(rule.initial_state(segments.coordinates, tensors=segments.rows, dtype=torch.float32), PLANNED)
    theta, records = torch.zeros_like(G[0]), []
    for gradient in G:
        records.append(kernel.record(segments.coordinates, segments.rows))
        kernel.step(weights, sizes, theta, gradient, state, records[-1])
    total = torch.zeros(weights.shape, dtype=torch.float64)
    worths, of_gradients = torch.zeros(kernel.layout.means, segments.coordinates), torch.empty_like(G)
    for t in reversed(range(len(G))):
        q = kernel.back(weights, sizes, records[t], D[t], worths, total)
        assert q is not None
        of_gradients[t] = q
    return theta, of_gradients, total
