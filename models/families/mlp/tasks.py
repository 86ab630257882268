"""Networks that classify images: cross-entropy on random minibatches (Andrychowicz et al. 2016, section 3.2).

All tasks of a batch are one batched matrix product; the gradient is written out, which autograd checks in a test. In
float32 on the CPU a compiled kernel computes gradients and products with Hessians (`compiled`).
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from gradsmith.rules.kernels.base import Refusal
from models.families.mlp import MOST_HELD_OUT, MLPSpec
from models.families.mlp.compiled import Networks, networks
from models.spec import Split
from models.table_spec import Table
from models.tasks.base import Family, TaskBatch
from models.tasks.image_batch import ImageBatch
from models.tasks.images import Images, load_images
from models.tasks.randomness import drawn, normals, streams
from models.tasks.row_batch import RowModel, sampled
from models.tasks.row_losses import row_loss
from models.tasks.tables import table_data

# Held-out images of all tasks at once would need tasks x images x units numbers; this many activations at a time.
_HELD_OUT_ACTIVATIONS = 4_000_000


class MLPBatch(ImageBatch):
    """Networks side by side. Layer l has weights (tasks, fan_in, fan_out) and biases (tasks, 1, fan_out), which are
    views of theta: task by task, layer by layer, weights before biases."""

    def __init__(
        self,
        spec: MLPSpec,
        seeds: Tensor,
        training: Images,
        held_out: Images,
        dtype: torch.dtype,
        device: torch.device,
        *,
        own_images: Tensor | None = None,
        stream: str = "minibatch",
    ) -> None:
        sizes = spec.coordinates_per_task, spec.batch_size
        super().__init__(*sizes, seeds, training, held_out, dtype, device, own_images=own_images, stream=stream)
        self.spec = spec

    def initial(self) -> Tensor:
        start = drawn(normals, streams(self._seeds, "start"), self.coordinates_per_task, self.dtype)
        return start.mul_(self.spec.start_std).to(self.device).reshape(-1)

    def with_images(self, own_images: Tensor, stream: str) -> MLPBatch:
        kept = (self.spec, self._seeds, self._training, self._held_out, self.dtype, self.device)
        return MLPBatch(*kept, own_images=own_images, stream=stream)

    @functools.cached_property
    def _compiled(self) -> Networks | None:
        """What computes gradients in float32 on the CPU. Found when it is first needed: it may have to be compiled."""
        if self.device.type != "cpu" or self.dtype != torch.float32:
            return None
        found = networks(self.spec.layer_sizes, relu=self.spec.activation == "relu")
        return None if isinstance(found, Refusal) else found

    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        if self._compiled is not None:
            return self._compiled.gradient(self._training, self._rows(step), theta.contiguous())
        with torch.no_grad():
            inputs, labels = self._minibatch(step)
            layers = self._layers(theta)
            activations = self._forward(layers, inputs)
            log_probabilities = torch.log_softmax(activations[-1], dim=1)  # (tasks, 10, batch)
            losses = -log_probabilities.gather(1, labels[:, None]).mean(dim=(1, 2))
            gradient = torch.empty_like(theta)
            slots = self._layers(gradient)
            delta = log_probabilities.exp_()
            delta.scatter_add_(1, labels[:, None], delta.new_full((), -1.0).expand_as(labels[:, None]))
            delta = delta.div_(labels.shape[1]).transpose(1, 2)
            for level in reversed(range(len(layers))):
                below = activations[level]  # (tasks, batch, fan_in)
                weight, bias = slots[level]
                weight.copy_(torch.bmm(below.transpose(1, 2), delta))
                bias.copy_(delta.sum(dim=1, keepdim=True))
                if level:
                    delta = torch.bmm(delta, layers[level][0].transpose(1, 2))
                    if self.spec.activation == "sigmoid":
                        delta = torch.ops.aten.sigmoid_backward(delta, below)
                    else:
                        delta.mul_(below > 0)
            return losses, gradient

    def hessian_vector(
        self,
        theta: Tensor,
        step: int | Tensor,
        v: Tensor,
        *,
        gradient: Tensor | None = None,  # noqa: ARG002 - the product is exact without it
    ) -> Tensor:
        """Pearlmutter's R operator ("Fast exact multiplication by the Hessian", 1994): every line of
        `losses_and_gradient` with its derivative along v. Costs 1.4 gradient evaluations of a small network."""
        if self._compiled is not None:
            return self._compiled.product(self._training, self._rows(step), theta.contiguous(), v.contiguous())
        with torch.no_grad():
            inputs, labels = self._minibatch(step)
            layers, along = self._layers(theta), self._layers(v)
            activations, moved, slopes = self._forward_along(layers, along, inputs)
            probabilities = torch.softmax(activations[-1], dim=1)  # (tasks, 10, batch)
            change = probabilities * moved[-1]
            change -= probabilities * change.sum(dim=1, keepdim=True)
            minus_one = inputs.new_full((), -1.0).expand_as(labels[:, None])
            delta = probabilities.scatter_add_(1, labels[:, None], minus_one)
            delta, change = (each.div_(labels.shape[1]).transpose(1, 2) for each in (delta, change))
            product = torch.empty_like(theta)
            slots = self._layers(product)
            for level in reversed(range(len(layers))):
                below, (weight, bias) = activations[level], slots[level]
                bias.copy_(change.sum(dim=1, keepdim=True))
                if not level:  # the images do not move
                    weight.copy_(torch.bmm(below.transpose(1, 2), change))
                    break
                weight.copy_(torch.bmm(moved[level].transpose(1, 2), delta).baddbmm_(below.transpose(1, 2), change))
                back, back_along = layers[level][0].transpose(1, 2), along[level][0].transpose(1, 2)
                change = torch.bmm(change, back).baddbmm_(delta, back_along)
                delta = torch.bmm(delta, back)
                change.mul_(slopes[level])
                if self.spec.activation == "sigmoid":  # whose slope moves too, by (1 - 2 a) times what a moves
                    change.addcmul_(delta * moved[level], below.mul_(-2.0).add_(1.0))
                delta.mul_(slopes[level])
            return product

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:
        inputs, labels = self._minibatch(step)
        return self.cross_entropy(self._forward(self._layers(theta), inputs)[-1], labels)

    def held_out_logits(self, theta: Tensor) -> Iterator[tuple[Tensor, Images]]:
        layers = self._layers(theta)
        rows = max(1, _HELD_OUT_ACTIVATIONS // (self.tasks * max(self.spec.layer_sizes)))
        for first in range(0, len(self._held_out), rows):
            chunk = self._held_out.taken(torch.arange(first, min(first + rows, len(self._held_out))))
            yield self._forward(layers, self.scaled(chunk.pixels).expand(self.tasks, -1, -1))[-1], chunk

    def _layers(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        by_task = theta.view(self.tasks, self.coordinates_per_task)
        layers = []
        offset = 0
        sizes = self.spec.layer_sizes
        for fan_in, fan_out in pairwise(sizes):
            weight = by_task[:, offset : offset + fan_in * fan_out].view(self.tasks, fan_in, fan_out)
            offset += fan_in * fan_out
            layers.append((weight, by_task[:, offset : offset + fan_out].view(self.tasks, 1, fan_out)))
            offset += fan_out
        return layers

    def _forward(self, layers: list[tuple[Tensor, Tensor]], inputs: Tensor) -> list[Tensor]:
        """The input of each layer, and the logits (tasks, 10, batch) last: what goes over ten classes for each of many
        images takes a third of the time where the images lie side by side."""
        activations = [inputs]
        squash = torch.sigmoid if self.spec.activation == "sigmoid" else torch.relu
        for weight, bias in layers[:-1]:
            activations.append(squash(torch.baddbmm(bias, activations[-1], weight)))
        return [*activations, _logits(*layers[-1], activations[-1])]

    def _forward_along(
        self, layers: list[tuple[Tensor, Tensor]], along: list[tuple[Tensor, Tensor]], inputs: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """What `_forward` gives, its derivatives where the layers move as `along` says, and the activations' slopes.
        Images have neither."""
        nothing = inputs.new_zeros(())
        activations, moved, slopes = [inputs], [nothing], [nothing]
        for level, ((weight, bias), (by, bias_by)) in enumerate(zip(layers[:-1], along[:-1], strict=True)):
            below = activations[-1]
            if level:
                out = torch.baddbmm(bias, below, weight)
                change = torch.baddbmm(bias_by, below, by).baddbmm_(moved[-1], weight)
            else:  # one product of twice the width is faster than two
                both = torch.baddbmm(torch.cat((bias, bias_by), dim=2), below, torch.cat((weight, by), dim=2))
                out, change = both.chunk(2, dim=2)
            if self.spec.activation == "sigmoid":
                out = torch.sigmoid(out)
                slope = torch.addcmul(out, out, out, value=-1.0)
            else:
                out = torch.relu(out)
                slope = (out > 0).to(out.dtype)
            slopes.append(slope)
            activations.append(out)
            moved.append(change * slope)
        below, (weight, bias) = activations[-1], layers[-1]
        change = _logits(*along[-1], below)
        if len(layers) > 1:
            change.baddbmm_(weight.transpose(1, 2), moved[-1].transpose(1, 2))
        return [*activations, _logits(weight, bias, below)], [*moved, change], slopes


def _logits(weight: Tensor, bias: Tensor, below: Tensor) -> Tensor:
    """(tasks, fan_in, classes), (tasks, 1, classes), (tasks, batch, fan_in) -> (tasks, classes, batch)."""
    return torch.baddbmm(bias.transpose(1, 2), weight.transpose(1, 2), below.transpose(1, 2))


class MLPFamily(Family):
    """Networks of one shape; theta_0 ~ N(0, start_std^2), minibatches drawn with replacement."""

    def __init__(self, spec: MLPSpec, splits: Collection[Split], data_dir: Path | None) -> None:
        if isinstance(spec.dataset, Table):
            raise TypeError("a table of one's own is a TableMLPFamily's")
        layers = "-".join(str(size) for size in spec.layer_sizes)
        shape = f"{spec.dataset}/{layers}/{spec.activation}/{spec.batch_size}/{spec.start_std!r}"
        shape += f"/{spec.input_scale!r}" if spec.input_scale != 1 else ""
        super().__init__(f"mlp/{shape}", spec.coordinates_per_task, splits)
        self.spec = spec
        images = load_images(spec.dataset, splits, data_dir)
        self._images = {split: each.scaled(spec.input_scale) for split, each in images.items()}

    def _batches(self, seeds: Tensor, split: Split, dtype: torch.dtype, device: torch.device) -> tuple[TaskBatch, ...]:
        return (MLPBatch(self.spec, seeds, self._images[Split.TRAIN], self._images[split], dtype, device),)


class TableMLPFamily(Family):
    """Networks of one shape, each on the rows of a group of a user's table; else as MLPFamily."""

    def __init__(self, spec: MLPSpec, splits: Collection[Split], data_dir: Path | None) -> None:
        if not isinstance(spec.dataset, Table):
            raise TypeError(f"{spec.dataset} is an MLPFamily's")
        super().__init__(f"mlp/{spec.model_dump_json()}", spec.coordinates_per_task, splits)
        kept = {"classes": True, "standardize": True, "standardize_target": False}
        self._data = table_data(spec.dataset, splits, data_dir, split_seed=0, **kept).scaled(spec.input_scale)
        sizes, loss, rows = spec.layer_sizes, row_loss("softmax"), spec.batch_size
        self._model = RowModel(sizes, spec.activation, loss, 0.0, 0.0, rows, MOST_HELD_OUT, rows, spec.start_std)

    def _batches(self, seeds: Tensor, split: Split, dtype: torch.dtype, device: torch.device) -> tuple[TaskBatch, ...]:
        return (sampled(self._model, self._data, seeds, split, dtype, device),)


def opened(spec: MLPSpec, splits: Collection[Split], data_dir: Path | None) -> Family:
    """The family of a spec, on images or on a table of one's own."""
    family = TableMLPFamily if isinstance(spec.dataset, Table) else MLPFamily
    return family(spec, splits, data_dir)
