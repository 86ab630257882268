"""Models on the rows of a table side by side: each task has the rows of its group, as many as it has.

A model is layers of weights and biases, a linear one a single layer. Gradients and products with the Hessian are
written out, which float64 autograd checks in a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from models.families.row_costs import HELD_OUT_NUMBERS
from models.spec import Split
from models.tasks.base import HeldOut, TaskBatch
from models.tasks.composite import Composite, largest_eigenvalues
from models.tasks.image_batch import OUTER_SHARE
from models.tasks.randomness import drawn, indices, normals, streams
from models.tasks.row_losses import RowLoss
from models.tasks.tables import Stretches, TableData

Layers = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class RowModel:
    """sizes: of the inputs and of each layer. activation: `sigmoid` or `relu`, between layers. most: rows of a full
    batch at most. rows: those that a full batch is padded to."""

    sizes: tuple[int, ...]
    activation: str
    loss: RowLoss
    l1: float
    l2: float
    batch_size: int | None
    most: int
    rows: int
    start_std: float

    @property
    def coordinates(self) -> int:
        return sum(below * above + above for below, above in pairwise(self.sizes))


@dataclass(frozen=True)
class Places:
    """Which rows each task trains on, (tasks,) int64: `size` of the `count` rows from `first` on, counted in a circle
    from `start`."""

    first: Tensor
    count: Tensor
    start: Tensor
    size: Tensor

    def rows(self, positions: Tensor) -> Tensor:
        """(tasks, n) positions below `size` -> the rows of the table there."""
        return self.first[:, None] + (self.start[:, None] + positions) % self.count[:, None]

    def tensors(self) -> dict[str, Tensor]:
        return {"first": self.first, "count": self.count, "start of rows": self.start, "size": self.size}


class RowBatch(TaskBatch):
    """`X` (tasks, rows, inputs), `y` (tasks, rows) and the rows' weights `w` (tasks, rows), which add up to 1; a full
    batch holds them, a minibatch draws its own rows at each step."""

    def __init__(
        self,
        model: RowModel,
        data: TableData,
        held: Stretches,
        places: Places,
        seeds: Tensor,
        dtype: torch.dtype,
        device: torch.device,
        stream: str = "minibatch",
    ) -> None:
        """held: of each task, which rows are held out"""
        super().__init__(len(seeds), model.coordinates, dtype, device)
        self.model = model
        self._data, self._held, self._places, self._seeds = data, held, places, seeds
        self._inputs, self._targets = data.to(dtype, device)
        self._start = drawn(normals, streams(seeds, "start"), model.coordinates, dtype).mul_(model.start_std).to(device)
        self._stream = streams(seeds, stream).to(device)
        self._full = None if model.batch_size else self._full_batch()

    def initial(self) -> Tensor:
        return self._start.reshape(-1).clone()

    def buffers(self) -> Mapping[str, Tensor]:
        found = {"start": self._start, "stream": self._stream, **self._places.tensors(), "held": self._held.held_first}
        found["held count"] = self._held.held_count
        return found if self._full is None else found | dict(zip(("X", "y", "w"), self._full, strict=True))

    def _full_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        rows, size = self.model.rows, self._places.size[:, None]
        numbers = torch.arange(rows, device=self.device)
        many = indices(self._stream, 0, rows, size)
        taken = self._places.rows(torch.where(size > rows, many, numbers % size))
        weights = (numbers < size).to(self.dtype) / size.clamp(max=rows)
        return (*self._at(taken), weights)

    def _at(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        flat = rows.reshape(-1)
        X = self._inputs.index_select(0, flat).view(*rows.shape, -1)
        if self.model.loss.reconstructs:
            return X, X
        return X, self._targets.index_select(0, flat).view(rows.shape)

    def _rows(self, step: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self._full is not None:
            return self._full
        batch = self.model.batch_size or 1
        X, y = self._at(self._places.rows(indices(self._stream, step, batch, self._places.size[:, None])))
        return X, y, torch.full((), 1.0 / batch, dtype=self.dtype, device=self.device)

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:
        X, y, w = self._rows(step)
        layers = self._layers(theta)
        return self._mean_loss(layers, self._forward(layers, X)[-1], y, w)

    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            X, y, w = self._rows(step)
            layers = self._layers(theta)
            values = self._forward(layers, X)
            gradient = torch.empty_like(theta)
            delta = self.model.loss.slopes(values[-1], y) * w[..., None]
            slots = self._layers(gradient)
            for level in reversed(range(len(layers))):
                below, (weight, bias) = values[level], slots[level]
                weight.copy_(torch.bmm(below.transpose(1, 2), delta))
                bias.copy_(delta.sum(dim=1, keepdim=True))
                if self.model.l1:
                    weight.add_(layers[level][0].sign(), alpha=self.model.l1)
                if self.model.l2:
                    weight.add_(layers[level][0], alpha=self.model.l2)
                if level:
                    delta = torch.bmm(delta, layers[level][0].transpose(1, 2)) * self._slope(below)
            return self._mean_loss(layers, values[-1], y, w), gradient

    def hessian_vector(
        self,
        theta: Tensor,
        step: int | Tensor,
        v: Tensor,
        *,
        gradient: Tensor | None = None,  # noqa: ARG002 - the product is exact without it
    ) -> Tensor:
        """Pearlmutter's R operator (1994): `losses_and_gradient`, each line with its derivative along v."""
        with torch.no_grad():
            X, y, w = self._rows(step)
            layers, along = self._layers(theta), self._layers(v)
            values = self._forward(layers, X)
            moved: list[Tensor | None] = [None]  # rows do not move
            for level, ((weight, _), (by, bias_by)) in enumerate(zip(layers, along, strict=True)):
                change = torch.baddbmm(bias_by, values[level], by)
                if (before := moved[-1]) is not None:
                    change = change.baddbmm(before, weight)
                moved.append(change if level == len(layers) - 1 else change * self._slope(values[level + 1]))
            last = moved[-1]
            assert last is not None
            delta = self.model.loss.slopes(values[-1], y) * w[..., None]
            change = self.model.loss.curved(values[-1], y, last) * w[..., None]
            product = torch.empty_like(theta)
            slots = self._layers(product)
            for level in reversed(range(len(layers))):
                below, here, (weight, bias) = values[level], moved[level], slots[level]
                bias.copy_(change.sum(dim=1, keepdim=True))
                weight.copy_(torch.bmm(below.transpose(1, 2), change))
                if here is not None:
                    weight.baddbmm_(here.transpose(1, 2), delta)
                if self.model.l2:
                    weight.add_(along[level][0], alpha=self.model.l2)
                if here is not None:
                    back, back_along = layers[level][0].transpose(1, 2), along[level][0].transpose(1, 2)
                    change = torch.bmm(change, back).baddbmm_(delta, back_along) * self._slope(below)
                    delta = torch.bmm(delta, back)
                    if self.model.activation == "sigmoid":  # whose slope moves by (1 - 2 a) times what a moves
                        change += delta * here * (1 - 2 * below)
                    delta = delta * self._slope(below)
            return product

    def parted(self) -> RowBatch:
        """Each task draws which rows it trains on, OUTER_SHARE fewer than it has."""
        size = self._places.size
        outer = (OUTER_SHARE * size).round().long().clamp(min=1)
        turn = indices(streams(self._seeds, "parts").to(self.device), 0, 1, self._places.count[:, None])[:, 0]
        batch = self._with(replace(self._places, start=turn, size=size - outer), "minibatch")
        batch.outer = self._with(replace(self._places, start=turn + size - outer, size=outer), "outer")
        batch.namespace = batch.outer.namespace = self.namespace
        return batch

    def _with(self, places: Places, stream: str) -> RowBatch:
        kept = self.model, self._data, self._held
        return RowBatch(*kept, places, self._seeds, self.dtype, self.device, stream)

    def held_out(self, theta: Tensor) -> HeldOut:
        """On the held-out rows of each task's group, without what `l1` and `l2` add. Accuracy: of classes the share
        that is right, else the share of the targets' variance that is explained."""
        rows = min(self.model.most, int(self._held.held_count.max()))
        together = max(1, HELD_OUT_NUMBERS // (rows * (self.model.sizes[0] + 3 * sum(self.model.sizes[1:]))))
        tensors = theta.view(self.tasks, -1), self._held.held_first, self._held.held_count
        with torch.no_grad():
            found = [
                self._held_out_of(rows, *part)
                for part in zip(*(torch.split(each, together) for each in tensors), strict=True)
            ]
        return HeldOut(*(torch.cat(each) for each in zip(*found, strict=True)))

    def _held_out_of(self, rows: int, theta: Tensor, first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        numbers = torch.arange(rows, device=self.device)
        X, y = self._at(first[:, None] + numbers % count[:, None])
        w = (numbers < count[:, None]).to(self.dtype) / count[:, None].clamp(max=rows)
        outputs = self._forward(self._layers(theta.reshape(-1)), X)[-1]
        losses = (self.model.loss.values(outputs, y) * w).sum(dim=1)
        if (hits := self.model.loss.hits(outputs, y)) is not None:
            return losses, (hits * w).sum(dim=1)
        y = y.view(*w.shape, -1)  # several targets where a row's are its inputs
        around = y - (y * w[..., None]).sum(dim=1, keepdim=True)
        said = self.model.loss.predicted(outputs).view_as(y)
        spread = (around.square().sum(dim=2) * w).sum(dim=1)
        errors = ((said - y).square().sum(dim=2) * w).sum(dim=1)
        return losses, torch.where(spread > 0, 1 - errors / spread, 0.0)

    def _mean_loss(self, layers: Layers, outputs: Tensor, y: Tensor, w: Tensor) -> Tensor:
        losses = (self.model.loss.values(outputs, y) * w).sum(dim=1)
        for weight, _ in layers if self.model.l2 else ():
            losses = losses + weight.square().sum(dim=(1, 2)) * (self.model.l2 / 2)
        for weight, _ in layers if self.model.l1 else ():
            losses = losses + weight.abs().sum(dim=(1, 2)) * self.model.l1
        return losses

    def composite(self) -> Composite | None:
        bound = self.model.loss.most_curved
        if not self.model.l1 or self._full is None or bound is None:
            return None
        X, _, w = self._full
        rows = torch.cat((X, torch.ones_like(X[..., :1])), dim=2) * w.sqrt()[..., None]
        l1 = torch.zeros(self.tasks, self.coordinates_per_task, dtype=self.dtype, device=self.device)
        l1[:, : -self.model.sizes[-1]] = self.model.l1  # the bias has none
        return Composite(l1.view(-1), largest_eigenvalues(rows) * bound + self.model.l2)

    def _layers(self, theta: Tensor) -> Layers:
        by_task = theta.view(-1, self.coordinates_per_task)
        layers, offset = [], 0
        for below, above in pairwise(self.model.sizes):
            weight = by_task[:, offset : offset + below * above].view(-1, below, above)
            offset += below * above
            layers.append((weight, by_task[:, offset : offset + above].view(-1, 1, above)))
            offset += above
        return layers

    def _forward(self, layers: Layers, X: Tensor) -> list[Tensor]:
        """The inputs of each layer, and the outputs last."""
        values = [X]
        squash = torch.sigmoid if self.model.activation == "sigmoid" else torch.relu
        for number, (weight, bias) in enumerate(layers, 1):
            out = torch.baddbmm(bias, values[-1], weight)
            values.append(out if number == len(layers) else squash(out))
        return values

    def _slope(self, activation: Tensor) -> Tensor:
        """The slope of the activation function where it has this value."""
        return activation * (1 - activation) if self.model.activation == "sigmoid" else (activation > 0).to(self.dtype)


def sampled(
    model: RowModel, data: TableData, seeds: Tensor, split: Split, dtype: torch.dtype, device: torch.device
) -> RowBatch:
    """A task for each seed, of a group of the split that the seed draws."""
    there = data.splits[split]
    group = indices(streams(seeds, "group"), 0, 1, len(there.first))[:, 0]
    of = Stretches(*(each[group].to(device) for each in (there.first, there.count, there.held_first, there.held_count)))
    places = Places(of.first, of.count, torch.zeros_like(of.first), of.count)
    return RowBatch(model, data, of, places, seeds, dtype, device)
