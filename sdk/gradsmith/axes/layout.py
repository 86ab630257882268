"""`Layout`: which axis each of an optimizer's parameters lies on."""

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
from gradsmith.rules import LSTMRule, Rule
from gradsmith.rules.kernels.native import native_kernel

logger = logging.getLogger(__name__)

MEMORY = "memory"
"""Where a parameter's entry in the optimizer's state holds its place on an axis, or the tensors of its memory."""

OptimizerState = dict[Tensor, Any]


@final
class Layout:
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

    def home(self, parameter: Tensor, group: int) -> Home:
        """Coordinates of different groups meet in one call only when the rule does not let them see each other."""
        double = parameter.dtype == torch.float64
        bucket = 0 if self._rule.coordinatewise else group
        return Home(bucket, parameter.device, torch.float64 if double else torch.float32)

    def stored_in(self, computes_in: torch.dtype) -> torch.dtype:
        """The precision of the memory of a rule that computes in this one."""
        return torch.bfloat16 if self._stored_in == torch.bfloat16 else computes_in

    def axes(self, moving: list[tuple[Home, Tensor]], state: OptimizerState) -> dict[Axis, list[Tensor | None]]:
        """Each axis with those of its parameters that move; the others are None.

        Raises StateMismatch when a parameter has another size than its memory.
        """
        axes: dict[Axis, list[Tensor | None]] = {}
        homeless: dict[Home, list[Tensor]] = {}
        for home, parameter in moving:
            place = state[parameter].get(MEMORY)
            if not isinstance(place, Place) or place.axis.home != home:
                homeless.setdefault(home, []).append(parameter)
                continue
            _require_size(parameter, place.axis.sizes[place.number])
            row = axes.get(place.axis)
            if row is None:
                row = axes[place.axis] = [None] * len(place.axis.sizes)
            if row[place.number] is None:
                row[place.number] = parameter
            elif row[place.number] is not parameter:  # somebody gave it another parameter's memory
                homeless.setdefault(home, []).append(parameter)
        if homeless and not self._rule.coordinatewise:  # all coordinates of a home must meet in one call
            axes = {axis: row for axis, row in axes.items() if axis.home not in homeless}
            for home in homeless:
                homeless[home] = [parameter for other, parameter in moving if other == home]
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
        stored_in = self.stored_in(home.computes_in)
        if home.device.type == "cpu" and home.computes_in == torch.float32:
            prepared = self._kernel()
            if prepared is not None:
                return NativeAxis(home, stored_in, sizes, prepared, self._threads)
        return TorchAxis(home, stored_in, sizes, self._rule_on(home.device, home.computes_in))

    def _kernel(self) -> Prepared | None:
        """The compiled kernel with the rule's weights, if there is one. Asked for once and when first needed, for the
        machine may have to compile it."""
        if not self._looked_for_kernel and isinstance(self._rule, LSTMRule):
            kernel = native_kernel(self._rule)
            if kernel is not None:
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


def _require_size(parameter: Tensor, coordinates: int) -> None:
    if parameter.numel() != coordinates:
        raise StateMismatch(
            f"a parameter of shape {tuple(parameter.shape)} has memory for {coordinates} coordinates: its data was "
            f"replaced by another size in mid-training. Drop the memory with `del optimizer.state[parameter]`, and it "
            f"begins anew"
        )
