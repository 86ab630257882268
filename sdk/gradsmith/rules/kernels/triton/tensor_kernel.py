"""`TritonTensorKernel`: the step of a hyper rule on a CUDA device, in float32, as three Triton programs.

Triton is imported with this module; `choose.triton_tensor_kernel` does so only where it is wanted.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import torch
from torch import Tensor

from gradsmith.rules.base import Rule
from gradsmith.rules.clock import HORIZONS
from gradsmith.rules.hyper import HyperRule
from gradsmith.rules.kernels.triton import hyper
from gradsmith.rules.kernels.triton.tensors import MOST_HIDDEN, Places

WIDTH = 5
"""Numbers of state a coordinate: three means, the squares, the last update."""

_TIME_AT = 7  # the place of the first feature of time
_LANES = 1024  # blocks of which a program adds up the sums at once


@final
class TritonTensorKernel:
    """Steps of hyper rules of one configuration; made by `choose.triton_tensor_kernel`.

    Three launches for all tensors of an axis, and no wait for the device. No atomics: the same step gives the same bits
    on the same kind of card. Records nothing for autograd. With TRITON_INTERPRET=1 in the environment before Triton's
    import it works on the CPU, slowly, for tests.

    block: coordinates that a program moves together, a power of two from 16
    """

    def __init__(self, rule: HyperRule, device: torch.device, *, block: int = 2048) -> None:
        if rule.settings.hidden_size > MOST_HIDDEN:
            raise ValueError(f"the Triton programs cannot run {rule.config()}; use torch")
        self.config = rule.config()
        self.device = device
        self.block = block
        self.numbers = 6 + rule.settings.knows_steps
        self._scale = rule.settings.output_scale
        self._count = sum(parameter.numel() for parameter in rule.parameters())
        steps = [1.0] * _TIME_AT + list(HORIZONS)
        self._horizons = torch.tensor(steps + [1.0] * (16 - len(steps)), dtype=torch.float32, device=device)
        self.network: dict[str, Any] = {
            "H": rule.settings.hidden_size,
            "PADDED": max(16, 1 << (rule.settings.hidden_size - 1).bit_length()),
            "LAYERS": rule.settings.layers,
            "FRACTION": int(rule.settings.knows_steps),
            "BLOCK": block,
            "LANES": _LANES,
            "num_warps": 4,
        }

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
        """The memory of coordinates before the first step: zeros, (WIDTH, stride)."""
        return torch.zeros(WIDTH, places.stride, dtype=torch.float32, device=self.device)

    def step(
        self, weights: Tensor, places: Places, moving: Tensor, state: Tensor, numbers: Tensor, *, aligned: bool = False
    ) -> None:
        """One inner step in place: parameters += factor * update, and both memories move on.

        moving: see `tensors.Moving`; aligned: all addresses in it are multiples of 16 bytes
        numbers: (tensors, 6 or 7), what the rule remembers of tensors
        """
        self._require("weights", weights, (self._count,), torch.float32)
        self._require("moving", moving, (places.tensors, 3), torch.int64)
        self._require("state", state, (WIDTH, places.stride), torch.float32)
        self._require("numbers", numbers, (places.tensors, self.numbers), torch.float32)
        if places.blocks == 0:
            return
        sums = torch.empty(7, places.blocks, dtype=torch.float32, device=self.device)
        coefficients = torch.empty(places.tensors, 8, dtype=torch.float32, device=self.device)
        blocks, table = places.of_blocks, places.table
        wide = {"BLOCK": self.block, "ALIGNED": aligned, "num_warps": 8}
        with self._on_device():
            hyper.look[(places.blocks,)](blocks, table, moving, state, sums, places.stride, **wide)
            hyper.decide[(places.tensors,)](
                *(weights, self._horizons, table, moving, sums, numbers, coefficients, places.blocks, self._scale),
                **self.network,
            )
            hyper.move[(places.blocks,)](blocks, table, moving, state, coefficients, places.stride, **wide)

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
