"""Networks that classify images, whatever they are made of: minibatches, the parts of the data, held-out images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from models.tasks.base import HeldOut, TaskBatch
from models.tasks.images import Images
from models.tasks.randomness import bits, indices, streams

OUTER_SHARE = 0.35
"""How many of its training images a task that is parted keeps for the outer losses."""

# Minibatches are drawn for many steps at once, as far as this many indices: one step's cost as much as a small product.
_INDICES_DRAWN = 100_000
# Data sets of up to so many pixels are kept as numbers, which a minibatch takes in a third of the time.
_SCALED_NUMBERS = 2**18


class ImageBatch(TaskBatch):
    """Networks side by side. A subclass knows their parameters; theta is a task's after the other."""

    def __init__(
        self,
        coordinates_per_task: int,
        batch_size: int,
        seeds: Tensor,
        training: Images,
        held_out: Images,
        dtype: torch.dtype,
        device: torch.device,
        *,
        own_images: Tensor | None = None,
        stream: str = "minibatch",
    ) -> None:
        """own_images: (tasks, n) int64, the images of each task where it has not all of them; stream: names the random
        numbers that minibatches are drawn with"""
        super().__init__(seeds.shape[0], coordinates_per_task, dtype, device)
        self.batch_size = batch_size
        self._seeds = seeds
        self._minibatches = streams(seeds, stream).to(device)
        self._own_images = own_images
        self._training = training.to(device)
        self._held_out = held_out.to(device)
        self._steps_drawn = min(32, max(1, _INDICES_DRAWN // (self.tasks * batch_size)))
        self._drawn: tuple[int, Tensor] | None = None  # which so many steps, and their rows (tasks, steps, batch)

    @abstractmethod
    def with_images(self, own_images: Tensor, stream: str) -> Self:
        """The same tasks on these of their images, (tasks, n) int64."""

    @abstractmethod
    def held_out_logits(self, theta: Tensor) -> Iterator[tuple[Tensor, Images]]:
        """The held-out images in parts, and what the networks say of them: (tasks, classes, images)."""

    def buffers(self) -> Mapping[str, Tensor]:
        """The images and what `_rows` has drawn are no part of it: all batches share the ones, and a recorded window
        draws anew."""
        found = {"seeds": self._seeds, "minibatches": self._minibatches}
        return found if self._own_images is None else {**found, "own images": self._own_images}

    def parted(self) -> Self:
        """Each task draws which images it trains on, OUTER_SHARE fewer than there are."""
        count = len(self._training)
        shuffled = torch.argsort(bits(streams(self._seeds, "parts"), count), dim=1).to(self.device)
        inner, outer = shuffled.tensor_split([count - round(OUTER_SHARE * count)], dim=1)
        batch = self.with_images(inner.contiguous(), "minibatch")
        batch.outer = self.with_images(outer.contiguous(), "outer")
        batch.namespace = batch.outer.namespace = self.namespace
        return batch

    def held_out(self, theta: Tensor) -> HeldOut:
        with torch.no_grad():
            losses = torch.zeros(self.tasks, dtype=self.dtype, device=self.device)
            hits = torch.zeros_like(losses)
            for logits, images in self.held_out_logits(theta):
                labels = images.labels.expand(self.tasks, -1)
                losses += self.cross_entropy(logits, labels) * len(images)
                hits += (logits.argmax(dim=1) == labels).sum(dim=1)
            return HeldOut(losses / len(self._held_out), hits / len(self._held_out))

    @staticmethod
    def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        """(tasks, classes, batch), (tasks, batch) -> (tasks,)."""
        return functional.cross_entropy(logits, labels, reduction="none").mean(dim=1)

    def scaled(self, pixels: Tensor) -> Tensor:
        """Pixels as networks see them."""
        return pixels.to(self.dtype).mul_(self._training.scale)

    def _minibatch(self, step: int | Tensor) -> tuple[Tensor, Tensor]:
        # (tasks, batch, inputs) in this batch's dtype, (tasks, batch) int64
        rows = self._rows(step)
        # index_select takes an eighth of the time of indexing.
        pixels, labels = self._training.pixels, self._training.labels
        few = pixels.numel() <= _SCALED_NUMBERS
        inputs = (
            self._training.as_numbers(self.dtype).index_select(0, rows.reshape(-1))
            if few
            else self.scaled(pixels.index_select(0, rows.reshape(-1)))
        )
        return inputs.view(self.tasks, self.batch_size, -1), labels[rows]

    def _rows(self, step: int | Tensor) -> Tensor:
        if isinstance(step, Tensor):  # a number on the device (models.captured): no branch may depend on it
            return self._images(indices(self._minibatches, step, self.batch_size, self._count))
        block, within = divmod(step, self._steps_drawn)
        if self._drawn is None or self._drawn[0] != block:
            # Numbers are counted through all steps, so these are the ones that each step would draw for itself.
            count = self._steps_drawn * self.batch_size
            rows = self._images(indices(self._minibatches, block, count, self._count))
            self._drawn = block, rows.view(self.tasks, self._steps_drawn, self.batch_size)
        return self._drawn[1][:, within]

    @property
    def _count(self) -> int:
        """Images that a task trains on."""
        return len(self._training) if self._own_images is None else self._own_images.shape[1]

    def _images(self, places: Tensor) -> Tensor:
        """The images at these places among those of each task, (tasks, places)."""
        return places if self._own_images is None else self._own_images.gather(1, places)
