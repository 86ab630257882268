"""The compiled kernel of small networks: losses and gradients of many tasks, and products with their Hessians."""

from __future__ import annotations

import ctypes
import functools
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, cast, final

import torch
from torch import Tensor

from gradsmith.rules.kernels.base import Refusal
from gradsmith.rules.kernels.native import BuildSettings, Target
from gradsmith.rules.kernels.native.library import NeedsAnotherCPU, Unloadable
from gradsmith.rules.kernels.native.loading import best
from gradsmith.rules.kernels.native.pointers import require
from gradsmith.rules.kernels.sizes import Program
from models.families.mlp.trial import SIZES, worst_error
from models.tasks.images import Images

MOST_UNITS = 128
"""Larger layers are products of matrices that torch's libraries compute as fast."""


Compute = Callable[..., int]


@dataclass(frozen=True)
class NetworksProgram:
    """The kernel of all networks: their shapes are arguments."""

    source: ClassVar[str] = str(Path(__file__).with_name("networks.cpp"))
    bfloat16: ClassVar[bool] = False

    @property
    def defines(self) -> Mapping[str, int]:
        return {}

    def __str__(self) -> str:
        return "networks"


@final
class Networks:
    """Networks of one shape, side by side, in float32 on the CPU. Each task has the bits that it has alone.

    sizes: the number of inputs, of each hidden layer's units, and of classes
    coordinates: of one network
    """

    def __init__(self, compute: Compute, sizes: Sequence[int], *, relu: bool) -> None:
        self._compute, self._relu = compute, int(relu)
        self._sizes = array("q", sizes)
        self.coordinates = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))

    def gradient(self, images: Images, rows: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Each task's mean loss on its minibatch, (tasks,), and its gradient, (coordinates,).

        rows: (tasks, batch) int64, the images of each task's minibatch
        """
        losses, result = theta.new_empty(rows.shape[0]), torch.empty_like(theta)
        self._run(images, rows, theta, None, losses, result)
        return losses, result

    def product(self, images: Images, rows: Tensor, theta: Tensor, v: Tensor) -> Tensor:
        """Each task's Hessian on its minibatch times its part of v: (coordinates,)."""
        result = torch.empty_like(theta)
        self._run(images, rows, theta, v, None, result)
        return result

    def _run(
        self, images: Images, rows: Tensor, theta: Tensor, v: Tensor | None, losses: Tensor | None, result: Tensor
    ) -> None:
        tasks, batch = rows.shape
        coordinates = (tasks * self.coordinates,)
        require("theta", theta, coordinates, contiguous=True)
        if v is not None:
            require("v", v, coordinates, contiguous=True)
        in_bytes = images.pixels.dtype == torch.uint8  # else float32, a table's
        kind = torch.uint8 if in_bytes else torch.float32
        require("pixels", images.pixels, (len(images), self._sizes[0]), kind, contiguous=True)
        pixels = images.pixels.data_ptr()
        require("labels", images.labels, (len(images),), torch.int64, contiguous=True)
        require("rows", rows, (tasks, batch), torch.int64)
        if rows.stride(1) != 1:
            rows = rows.contiguous()
        failed = self._compute(
            *(self._sizes.buffer_info()[0], len(self._sizes) - 1, self._relu, tasks, batch),
            *((pixels, 0) if in_bytes else (0, pixels)),
            *(images.labels.data_ptr(), images.scale, rows.data_ptr(), rows.stride(0)),
            *(theta.data_ptr(), 0 if v is None else v.data_ptr(), 0 if losses is None else losses.data_ptr()),
            *(result.data_ptr(), torch.get_num_threads()),
        )
        if failed:
            raise MemoryError("the native kernel could not get its working memory for a gradient")


def networks(sizes: Sequence[int], *, relu: bool, settings: BuildSettings | None = None) -> Networks | Refusal:
    """The kernel for networks of this shape, or why there is none. settings: default, the environment."""
    settings = BuildSettings.from_environment() if settings is None else settings
    if settings.instructions == "off":
        return Refusal("it is turned off here (GRADSMITH_NATIVE=off)")
    if max(sizes[1:]) > MOST_UNITS:
        return Refusal(f"it runs layers of at most {MOST_UNITS} units")
    found = _best(settings)
    return found if isinstance(found, Refusal) else Networks(found[0], sizes, relu=relu)


@functools.lru_cache(maxsize=8)
def _best(settings: BuildSettings) -> tuple[Compute, Target] | Refusal:
    return best(_Loaded(), settings)


class _Loaded:
    """How the kernel is opened and tried."""

    without = "Networks compute their gradients through torch, more slowly."

    @property
    def program(self) -> Program:
        return NetworksProgram()

    def opened(self, path: Path) -> Compute:
        try:
            loaded = ctypes.CDLL(str(path))
            supported, compute = loaded.gradsmith_supported, loaded.gradsmith_networks
        except (OSError, AttributeError) as error:
            raise Unloadable(f"the compiled kernel {path} does not load ({error})") from error
        if not supported():
            raise NeedsAnotherCPU(f"the compiled kernel {path} needs instructions that this CPU lacks")
        size, pointer = ctypes.c_int64, ctypes.c_void_p
        # sizes, layers, relu, tasks, batch; pixels, numbers, labels, scale, rows, how far apart tasks' are
        shape, data = (pointer, size, size, size, size), (pointer, pointer, pointer, ctypes.c_float, pointer, size)
        # theta, v, losses, result, threads
        compute.argtypes = [*shape, *data, pointer, pointer, pointer, pointer, size]
        return cast(Compute, compute)

    def worst_error(self, loaded: Compute, target: Target) -> float:  # noqa: ARG002
        return max(worst_error(Networks(loaded, SIZES, relu=relu), relu=relu) for relu in (False, True))
