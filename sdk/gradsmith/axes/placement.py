"""`Placement`: which axis each of an optimizer's parameters lies on."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from gradsmith.axes.base import Axis, Home, Place
from gradsmith.axes.native import NativeAxis, Prepared, agrees_with_torch
from gradsmith.axes.plain_torch import TorchAxis
from gradsmith.axes.tensors import TensorAxis
from gradsmith.axes.triton import TritonAxis
from gradsmith.errors import StateMismatch
from gradsmith.rules import Rule
from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import native_kernel, tensor_kernel
from gradsmith.rules.kernels.triton import triton_tensor_kernel

logger = logging.getLogger(__name__)

MEMORY = "memory"
"""Where a parameter's entry in the optimizer's state holds its place on an axis, or the tensors of its memory."""

OptimizerState = dict[Tensor, Any]


@final
class Placement:
    """Finds each parameter's axis by its `Place` in the optimizer's state, and makes axes for those without one.

    Nothing else is remembered: the state alone says where a memory is, so it may be cleared, loaded or replaced.

    rules: not changed; their weights must stay as they are
    stored_in: float32 or bfloat16, the precision of memory between steps; float32 is float64 for a rule that runs in it
    threads: of the compiled kernel; None: as many as torch uses
    steps: how many there will be; None: not known
    """

    def __init__(
        self, rules: Sequence[Rule], stored_in: torch.dtype, threads: int | None, steps: int | None = None
    ) -> None:
        self._rules = tuple(rules)
        self._stored_in = stored_in
        self._threads = threads
        self._steps = steps
        self._adopted: dict[tuple[int, torch.device, torch.dtype], Rule] = {}
        self._prepared: dict[int, Prepared | None] = {}

    def stored_in(self, parameter: Tensor) -> torch.dtype:
        """The precision of the parameter's memory."""
        return self._stored_in if self._stored_in == torch.bfloat16 else _computes_in(parameter)

    def axes(self, moving: list[tuple[int, int, Tensor]], state: OptimizerState) -> dict[Axis, list[Tensor | None]]:
        """Each axis with those of its parameters that move; the others are None.

        moving: parameters, each with the places of its rule and of its group
        Raises StateMismatch when a parameter has another size than its memory.
        """
        whole = [not rule.coordinatewise for rule in self._rules]
        apart = [not (rule.coordinatewise or rule.across_groups) for rule in self._rules]  # groups must not meet
        axes: dict[Axis, list[Tensor | None]] = {}
        homeless: dict[Home, list[Tensor]] = {}
        for rule, group, parameter in moving:
            bucket = group if apart[rule] else 0
            place = state[parameter].get(MEMORY)
            if isinstance(place, Place) and place.axis.home.suits(parameter, bucket, rule):
                axis, number = place.axis, place.number
                _require_size(parameter, axis.sizes[number])
                row = axes.get(axis)
                if row is None:
                    row = axes[axis] = [None] * len(axis.sizes)
                if row[number] is None or row[number] is parameter:
                    row[number] = parameter
                    continue
                # Somebody gave it the memory of another parameter.
            homeless.setdefault(Home(bucket, parameter.device, _computes_in(parameter), rule), []).append(parameter)
        for home in homeless:
            if whole[home.rule]:  # all coordinates of a home must meet in one call
                axes = {axis: row for axis, row in axes.items() if axis.home != home}
                homeless[home] = [
                    parameter
                    for rule, group, parameter in moving
                    if home.suits(parameter, group if apart[rule] else 0, rule)
                ]
        for home, parameters in homeless.items():
            unique = list(dict.fromkeys(parameters))
            axes[self._new_axis(home, unique, state)] = list(unique)
        return axes

    def _new_axis(self, home: Home, parameters: list[Tensor], state: OptimizerState) -> Axis:
        """An axis for these parameters, which takes over what memory they have."""
        axis = self._empty_axis(home, [tuple(parameter.shape) for parameter in parameters])
        for number, parameter in enumerate(parameters):
            memory = tuple(state[parameter].get(MEMORY) or ())
            if memory:
                rule = self._rules[home.rule]
                if len(memory) > rule.of_tensors + rule.of_sides:  # else it remembers nothing of coordinates
                    _require_size(parameter, memory[0].shape[0])
                axis.write(number, memory)
            state[parameter][MEMORY] = Place(axis, number)
        return axis

    def _empty_axis(self, home: Home, shapes: list[tuple[int, ...]]) -> Axis:
        sizes = [math.prod(shape) for shape in shapes]
        stored_in = self._stored_in if self._stored_in == torch.bfloat16 else home.computes_in
        if home.device.type == "cpu" and home.computes_in == torch.float32:
            rule = self._rules[home.rule]
            kernel = tensor_kernel(rule) if stored_in == torch.float32 else Refusal("its memory is float32")
            if not isinstance(kernel, Refusal) and kernel.suits(shapes):
                return TensorAxis(home, sizes, rule, kernel, self._threads, self._steps, shapes)
            prepared = self._kernel(home.rule)
            if prepared is not None:
                return NativeAxis(home, stored_in, sizes, prepared, self._threads)
        if home.device.type == "cuda" and stored_in == torch.float32:
            rule = self._rules[home.rule]
            program = triton_tensor_kernel(rule, home.device)
            if not isinstance(program, Refusal):
                return TritonAxis(home, sizes, rule, program, self._steps)
        own = self._rule_on(home.rule, home.device, home.computes_in)
        return TorchAxis(home, stored_in, sizes, own, self._steps, shapes)

    def _kernel(self, number: int) -> Prepared | None:
        """The compiled kernel with a rule's weights, if there is one. Asked for once and when first needed, for the
        machine may have to compile it."""
        if number not in self._prepared:
            self._prepared[number] = self._tried_kernel(number)
        return self._prepared[number]

    def _tried_kernel(self, number: int) -> Prepared | None:
        rule = self._rules[number]
        kernel = native_kernel(rule)
        if isinstance(kernel, Refusal):
            return None
        prepared = Prepared(kernel, kernel.weights(rule))
        if agrees_with_torch(prepared, self._rule_on(number, torch.device("cpu"), torch.float32)):
            return prepared
        logger.warning(
            "The compiled %s kernel steps wrongly on this CPU; steps run through torch, more slowly. Set CXX to "
            "another compiler, or GRADSMITH_NATIVE to a lower instruction set",
            kernel.target.name,
        )
        return None

    def _rule_on(self, number: int, device: torch.device, dtype: torch.dtype) -> Rule:
        key = (number, device, dtype)
        if key not in self._adopted:
            self._adopted[key] = copy.deepcopy(self._rules[number]).to(device=device, dtype=dtype)
        return self._adopted[key]


def _computes_in(parameter: Tensor) -> torch.dtype:
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32


def _require_size(parameter: Tensor, coordinates: int) -> None:
    if parameter.numel() != coordinates:
        raise StateMismatch(
            f"a parameter of shape {tuple(parameter.shape)} has memory for {coordinates} coordinates: its data was "
            f"replaced by another size in mid-training. Drop the memory with `del optimizer.state[parameter]`, and it "
            f"begins anew"
        )
