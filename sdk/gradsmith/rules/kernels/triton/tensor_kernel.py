"""`TritonTensorKernel`: the step of a rule that looks at tensors on a CUDA device, in float32, as three programs.

Triton is imported with this module; `choose.triton_tensor_kernel` does so only where it is wanted.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import torch
from torch import Tensor

from gradsmith.rules.base import Rule
from gradsmith.rules.hyper import HyperRule
from gradsmith.rules.kernels.tensor_truth import KernelRule
from gradsmith.rules.kernels.triton.launches import HyperLaunches, Launches, MLPLaunches, Step
from gradsmith.rules.kernels.triton.tensors import Places, refused


@final
class TritonTensorKernel:
    """Steps of hyper and mlp rules of one configuration; made by `choose.triton_tensor_kernel`.

    Three launches for all tensors of an axis, and no wait for the device. No atomics: the same step gives the same bits
    on the same kind of card. Records nothing for autograd. With TRITON_INTERPRET=1 in the environment before Triton's
    import it works on the CPU, slowly, for tests.

    block: coordinates that a program moves together, a power of two from 16; default: 2,048 of hyper rules, 128 of mlp
    rows: of the state, for means, squares and the last update
    """

    def __init__(self, rule: KernelRule, device: torch.device, *, block: int | None = None) -> None:
        problem = refused(rule)
        if problem is not None:
            raise ValueError(f"the Triton programs cannot run {rule.config()}: {problem}. Use torch")
        self.config = rule.config()
        self.device = device
        self.launches: Launches
        if isinstance(rule, HyperRule):
            self.launches = HyperLaunches(rule, device, block)
        else:
            self.launches = MLPLaunches(rule, device, block)
        self.block, self.rows = self.launches.block, self.launches.rows
        self._numbers = rule.initial_state(0, tensors=1, device="meta")[-1].shape[1]
        self._count = sum(parameter.numel() for parameter in rule.parameters())

    def weights(self, rule: Rule) -> Tensor:
        """The rule's present weights as `step` wants them; to be made again after each change of them.

        Raises ValueError when the rule is not of this kernel's configuration.
        """
        if rule.config() != self.config:
            raise ValueError(f"this kernel is for {self.config}, not for {rule.config()}; make one for that rule")
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in rule.parameters()])
        return flat.to(self.device, torch.float32)

    def places(self, sizes: tuple[int, ...]) -> Places:
        """Where tensors of these sizes lie."""
        return Places.of(sizes, self.block, self.device)

    def state(self, places: Places) -> Tensor:
        """The memory of coordinates before the first step: zeros, (rows, stride)."""
        return torch.zeros(sum(self.rows), places.stride, dtype=torch.float32, device=self.device)

    def step(
        self, weights: Tensor, places: Places, moving: Tensor, state: Tensor, numbers: Tensor, *, aligned: bool = False
    ) -> None:
        """One inner step in place: parameters += factor * update, and both memories move on.

        moving: see `tensors.Moving`; aligned: all addresses in it are multiples of 16 bytes
        numbers: (tensors, numbers), what the rule remembers of tensors
        """
        self._require("weights", weights, (self._count,), torch.float32)
        self._require("moving", moving, (places.tensors, 3), torch.int64)
        self._require("state", state, (sum(self.rows), places.stride), torch.float32)
        self._require("numbers", numbers, (places.tensors, self._numbers), torch.float32)
        if places.blocks:
            with self._on_device():
                self.launches.run(Step(weights, places, moving, state, numbers, aligned))

    def _on_device(self) -> AbstractContextManager[Any]:
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def _require(self, name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """The programs trust their pointers: everything is checked here."""
        if tuple(tensor.shape) != shape or tensor.dtype != dtype or tensor.device != self.device:
            raise ValueError(
                f"{name} must be a {dtype} tensor of shape {shape} on {self.device}, not {tensor.dtype} of shape "
                f"{tuple(tensor.shape)} on {tensor.device}"
            )
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, but has strides {tensor.stride()}; it is used in place")
