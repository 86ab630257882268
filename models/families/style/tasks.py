"""Neural Art: images whose features are those of a photo, and whose features' statistics are those of a painting.

Andrychowicz et al. 2016, section 3.4; the loss is that of Gatys et al. 2015 (arXiv 1508.06576) with a smoothness term.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.families.style import StyleSpec
from models.families.style.data import NETWORK_FILES
from models.families.style.features import Features
from models.families.style.networks import NETWORKS
from models.families.style.photos import content_images, painting
from models.spec import Split
from models.tasks.base import Family, TaskBatch
from models.tasks.randomness import drawn, indices, normals, streams

MIDDLE, SPREAD = 0.5, 0.25
"""An image is MIDDLE + SPREAD * theta, RGB in [0, 1]: theta has the mean and the spread of natural images' pixels."""
CALIBRATION_IMAGES = 16


class StyleBatch(TaskBatch):
    """theta is one image for each task: (tasks, 3, size, size)."""

    def __init__(
        self, spec: StyleSpec, features: Features, seeds: Tensor, photos: Tensor, style: Tensor, dtype: torch.dtype
    ) -> None:
        """photos: each task's content image, uint8 (tasks, 3, size, size); style: the painting, uint8 (3, 64, 64)"""
        super().__init__(seeds.shape[0], spec.coordinates_per_task, dtype, photos.device)
        self.spec = spec
        self._features = features
        self._seeds = seeds
        self._photos = photos
        self._painting = style
        with torch.no_grad():
            wanted = features.forward(style[None].to(dtype) / 255)
            self._grams = {name: _gram(wanted[name]) for name in spec.compared_style}
            given = features.forward(photos.to(dtype) / 255)
            self._contents = {name: given[name] for name in spec.compared_content}

    def initial(self) -> Tensor:
        start = drawn(normals, streams(self._seeds, "start"), self.coordinates_per_task, self.dtype)
        return start.mul_(self.spec.start_std).to(self.device).reshape(-1)

    def buffers(self) -> Mapping[str, Tensor]:
        """The painting's statistics are no part of it: all batches of a family share them."""
        return {"seeds": self._seeds, "photos": self._photos} | {
            f"content {name}": content for name, content in self._contents.items()
        }

    def losses_and_gradient(self, theta: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            free = theta.detach().requires_grad_()
            losses = self.losses(free, step)
            (gradient,) = torch.autograd.grad(losses.sum(), free)
        return losses.detach(), gradient

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:  # noqa: ARG002 - there are no minibatches
        images = self._images(theta)
        features = self._features.forward(images)
        total = self.spec.variation_weight * _variation(images)
        for name, content in self._contents.items():
            weight = self.spec.content_weight / len(self._contents)
            total = total + weight * (features[name] - content).square().mean(dim=(1, 2, 3))
        for name, gram in self._grams.items():
            weight = self.spec.style_weight / len(self._grams)
            total = total + weight * (_gram(features[name]) - gram).square().mean(dim=(1, 2))
        return total

    def hessian_vector(
        self,
        theta: Tensor,
        step: int | Tensor,  # noqa: ARG002 - there are no minibatches
        v: Tensor,
        *,
        gradient: Tensor | None = None,  # noqa: ARG002 - the product is exact without it
    ) -> Tensor:
        """Exact, up to rounding, wherever no unit stands at its kink: features F(x) are piecewise linear, so that the
        Hessian of f(F(x)) is J' f'' J, with f'' in closed form. Costs a forward pass along v beside a gradient."""
        directions = SPREAD * v.view(self._shape)
        with torch.enable_grad():
            images = self._images(theta.detach()).requires_grad_()
            features = self._features.along(images, directions)
            with torch.no_grad():
                cotangents = self._curved({name: (value.detach(), dx) for name, (value, dx) in features.items()})
            values = [features[name][0] for name in cotangents]
            (product,) = torch.autograd.grad(values, images, [*cotangents.values()])
        product = product + self.spec.variation_weight * _variation_gradient(directions)
        return (SPREAD * product).reshape(-1)

    def pictures(self, theta: Tensor) -> Tensor:
        return (self._images(theta).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)

    def given_pictures(self) -> Mapping[str, Tensor]:
        painting = self._painting.expand(self.tasks, -1, -1, -1)
        return {name: images.permute(0, 2, 3, 1) for name, images in (("content", self._photos), ("style", painting))}

    @property
    def scales(self) -> Mapping[str, float]:
        """What each compared layer's features are divided by."""
        return self._features.scales

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        return self.tasks, 3, self.spec.size, self.spec.size

    def _images(self, theta: Tensor) -> Tensor:
        return MIDDLE + SPREAD * theta.view(self._shape)

    def _curved(self, features: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Second derivatives of the loss by the features, times the features' derivatives."""
        found: dict[str, Tensor] = {}
        for name in self._contents:
            dF = features[name][1]
            found[name] = dF * (2 * self.spec.content_weight / len(self._contents) / dF[0].numel())
        for name, gram in self._grams.items():
            F, dF = (each.flatten(2) for each in features[name])  # (tasks, channels, positions)
            channels, positions = F.shape[1:]
            dG = (dF @ F.transpose(1, 2)).div_(positions)
            dG = dG + dG.transpose(1, 2)
            factor = 4 * self.spec.style_weight / len(self._grams) / (channels**2 * positions)
            curved = torch.baddbmm(dG @ F, _gram(features[name][0]) - gram, dF).mul_(factor).view_as(features[name][0])
            found[name] = found[name] + curved if name in found else curved
        return found


def _gram(features: Tensor) -> Tensor:
    """Products of channels, mean over positions: (tasks, channels, height, width) -> (tasks, channels, channels)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def _variation(images: Tensor) -> Tensor:
    """The mean square of differences of neighbours, down and across: (tasks, 3, height, width) -> (tasks,)."""
    down, across = images.diff(dim=2), images.diff(dim=3)
    return down.square().mean(dim=(1, 2, 3)) + across.square().mean(dim=(1, 2, 3))


def _variation_gradient(images: Tensor) -> Tensor:
    """`_variation` is a quadratic form, so its gradient at a direction is its Hessian times that direction."""
    found = torch.zeros_like(images)
    for dim in (2, 3):
        steps = images.diff(dim=dim)
        steps = steps * (2 / steps[0].numel())
        size = images.shape[dim]
        found.narrow(dim, 1, size - 1).add_(steps)
        found.narrow(dim, 0, size - 1).sub_(steps)
    return found


class StyleFamily(Family):
    """One painting; a photo and white noise to start from are drawn for each task."""

    def __init__(self, spec: StyleSpec, splits: Collection[Split], data_dir: Path | None) -> None:
        super().__init__(f"style/{spec.model_dump_json()}", spec.coordinates_per_task, splits)
        self.spec = spec
        network = NETWORKS[spec.network]
        photos = content_images(data_dir, spec.size)
        content = NETWORK_FILES[spec.network].read(data_dir, network.file)
        features = Features.from_file(network, content, (*spec.compared_content, *spec.compared_style))
        # The scales are those of training photos at the smaller size, whatever the size of the tasks.
        usual = content_images(data_dir, 64)[Split.TRAIN]
        spread = torch.linspace(0, len(usual) - 1, CALIBRATION_IMAGES).long()
        self._features = features.scaled(usual[spread].float() / 255)
        self._photos = {split: images for split, images in photos.items() if split in splits}
        self._painting = painting(data_dir, spec.style)

    def _batches(self, seeds: Tensor, split: Split, dtype: torch.dtype, device: torch.device) -> tuple[TaskBatch, ...]:
        photos = self._photos[split]
        chosen = photos[indices(streams(seeds, "photo"), 0, 1, len(photos))[:, 0]]
        features = self._features.to(dtype, device)
        return (StyleBatch(self.spec, features, seeds, chosen.to(device), self._painting.to(device), dtype),)
