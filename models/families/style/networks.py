"""The convolutional networks whose features a style loss compares: their layers, without their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Padding: TypeAlias = Literal["reflect", "zeros"]


@dataclass(frozen=True)
class Conv:
    """A convolution. name: of its rectified output, "" where it is not rectified; tensor: what its weights are called
    in the file"""

    name: str
    tensor: str
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    mode: Padding = "reflect"


@dataclass(frozen=True)
class Pool:
    """A maximum over squares, with stride 2. ceil: whether squares may reach over the edge"""

    kernel: int = 2
    ceil: bool = False


@dataclass(frozen=True)
class Fire:
    """SqueezeNet's module (Iandola et al. 2016, section 3.1): 1x1 to `squeeze` channels, then 1x1 and 3x3 side by side
    to `expand` channels each."""

    name: str
    tensor: str
    squeeze: int
    expand: int


Layer: TypeAlias = Conv | Pool | Fire


class Shape(NamedTuple):
    """What a layer puts out. numbers: how many autograd keeps for it, its own inside ones included"""

    channels: int
    size: int
    numbers: int


@dataclass(frozen=True)
class Network:
    """A pretrained network. It sees `image * scale - means`, where the image is RGB in [0, 1].

    file: of its weights, in the data set of the network's name
    content, style: the layers that are compared unless a spec names others
    """

    file: str
    sha256: str
    layers: tuple[Layer, ...]
    content: tuple[str, ...]
    style: tuple[str, ...]
    scale: float = 1.0
    means: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def names(self) -> tuple[str, ...]:
        """The layers that can be compared, in their order."""
        return tuple(layer.name for layer in self.layers if not isinstance(layer, Pool) and layer.name)

    def up_to(self, names: tuple[str, ...]) -> tuple[Layer, ...]:
        """The layers as far as the last of these."""
        last = max(n for n, layer in enumerate(self.layers) if not isinstance(layer, Pool) and layer.name in names)
        return self.layers[: last + 1]

    def shapes(self, size: int, names: tuple[str, ...]) -> list[tuple[str, Shape]]:
        """The name and the shape of each layer's output, as far as the last of `names`, of an image `size` wide."""
        found: list[tuple[str, Shape]] = []
        for layer in self.up_to(names):
            match layer:
                case Conv():
                    padded = size + 2 * layer.padding
                    before = found[-1][1].channels if found else 3
                    copied = before * padded**2 if layer.mode == "reflect" and layer.padding else 0
                    size = (padded - layer.kernel) // layer.stride + 1
                    shape = Shape(layer.channels, size, copied + layer.channels * size**2)
                case Pool():
                    channels = found[-1][1].channels
                    size = -(-(size - layer.kernel) // 2) + 1 if layer.ceil else (size - layer.kernel) // 2 + 1
                    shape = Shape(channels, size, 3 * channels * size**2)  # indices take 8 bytes
                case Fire():
                    shape = Shape(2 * layer.expand, size, (layer.squeeze + 4 * layer.expand) * size**2)
            found.append(("" if isinstance(layer, Pool) else layer.name, shape))
        return found


def _vgg(tensors: str, channels: int) -> tuple[Layer, ...]:
    return tuple(Conv(f"relu{name[0]}_{name[1]}", f"conv{name}", channels) for name in tensors.split())


VGG = Network(
    file="vgg19_distilled16x.safetensors",
    sha256="b4c6a680ac9697551b048c518e404c33683baf08cbaee3914059e4c0695b55c4",
    layers=(
        Conv("", "conv0", 3, kernel=1, padding=0),
        *_vgg("11 12", 16),
        Pool(),
        *_vgg("21 22", 32),
        Pool(),
        *_vgg("31 32 33 34", 64),
        Pool(),
        *_vgg("41 42 43 44", 128),
        Pool(),
        *_vgg("51", 128),
    ),
    content=("relu3_1",),
    style=("relu1_1", "relu2_1", "relu3_1"),
)
"""VGG-19 up to relu5_1 with a quarter of its channels, distilled for style transfer (Wang et al. 2020, arXiv
2003.08436). Style is compared at the first three layers of Gatys et al. 2015 (arXiv 1508.06576; row c of its figure 1).
Their conv4_2, from which content comes, has 8x8 positions in a 64x64 image, and pictures lose the photo; conv3_1 has
16x16, and a step costs half."""

SQUEEZENET = Network(
    file="squeezenet1_0.safetensors",
    sha256="6673d2a89d8c69712381c9a576d6fd0191e73e6761d75a96cb349c50bc625c52",
    layers=(
        Conv("relu1", "features.0", 96, kernel=7, stride=2, padding=0, mode="zeros"),
        Pool(3, ceil=True),
        Fire("fire2", "features.3", 16, 64),
        Fire("fire3", "features.4", 16, 64),
        Fire("fire4", "features.5", 32, 128),
        Pool(3, ceil=True),
        Fire("fire5", "features.7", 32, 128),
        Fire("fire6", "features.8", 48, 192),
        Fire("fire7", "features.9", 48, 192),
        Fire("fire8", "features.10", 64, 256),
        Pool(3, ceil=True),
        Fire("fire9", "features.12", 64, 256),
    ),
    content=("fire3",),
    style=("relu1", "fire3", "fire5", "fire6"),
    scale=255.0,
    means=(122.679, 116.669, 104.007),
)
"""SqueezeNet 1.0 (Iandola et al. 2016, arXiv 1602.07360), trained on ImageNet. Nobody has published which of its layers
to compare; these have the strides of the others' layers."""

NETWORKS: dict[str, Network] = {"vgg19-distilled": VGG, "squeezenet": SQUEEZENET}
