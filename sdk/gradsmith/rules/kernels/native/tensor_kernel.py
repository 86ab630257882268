"""`TensorKernel`: the step of a rule that looks at tensors, and the way back through it, compiled, on the CPU."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple, final

import torch
from torch import Tensor

from gradsmith.rules.base import Rule, Segments, State
from gradsmith.rules.chosen import Chosen
from gradsmith.rules.hyper import HyperRule
from gradsmith.rules.kernels.native.pointers import require
from gradsmith.rules.kernels.native.targets import Target
from gradsmith.rules.kernels.native.tensor_library import TensorLibrary
from gradsmith.rules.kernels.tensor_truth import KernelRule
from gradsmith.rules.shapes import matrix

LONGEST_SHORT_SIDE = 128
"""Muon's direction of matrices whose shorter side is longer is left to torch, whose libraries multiply large matrices
faster."""


class Layout(NamedTuple):
    """How many numbers a rule remembers of a coordinate, by kind, and of a tensor."""

    means: int
    squares: int
    last: bool
    numbers: int

    @classmethod
    def of(cls, rule: KernelRule) -> Layout:
        if isinstance(rule, HyperRule):
            return cls(3, 1, True, 6 + rule.settings.knows_steps)
        own = rule.features.combination
        return cls(len(own.means), len(own.squares), own.last, own.numbers)


@final
class TensorKernel:
    """Steps of rules of one configuration; made by `choose.tensor_kernel`.

    The state is the rule's own, feature-major: means, squares and where it has one the last update, (coordinates, n) of
    which the transposes are contiguous, and (tensors, numbers); steps move it in place. Works on float32 tensors of the
    CPU only and records nothing for autograd. Results have the same bits for any number of threads.

    target: the instruction set it was compiled for; threads: may be set at any time
    """

    def __init__(self, rule: KernelRule, loaded: TensorLibrary, target: Target, *, threads: int = 1) -> None:
        self.config = rule.config()
        self.layout = Layout.of(rule)
        self.target = target
        self.threads = threads
        self.library = loaded
        self._count = sum(parameter.numel() for parameter in rule.parameters())
        self._hidden, self._layers = rule.settings.hidden_size, rule.settings.layers
        self._scale = rule.settings.output_scale
        muon = isinstance(rule, HyperRule) and rule.settings.direction == "muon"
        self._each = 3 if muon else 1  # numbers that `sizes` has of a tensor
        compiled = int(loaded.weights(self._hidden, self._layers))
        if compiled != self._count:
            raise ValueError(f"this kernel was compiled for {compiled} weights, and {self.config} has {self._count}")

    def suits(self, shapes: Iterable[Sequence[int]]) -> bool:
        """Whether it is the fastest for tensors of these shapes."""
        return self._each == 1 or all(min(matrix(shape) or (0,)) <= LONGEST_SHORT_SIDE for shape in shapes)

    def weights(self, rule: Rule) -> Tensor:
        """The rule's present weights as the other methods want them; to be made again after each change of them.

        Raises ValueError when the rule is not of this kernel's configuration.
        """
        if rule.config() != self.config:
            raise ValueError(f"this kernel is for {self.config}, not for {rule.config()}; make one for that rule")
        return torch.cat([parameter.detach().reshape(-1) for parameter in rule.parameters()]).to("cpu", torch.float32)

    def sizes(self, segments: Segments) -> array[int]:
        """The sizes of all tensors of all tasks, as `step` and `back` want them. For a rule with Muon's direction, each
        with its rows and columns, which are 0 where a tensor is no matrix."""
        if self._each == 1:
            return array("q", segments.sizes * segments.count)
        shapes = {place: shape for shape, places in segments.matrices.items() for place in places}
        told = [(size, *shapes.get(place, (0, 0))) for place, size in enumerate(segments.sizes)]
        return array("q", [number for _ in range(segments.count) for tensor in told for number in tensor])

    def record(self, coordinates: int, tensors: int) -> Tensor:
        """Room for what one step leaves for the way back."""
        return torch.empty(self.record_floats(coordinates, tensors), dtype=torch.float32, device="cpu")

    def record_floats(self, coordinates: int, tensors: int) -> int:
        """How many numbers a record has."""
        return int(self.library.record_floats(coordinates, tensors, self._hidden, self._layers))

    @property
    def samples(self) -> bool:
        """Whether it has `back_sampled`: the rule's network runs for each coordinate."""
        return self.library.back_sampled is not None

    def outputs(self, coordinates: int, tensors: int) -> Tensor:
        """Room for the outputs of one step's networks."""
        return torch.empty(self.outputs_floats(coordinates, tensors), dtype=torch.float32, device="cpu")

    def outputs_floats(self, coordinates: int, tensors: int) -> int:
        """How many numbers those are; 0 where the network runs once for each tensor."""
        of = self.library.outputs_floats
        return 0 if of is None else int(of(coordinates, tensors))

    def step(
        self,
        weights: Tensor,
        sizes: array[int],
        theta: Tensor,
        gradient: Tensor,
        state: State,
        record: Tensor | None = None,
        outputs: Tensor | None = None,
    ) -> None:
        """One inner step: theta += update, and the state moves on, both in place. theta, gradient: (coordinates,).

        record: where it leaves what `back` needs; outputs: where what `back_sampled` needs beside it
        """
        self._require_state(state, theta, len(sizes) // self._each)
        self._require_axis(sizes, theta.shape[0], record, outputs)
        require("gradient", gradient, theta.shape)
        gradient = gradient.contiguous()
        failed = self.library.step_tasks(
            *self._rule(weights, sizes),
            *(gradient.data_ptr(), theta.data_ptr(), *self._memory(state)),
            *(0 if record is None else record.data_ptr(), 0 if outputs is None else outputs.data_ptr(), self.threads),
        )
        if failed:
            raise MemoryError("the native kernel could not get its working memory for a step")
        torch.autograd.graph.increment_version((theta, *state))

    def step_tensors(
        self,
        weights: Tensor,
        sizes: array[int],
        gradients: int,
        values: int,
        rates: int,
        state: State,
        threads: int,
    ) -> None:
        """One step of tensors that lie anywhere, in place; their memory lies one after another.

        gradients, values: addresses of an address for each tensor, where 0 stands for one that rests
        rates: address of a float32 factor on each tensor's update
        """
        failed = self.library.step(
            *self._rule(weights, sizes),
            *(gradients, values, rates, *self._memory(state), 0, 0, threads),
        )
        if failed:
            raise MemoryError("the native kernel could not get its working memory for a step; free some memory")

    def back(
        self,
        weights: Tensor,
        sizes: array[int],
        record: Tensor,
        worth: Tensor,
        worths: Tensor,
        total: Tensor,
        *,
        gradient: bool = True,
    ) -> Tensor | None:
        """Back through a recorded step: dL / d(gradient), (coordinates,), or None where it is not wanted.

        worth: dL / d(update), (coordinates,)
        worths: (means, coordinates), dL / d(means) after the step, which becomes that before it
        total: (weights,) float64, to which dL / d(weights) is added, in the order of `rule.parameters()`
        """
        require("total", total, (self._count,), torch.float64)
        self._require_axis(sizes, worth.shape[0], record)
        require("worth", worth, worth.shape)
        worth = worth.contiguous()
        q = torch.empty_like(worth) if gradient else None
        if gradient:
            require("worths", worths, (self.layout.means, *worth.shape), contiguous=True)
        failed = self.library.back(
            *self._rule(weights, sizes),
            *(record.data_ptr(), worth.data_ptr(), worths.data_ptr(), 0 if q is None else q.data_ptr()),
            *(total.data_ptr(), self.threads),
        )
        if failed:
            raise MemoryError("the native kernel could not get its working memory for a gradient")
        return q

    def back_sampled(
        self,
        weights: Tensor,
        sizes: array[int],
        left: tuple[Tensor, Tensor],
        worth: Tensor,
        worths: Tensor,
        total: Tensor,
        chosen: Chosen,
        *,
        gradient: bool = True,
    ) -> Tensor | None:
        """`back` of a rule that runs for each coordinate, where its weights learn from chosen ones alone. All have a
        dL / d(gradient), and no network is run for it.

        left: the record and the outputs that the step left
        """
        assert self.library.back_sampled is not None, "see `samples`"
        record, outputs = left
        require("total", total, (self._count,), torch.float64)
        self._require_axis(sizes, worth.shape[0], record, outputs)
        require("worth", worth, worth.shape)
        places = chosen.places.contiguous()
        counts = chosen.weights.to(torch.float32).contiguous()
        require("places", places, counts.shape, torch.int64)
        ends = torch.tensor((0, *accumulate(sizes)), device="cpu")
        if len(places) and not (places[0] >= 0 and places[-1] < ends[-1] and (places.diff() > 0).all()):
            raise ValueError(f"places must rise within the {int(ends[-1])} coordinates")
        worth = worth.contiguous()
        q = torch.empty_like(worth) if gradient else None
        if gradient:
            require("worths", worths, (self.layout.means, *worth.shape), contiguous=True)
        chosen_of = torch.searchsorted(places, ends).diff().contiguous()
        failed = self.library.back_sampled(
            *self._rule(weights, sizes),
            *(record.data_ptr(), outputs.data_ptr(), worth.data_ptr(), worths.data_ptr()),
            *(0 if q is None else q.data_ptr(), chosen_of.data_ptr(), places.data_ptr(), counts.data_ptr()),
            *(total.data_ptr(), self.threads),
        )
        if failed:
            raise MemoryError("the native kernel could not get its working memory for a gradient")
        return q

    def _memory(self, state: State) -> tuple[int, ...]:
        """The addresses of means, squares, last update (0 where there is none) and the tensors' numbers."""
        means, squares, *last, numbers = (tensor.data_ptr() for tensor in state)
        return means, squares, last[0] if last else 0, numbers

    def _rule(self, weights: Tensor, sizes: array[int]) -> tuple[int, int, int, float, int, int]:
        require("weights", weights, (self._count,))
        return (
            weights.data_ptr(),
            self._hidden,
            self._layers,
            self._scale,
            len(sizes) // self._each,
            sizes.buffer_info()[0],
        )

    def _require_axis(
        self, sizes: array[int], coordinates: int, record: Tensor | None, outputs: Tensor | None = None
    ) -> None:
        together, tensors = sum(sizes[:: self._each]), len(sizes) // self._each
        if together != coordinates:
            raise ValueError(f"the tensors have {together} coordinates together, and theta has {coordinates}")
        if record is not None:
            require("record", record, (self.record_floats(coordinates, tensors),), contiguous=True)
        if outputs is not None:
            require("outputs", outputs, (self.outputs_floats(coordinates, tensors),), contiguous=True)

    def _require_state(self, state: State, theta: Tensor, tensors: int) -> None:
        (coordinates,) = theta.shape
        require("theta", theta, (coordinates,), contiguous=True)
        widths = {"means": self.layout.means, "squares": self.layout.squares, "last": int(self.layout.last)}
        wide = {name: width for name, width in widths.items() if width}
        for (name, width), tensor in zip(wide.items(), state, strict=False):
            require(name, tensor.t(), (width, coordinates), contiguous=True)
        require("numbers", state[len(wide)], (tensors, self.layout.numbers), contiguous=True)
