"""Convolutional networks that classify images (Andrychowicz et al. 2016, section 3.3). Gradients and products with the
Hessian are written out in `models.families.conv.layers`, and `losses` says the same with torch's own layers.

A batch norm has the statistics of the batch at hand: of the minibatch in training, and of held-out images, as many as a
minibatch has, where they are measured. Nothing is averaged over steps, so that a loss depends on theta alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from models.families.conv import NORM_EPSILON, ConvSpec
from models.families.conv.layers import NONLINEARITIES, Kept, Layer, Moved, Weights, from_tasks, to_tasks
from models.spec import Split
from models.tasks.base import Family, TaskBatch
from models.tasks.image_batch import ImageBatch
from models.tasks.images import Images, load_images
from models.tasks.randomness import drawn, normals, streams

ConvWeights = tuple[list[Weights], tuple[Tensor, Tensor]]
"""The layers with an activation, and weight (tasks, in, classes) and bias (tasks, 1, classes) of the last one."""


class ConvBatch(ImageBatch):
    """Networks side by side, task by task and `ConvSpec.parts` within each. A CPU computes them one after the other,
    which keeps their numbers in its caches; a GPU at once."""

    def __init__(
        self,
        spec: ConvSpec,
        seeds: Tensor,
        training: Images,
        held_out: Images,
        dtype: torch.dtype,
        device: torch.device,
        *,
        own_images: Tensor | None = None,
        stream: str = "minibatch",
    ) -> None:
        super().__init__(
            spec.coordinates_per_task,
            spec.batch_size,
            seeds,
            training,
            held_out,
            dtype,
            device,
            own_images=own_images,
            stream=stream,
        )
        self.spec = spec
        norm, activation, groups = spec.norm, spec.activation, spec.groups
        self._layers = [Layer(norm, activation, groups, dense=False) for _ in spec.channels]
        self._layers += [Layer(norm, activation, groups, dense=True) for _ in spec.hidden]
        self._parts = spec.parts()
        self._sizes = [part.size for part in self._parts]
        self._at_once = 1 if device.type == "cpu" else self.tasks

    def initial(self) -> Tensor:
        start = drawn(normals, streams(self._seeds, "start"), self.coordinates_per_task, self.dtype)
        pieces = torch.split(start, self._sizes, dim=1)
        for part, piece in zip(self._parts, pieces, strict=True):
            if part.role == "weight":
                fan_in = part.size // (part.shape[0] if len(part.shape) == 4 else part.shape[1])
                piece.mul_(self.spec.start_scale / fan_in**0.5)
            else:
                piece.fill_(1.0 if part.name.endswith("scale") else 0.0)
        return start.to(self.device).reshape(-1)

    def with_images(self, own_images: Tensor, stream: str) -> ConvBatch:
        kept = (self.spec, self._seeds, self._training, self._held_out, self.dtype, self.device)
        return ConvBatch(*kept, own_images=own_images, stream=stream)

    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(theta)
        losses = []
        with torch.no_grad():
            for of_theta, of_gradient, inputs, labels in self._in_turn(step, theta, gradient):
                weights, (last, bias) = self._weights(of_theta)
                into, (into_last, into_bias) = self._weights(of_gradient)
                kept, top = self._forward(weights, inputs)
                logits = torch.baddbmm(bias, top, last)
                log_probabilities = torch.log_softmax(logits, dim=2)  # (tasks, batch, classes)
                losses.append(-log_probabilities.gather(2, labels[..., None]).mean(dim=(1, 2)))
                delta = _of_logits(log_probabilities.exp_(), labels)
                into_last.copy_(torch.bmm(top.transpose(1, 2), delta))
                into_bias.copy_(delta.sum(dim=1, keepdim=True))
                back: Tensor | None = self._signal(torch.bmm(delta, last.transpose(1, 2)), kept[-1].out)
                for level in reversed(range(len(weights))):
                    assert back is not None
                    back = self._layers[level].backward(kept[level], weights[level], back, into[level], down=level > 0)
        return torch.cat(losses), gradient

    def hessian_vector(
        self,
        theta: Tensor,
        step: int | Tensor,
        v: Tensor,
        *,
        gradient: Tensor | None = None,  # noqa: ARG002 - the product is exact without it
    ) -> Tensor:
        """Pearlmutter's R operator ("Fast exact multiplication by the Hessian", 1994). Kinks, those of ReLU and of the
        pooling, count for nothing, as in autograd."""
        product = torch.empty_like(theta)
        with torch.no_grad():
            for of_theta, of_v, of_product, inputs, labels in self._in_turn(step, theta, v, product):
                self._product(of_theta, of_v, of_product, inputs, labels)
        return product

    def _product(self, theta: Tensor, v: Tensor, product: Tensor, inputs: Tensor, labels: Tensor) -> None:
        (weights, (last, bias)), (by, (last_by, bias_by)) = self._weights(theta), self._weights(v)
        into, (into_last, into_bias) = self._weights(product)
        kept, top = self._forward(weights, inputs)
        moved: list[Moved] = []
        for level, layer in enumerate(self._layers):
            below = moved[-1].out if moved else None  # the images do not move
            moved.append(layer.along(kept[level], weights[level], below, by[level]))
        top_along = to_tasks(moved[-1].out, top.shape[0])
        probabilities = torch.softmax(torch.baddbmm(bias, top, last), dim=2)
        change = torch.baddbmm(bias_by, top, last_by).baddbmm_(top_along, last)
        change = probabilities * (change - (probabilities * change).sum(dim=2, keepdim=True)) / labels.shape[1]
        delta = _of_logits(probabilities, labels)
        into_last.copy_(torch.bmm(top_along.transpose(1, 2), delta).baddbmm_(top.transpose(1, 2), change))
        into_bias.copy_(change.sum(dim=1, keepdim=True))
        back = self._signal(torch.bmm(delta, last.transpose(1, 2)), kept[-1].out)
        along = torch.bmm(change, last.transpose(1, 2)).baddbmm_(delta, last_by.transpose(1, 2))
        deltas: tuple[Tensor, Tensor] | None = back, self._signal(along, kept[-1].out)
        for level in reversed(range(len(weights))):
            assert deltas is not None
            deltas = self._layers[level].backward_along(
                kept[level], moved[level], weights[level], by[level], deltas, into[level], down=level > 0
            )

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:
        pixels, labels = self._minibatch(step)
        signal = self._image(pixels).contiguous()
        weights, (last, bias) = self._weights(theta.view(self.tasks, -1))
        for layer, (weight, shift, scale) in zip(self._layers, weights, strict=True):
            if layer.dense:
                signal = from_tasks(torch.bmm(to_tasks(signal, self.tasks), weight))
            else:
                signal = functional.conv2d(signal, weight.flatten(0, 1), padding=1, groups=self.tasks)
            signal = self._normalized(signal, shift.flatten(), None if scale is None else scale.flatten())
            signal = NONLINEARITIES[self.spec.activation].value(signal)
            if not layer.dense:
                signal = functional.max_pool2d(signal, 2)
        logits = torch.baddbmm(bias, to_tasks(signal, self.tasks), last)
        return self.cross_entropy(logits.transpose(1, 2), labels)

    def _normalized(self, signal: Tensor, shift: Tensor, scale: Tensor | None) -> Tensor:
        if self.spec.norm == "none":
            return signal + shift[:, None, None]
        if self.spec.norm == "batch":
            return functional.batch_norm(signal, None, None, scale, shift, training=True, eps=NORM_EPSILON)
        return functional.group_norm(signal, self.tasks * self.spec.groups, scale, shift, eps=NORM_EPSILON)

    def held_out_logits(self, theta: Tensor) -> Iterator[tuple[Tensor, Images]]:
        parts = max(1, round(len(self._held_out) / self.batch_size))
        for rows in torch.arange(len(self._held_out)).tensor_split(parts):
            chunk = self._held_out.taken(rows)
            pixels = self.scaled(chunk.pixels)
            logits = []
            for of_theta in torch.split(theta.view(self.tasks, -1), self._at_once):
                weights, (last, bias) = self._weights(of_theta)
                _, top = self._forward(weights, self._image(pixels.expand(of_theta.shape[0], -1, -1)))
                logits.append(torch.baddbmm(bias, top, last))
            yield torch.cat(logits).transpose(1, 2), chunk

    # --- networks -----------------------------------------------------------------------------------------------

    def _in_turn(self, step: int | Tensor, *along_theta: Tensor) -> Iterator[Sequence[Tensor]]:
        """For as many tasks as compute at once: their parts of these, (tasks, coordinates), their images and labels."""
        pixels, labels = self._minibatch(step)
        for first in range(0, self.tasks, self._at_once):
            own = slice(first, first + self._at_once)
            parts = [each.view(self.tasks, -1)[own] for each in along_theta]
            yield *parts, self._image(pixels[own]), labels[own]

    def _image(self, pixels: Tensor) -> Tensor:
        """(tasks, batch, inputs) -> (batch, tasks * colours, side, side), channels last."""
        tasks, batch, _ = pixels.shape
        side = self.spec.side
        images = pixels.view(tasks, batch, side, side, self.spec.colours).permute(1, 2, 3, 0, 4)
        return images.reshape(batch, side, side, -1).permute(0, 3, 1, 2)

    def _weights(self, by_task: Tensor) -> ConvWeights:
        """Views of (tasks, coordinates)."""
        pieces = torch.split(by_task, self._sizes, dim=1)
        views = [piece.view(-1, *part.shape) for part, piece in zip(self._parts, pieces, strict=True)]
        *body, last, bias = views
        if self.spec.norm == "none":
            layers = [Weights(weight, shift, None) for weight, shift in zip(body[::2], body[1::2], strict=True)]
        else:
            layers = [
                Weights(weight, shift, scale)
                for weight, scale, shift in zip(body[::3], body[1::3], body[2::3], strict=True)
            ]
        return layers, (last, bias[:, None])

    def _forward(self, weights: list[Weights], inputs: Tensor) -> tuple[list[Kept], Tensor]:
        """What each layer keeps, and the last one's output: (tasks, batch, units)."""
        kept: list[Kept] = []
        for layer, own in zip(self._layers, weights, strict=True):
            kept.append(layer.forward(kept[-1].out if kept else inputs, own))
        return kept, to_tasks(kept[-1].out, weights[0].shift.shape[0])

    @staticmethod
    def _signal(by_task: Tensor, like: Tensor) -> Tensor:
        """(tasks, batch, units) in the shape of a signal."""
        flat = by_task.transpose(0, 1).reshape(like.shape)
        return flat.contiguous(memory_format=torch.channels_last)


def _of_logits(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the mean cross-entropy, in place of the probabilities."""
    probabilities.scatter_add_(2, labels[..., None], probabilities.new_full((), -1.0).expand(*labels.shape, 1))
    return probabilities.div_(labels.shape[1])


class ConvFamily(Family):
    """Networks of one shape; weights start normal, minibatches are drawn with replacement."""

    def __init__(self, spec: ConvSpec, splits: Collection[Split], data_dir: Path | None) -> None:
        super().__init__(f"conv/{spec.model_dump_json(exclude={'kind'})}", spec.coordinates_per_task, splits)
        self.spec = spec
        self._images = load_images(spec.dataset, splits, data_dir, spec.labels)
        self._on = cache(lambda split, device: self._images[split].to(device))

    def _batches(self, seeds: Tensor, split: Split, dtype: torch.dtype, device: torch.device) -> tuple[TaskBatch, ...]:
        images = (self._on(Split.TRAIN, device), self._on(split, device))
        return (ConvBatch(self.spec, seeds, *images, dtype, device),)
