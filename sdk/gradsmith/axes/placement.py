"""`Placement`: which axis each of an optimizer's parameters lies on."""

from __future__ import annotations

import copy
import logging
from typing import Any, final

import torch
from torch import Tensor

from gradsmith.axes.base import Axis, Home, Place
from gradsmith.axes.native import NativeAxis, Prepared, agrees_with_torch
from gradsmith.axes.plain_torch import TorchAxis
from gradsmith.errors import StateMismatch
from gradsmith.rules import Rule
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import native_kernel

logger = logging.getLogger(__name__)

MEMORY = "memory"
"""Where a parameter's entry in the optimizer's state holds its place on an axis, or the tensors of its memory."""

OptimizerState = dict[Tensor, Any]


@final
class Placement:
    """Finds each parameter's axis by its `Place` in the optimizer's state, and makes axes for those without one.

    Nothing else is remembered: the state alone says where a memory is, so it may be cleared, loaded or replaced.

    rule: not changed; its weights must stay as they are
    stored_in: float32 or bfloat16, the precision of memory between steps; float32 is float64 for a rule that runs in it
    threads: of the compiled kernel; None: as many as torch uses
    """

    def __init__(self, rule: Rule, stored_in: torch.dtype, threads: int | None) -> None:
        self._rule = rule
        self._stored_in = stored_in
        self._threads = threads
        self._adopted: dict[tuple[torch.device, torch.dtype], Rule] = {}
        self._prepared: Prepared | None = None
        self._looked_for_kernel = False

    def stored_in(self, parameter: Tensor) -> torch.dtype:
        """The precision of the parameter's memory."""
        return self._stored_in if self._stored_in == torch.bfloat16 else _computes_in(parameter)

    def axes(self, moving: list[tuple[int, Tensor]], state: OptimizerState) -> dict[Axis, list[Tensor | None]]:
        """Each axis with those of its parameters that move; the others are None.

        moving: parameters, each with the number of its group
        Raises StateMismatch when a parameter has another size than its memory.
        """
        apart = not self._rule.coordinatewise  # then coordinates of different groups must not meet
        axes: dict[Axis, list[Tensor | None]] = {}
        homeless: dict[Home, list[Tensor]] = {}
        for group, parameter in moving:
            bucket = group if apart else 0
            place = state[parameter].get(MEMORY)
            if isinstance(place, Place) and place.axis.home.suits(parameter, bucket):
                axis, number = place.axis, place.number
                _require_size(parameter, axis.sizes[number])
                row = axes.get(axis)
                if row is None:
                    row = axes[axis] = [None] * len(axis.sizes)
                if row[number] is None or row[number] is parameter:
                    row[number] = parameter
                    continue
                # Somebody gave it the memory of another parameter.
            homeless.setdefault(Home(bucket, parameter.device, _computes_in(parameter)), []).append(parameter)
        if homeless and apart:  # all coordinates of a home must meet in one call
            axes = {axis: row for axis, row in axes.items() if axis.home not in homeless}
            for home in homeless:
                homeless[home] = [parameter for group, parameter in moving if home.suits(parameter, group)]
        for home, parameters in homeless.items():
            unique = list(dict.fromkeys(parameters))
            axes[self._new_axis(home, unique, state)] = list(unique)
        return axes

    def _new_axis(self, home: Home, parameters: list[Tensor], state: OptimizerState) -> Axis:
        """An axis for these parameters, which takes over what memory they have."""
        axis = self._empty_axis(home, [parameter.numel() for parameter in parameters])
        for number, parameter in enumerate(parameters):
            memory = tuple(state[parameter].get(MEMORY) or ())
            if memory:
                _require_size(parameter, memory[0].shape[0])
                axis.write(number, memory)
            state[parameter][MEMORY] = Place(axis, number)
        return axis

    def _empty_axis(self, home: Home, sizes: list[int]) -> Axis:
        stored_in = self._stored_in if self._stored_in == torch.bfloat16 else home.computes_in
        if home.device.type == "cpu" and home.computes_in == torch.float32:
            prepared = self._kernel()
            if prepared is not None:
                return NativeAxis(home, stored_in, sizes, prepared, self._threads)
        return TorchAxis(home, stored_in, sizes, self._rule_on(home.device, home.computes_in))

    def _kernel(self) -> Prepared | None:
        """The compiled kernel with the rule's weights, if there is one. Asked for once and when first needed, for the
        machine may have to compile it."""
        if not self._looked_for_kernel:
            kernel = native_kernel(self._rule)
            if not isinstance(kernel, Refusal):
                prepared = Prepared(kernel, kernel.weights(self._rule))
                if agrees_with_torch(prepared, self._rule_on(torch.device("cpu"), torch.float32)):
                    self._prepared = prepared
                else:
                    logger.warning(
                        "The compiled %s kernel steps wrongly on this CPU; steps run through torch, more slowly. Set "
                        "CXX to another compiler, or GRADSMITH_NATIVE to a lower instruction set",
                        kernel.target.name,
                    )
        self._looked_for_kernel = True
        return self._prepared

    def _rule_on(self, device: torch.device, dtype: torch.dtype) -> Rule:
        if (device, dtype) not in self._adopted:
            self._adopted[device, dtype] = copy.deepcopy(self._rule).to(device=device, dtype=dtype)
        return self._adopted[device, dtype]


def _computes_in(parameter: Tensor) -> torch.dtype:
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32


def _require_size(parameter: Tensor, coordinates: int) -> None:
    if parameter.numel() != coordinates:
        raise StateMismatch(
            f"a parameter of shape {tuple(parameter.shape)} has memory for {coordinates} coordinates: its data was "
            f"replaced by another size in mid-training. Drop the memory with `del optimizer.state[parameter]`, and it "
            f"begins anew"
        )
