"""The Triton programs of rules that look at tensors are tried against the rule before they are handed out."""

from __future__ import annotations

import torch

from gradsmith.rules.base import Segments
from gradsmith.rules.kernels.tensor_truth import PLANNED, KernelRule, by_autograd, drawn
from gradsmith.rules.kernels.triton.tensor_kernel import TritonTensorKernel
from gradsmith.rules.kernels.triton.tensors import Moving

_STEPS = 3


def worst_error(kernel: TritonTensorKernel, rule: KernelRule) -> float:
    """The error of theta after some steps of a whole block and more, and of a tensor of 3, against a rule of the same
    configuration in float64: largest difference over largest value. NaN when the kernel gives NaN."""
    sizes = (kernel.block + 5, 3)
    # The caller may be within autocast or under another default device: neither changes what is right.
    with torch.enable_grad(), torch.autocast("cpu", enabled=False), torch.device("cpu"):
        truth = drawn(rule, 0)
        G = torch.randn(_STEPS, sum(sizes), generator=torch.Generator("cpu").manual_seed(1), dtype=torch.float32)
        expected, _, _ = by_autograd(truth, Segments(sizes), G.double(), G.double())
        numbers = truth.plan(truth.initial_state(0, tensors=len(sizes)), PLANNED)[-1].to(kernel.device)
    weights, places = kernel.weights(truth), kernel.places(sizes)
    state, moving = kernel.state(places), Moving(len(sizes), kernel.device)
    theta = torch.zeros(sum(sizes), dtype=torch.float32, device=kernel.device)
    for gradient in G.to(kernel.device):
        gradients, parameters = (
            [piece.data_ptr() for piece in torch.split(axis, list(sizes))] for axis in (gradient, theta)
        )
        kernel.step(weights, places, moving.table(gradients, parameters, [1.0] * len(sizes)), state, numbers)
    return ((theta.cpu().double() - expected).abs().max() / expected.abs().max()).item()
