"""How the three programs of each kind of rule are launched. Triton is imported with this module."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, final

import torch
import triton
from torch import Tensor

from gradsmith.rules.clock import HORIZONS
from gradsmith.rules.hyper import HyperRule
from gradsmith.rules.kernels.triton import hyper, mlp
from gradsmith.rules.kernels.triton.tensors import Places
from gradsmith.rules.mlp import MLPRule

_LANES = 1024  # blocks of which a program adds up the sums at once


class Step(NamedTuple):
    """The tensors of one step; see `TritonTensorKernel.step`."""

    weights: Tensor
    places: Places
    moving: Tensor
    state: Tensor
    numbers: Tensor
    aligned: bool


class Launches(Protocol):
    """The programs of one configuration.

    rows: of the state, for means, squares and the last update; block: coordinates that a program moves together
    """

    rows: tuple[int, ...]
    block: int

    def run(self, step: Step) -> None: ...


@final
class HyperLaunches:
    """Those of a hyper rule."""

    rows: tuple[int, ...] = (3, 1, 1)

    def __init__(self, rule: HyperRule, device: torch.device, block: int | None) -> None:
        settings, self.block = rule.settings, block or 2048
        self._scale = settings.output_scale
        self._horizons = _horizons(7, device)
        self.network: dict[str, Any] = {
            "H": settings.hidden_size,
            "PADDED": _padded(settings.hidden_size),
            "LAYERS": settings.layers,
            "FRACTION": int(settings.knows_steps),
            "BLOCK": self.block,
            "LANES": _LANES,
        }

    def run(self, step: Step) -> None:
        places = step.places
        where, wide = (places.of_blocks, places.table, step.moving, step.state), self._wide(step.aligned)
        sums, coefficients = step.state.new_empty(7, places.blocks), step.state.new_empty(places.tensors, 8)
        hyper.look[(places.blocks,)](*where, sums, places.stride, **wide)
        hyper.decide[(places.tensors,)](
            *(step.weights, self._horizons, places.table, step.moving, sums, step.numbers, coefficients),
            *(places.blocks, self._scale),
            **self.network,
            num_warps=4,
        )
        hyper.move[(places.blocks,)](*where, coefficients, places.stride, **wide)

    def _wide(self, aligned: bool) -> dict[str, Any]:
        return {"BLOCK": self.block, "ALIGNED": aligned, "num_warps": 8}


@final
class MLPLaunches:
    """Those of an mlp rule."""

    def __init__(self, rule: MLPRule, device: torch.device, block: int | None) -> None:
        settings, own, self.block = rule.settings, rule.features.combination, block or 128
        self.rows: tuple[int, ...] = (len(own.means), len(own.squares), int(own.last))
        self._scale = settings.output_scale
        has = {name.upper(): int(name in own.names) for name in ("momenta", "scales", "tensor_scale", "alignment")}
        shared = {"TIME": int("time" in own.names), "FRACTION": int(own.planned)}
        each = 4 * has["MOMENTA"] + 4 * has["SCALES"] + 5 * has["TENSOR_SCALE"]
        self._horizons = _horizons(has["ALIGNMENT"], device)
        sizes = {
            "H": settings.hidden_size,
            "PADDED": _padded(settings.hidden_size),
            "EACH": each,
            "SHARED": own.width - each,
            "BLOCK": self.block,
        }
        self.look: dict[str, Any] = {"LAST": sum(self.rows) - 1 if own.last else -1, "BLOCK": self.block}
        self.decide: dict[str, Any] = {**sizes, **shared, "ALIGNMENT": has["ALIGNMENT"], "LANES": _LANES}
        self.move: dict[str, Any] = {**sizes, **has, "LAYERS": settings.layers, "INTERPRETED": interpreted()}

    def run(self, step: Step) -> None:
        places = step.places
        where = (places.of_blocks, places.table, step.moving, step.state)
        sums = step.state.new_empty(3, places.blocks)
        known = step.state.new_empty(places.tensors, self.decide["PADDED"] + 16)
        mlp.look[(places.blocks,)](*where, sums, places.stride, **self.look, ALIGNED=step.aligned, num_warps=4)
        mlp.decide[(places.tensors,)](
            *(step.weights, self._horizons, places.table, step.moving, sums, step.numbers, known, places.blocks),
            **self.decide,
            num_warps=4,
        )
        mlp.move[(places.blocks,)](
            *(step.weights, *where, known, places.stride, self._scale),
            **self.move,
            ALIGNED=step.aligned,
            num_warps=4,
        )


def interpreted() -> bool:
    """Whether Triton was told, before its import, to interpret its programs."""
    return not isinstance(hyper.look, triton.JITFunction)


def _horizons(first: int, device: torch.device) -> Tensor:
    """(16,) steps, in the places of the features of time; ones elsewhere."""
    steps = [1.0] * first + list(HORIZONS)
    return torch.tensor(steps + [1.0] * (16 - len(steps)), dtype=torch.float32, device=device)


def _padded(hidden: int) -> int:
    return max(16, 1 << (hidden - 1).bit_length())
