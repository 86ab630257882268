"""Convolutional networks that classify images, the part without torch: their parameters, what they cost, and the
families with a name."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from models.families.base import Costs, EvaluationPlan, FamilySpec, Kind, Part, TaskSpec
from models.families.recipes import around_muon, winning

Norm = Literal["batch", "group", "none"]
Activation = Literal["relu", "elu", "sigmoid", "tanh"]
DatasetName = Literal["digits", "mnist", "cifar10", "cifar10-subset", "cifar10-jpeg"]

NORM_EPSILON = 1e-5  # torch.nn's


class _Data(NamedTuple):
    """A data set's images. loading and resident: bytes while they are read, and for as long as the family is open."""

    colours: int
    side: int
    training: int
    loading: int
    resident: int


_CIFAR = _Data(3, 32, 50_000, 400 * 2**20, 180 * 2**20)
_DATA: dict[DatasetName, _Data] = {
    "digits": _Data(1, 8, 1_797, 84 * 2**20, 84 * 2**20),  # scikit-learn is more than its data
    "mnist": _Data(1, 28, 60_000, 150 * 2**20, 63 * 2**20),
    "cifar10": _CIFAR,
    "cifar10-subset": _Data(3, 32, 7_044, 80 * 2**20, 26 * 2**20),
    "cifar10-jpeg": _CIFAR,
}
CLASSES = 10


class ConvSpec(TaskSpec):
    """A convolutional network that classifies images with cross-entropy on random minibatches: 3x3 convolutions, each
    with a norm, an activation and 2x2 max-pooling, then dense layers with norm and activation, then the classes."""

    kind: Literal["conv"] = "conv"
    dataset: DatasetName = "digits"
    labels: tuple[Annotated[int, Field(ge=0, lt=CLASSES)], ...] = Field(
        (), max_length=CLASSES, description="The classes that the images are of, 0 to 9. Default: all."
    )
    channels: tuple[Annotated[int, Field(ge=1, le=512)], ...] = Field(
        (16, 16), min_length=1, max_length=5, description="Of each convolution; as many as the network is deep."
    )
    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (16,), max_length=4, description="Units of each dense layer before the classes."
    )
    norm: Norm = Field(
        "batch",
        description="batch: with the statistics of the batch at hand, in training and on held-out images alike. "
        "group: of each image, `groups` groups of channels. none: a bias in its place.",
    )
    groups: int = Field(4, ge=1, le=512, description="Groups that channels, and units, are normalized in.")
    activation: Activation = "relu"
    batch_size: int = Field(128, ge=2, le=4096)
    start_scale: float = Field(
        1.0, gt=0, le=100, description="Weights start normal with this over the root of a unit's inputs; biases at 0."
    )

    @model_validator(mode="after")
    def _fits(self) -> ConvSpec:
        if len(self.labels) == 1 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels {self.labels} are to be two classes or more, each once, or none for all")
        side = _DATA[self.dataset].side
        if side >> len(self.channels) == 0:
            raise ValueError(
                f"images of {self.dataset} are {side} x {side}, and {len(self.channels)} poolings leave nothing of "
                f"them; send {side.bit_length() - 1} channels at most"
            )
        if self.norm == "group" and any(width % self.groups for width in (*self.channels, *self.hidden)):
            raise ValueError(
                f"groups is {self.groups}, which does not divide all of channels {self.channels} and hidden "
                f"{self.hidden}; send a divisor of each"
            )
        return self

    @property
    def colours(self) -> int:
        """Channels of an image."""
        return _DATA[self.dataset].colours

    @property
    def side(self) -> int:
        """An image's height and width."""
        return _DATA[self.dataset].side

    @property
    def classes(self) -> int:
        """Units of the last layer."""
        return len(self.labels) or CLASSES

    @property
    def dense_sizes(self) -> tuple[int, ...]:
        """Inputs of the dense layers, units of each, and the classes."""
        left = self.side >> len(self.channels)
        return (self.channels[-1] * left * left, *self.hidden, self.classes)

    def parts(self) -> tuple[Part, ...]:
        """Weights, then what a norm adds (`scale`, `shift`) or a bias, layer by layer; names begin with the layer's, so
        that `conv*` and `dense*` divide them between two rules."""
        parts: list[Part] = []
        for number, (into, out) in enumerate(pairwise((self.colours, *self.channels))):
            parts += [Part(f"conv{number}.weight", (out, into, 3, 3), "weight"), *self._added(f"conv{number}", out)]
        *hidden, last = pairwise(self.dense_sizes)
        for number, (into, out) in enumerate(hidden):
            parts += [Part(f"dense{number}.weight", (into, out), "weight"), *self._added(f"dense{number}", out)]
        name = f"dense{len(hidden)}"
        return (*parts, Part(f"{name}.weight", last, "weight"), Part(f"{name}.bias", last[1:], "bias"))

    def _added(self, layer: str, out: int) -> tuple[Part, ...]:
        if self.norm == "none":
            return (Part(f"{layer}.bias", (out,), "bias"),)
        return Part(f"{layer}.scale", (out,), "vector"), Part(f"{layer}.shift", (out,), "bias")

    def costs(self) -> Costs:
        """A batch holds seeds alone. Networks compute one after the other: each convolution's numbers before and after
        the pooling, twice where they are the most, and images as bytes and as numbers."""
        data = _DATA[self.dataset]
        inputs = self.batch_size * self.colours * self.side**2
        full = [self.batch_size * width * (self.side >> level) ** 2 for level, width in enumerate(self.channels)]
        dense = self.batch_size * sum(self.dense_sizes)
        return Costs(
            held_bytes=16,
            drawn=self.coordinates_per_task,
            used=self.batch_size * (self.colours * self.side**2) + self.coordinates_per_task,
            used_bytes=self.batch_size * (self.colours * self.side**2 + 40),
            working=inputs + math.ceil(2.25 * sum(full)) + 2 * max(full) + 3 * dense,
            held_out_bytes=32 * 2**20,
            parted_bytes=8 * data.training,
            loading_bytes=data.loading,
            resident_bytes=data.resident,
        )

    @property
    def parts_data(self) -> bool:
        return True

    @property
    def datasets(self) -> tuple[str, ...]:
        return (self.dataset,)


_CIFAR_NETWORK = ConvSpec(dataset="cifar10", channels=(16, 16, 16), hidden=(32,))
_CIFAR_RECIPE = around_muon(
    0.024, meta_learning_rate=0.002, meta_steps=300, tasks=1, validation_tasks=8, validation_interval=50
)
_CIFAR_EVALUATION = EvaluationPlan(test_tasks=16, tuning_tasks=8, search="halving")

KIND = Kind(
    spec=ConvSpec,
    tasks="models.families.conv.tasks:ConvFamily",
    built_in=(
        FamilySpec(
            name="digits-conv",
            title="A small convolutional network on 8x8 digits",
            description="Two 3x3 convolutions of 16 channels and 16 dense units, ReLU and batch norm, on "
            "scikit-learn's 1,797 real digit images, minibatch 128.",
            tasks=ConvSpec(),
            recipe=winning(meta_steps=200, tasks=1, validation_tasks=32, validation_interval=50),
            evaluation=EvaluationPlan(test_tasks=64, tuning_tasks=16, search="halving"),
        ),
        FamilySpec(
            name="cifar10-conv",
            title="The paper's CIFAR-10 network",
            description="Three 3x3 convolutions of 16 channels with max-pooling and 32 dense units, ReLU and batch "
            "norm, minibatch 128 (section 3.3 of the paper).",
            tasks=_CIFAR_NETWORK,
            recipe=_CIFAR_RECIPE,
            evaluation=_CIFAR_EVALUATION,
        ),
        FamilySpec(
            name="cifar5-conv",
            title="The paper's network on five of CIFAR-10's classes",
            description="cifar10-conv on the images of airplane, automobile, bird, cat and deer. `tasks.labels` "
            "[5, 6, 7, 8, 9] are the held-out classes.",
            tasks=_CIFAR_NETWORK.model_copy(update={"labels": (0, 1, 2, 3, 4)}),
            recipe=_CIFAR_RECIPE,
            evaluation=_CIFAR_EVALUATION,
        ),
        FamilySpec(
            name="cifar2-conv",
            title="The paper's network on two of CIFAR-10's classes",
            description="cifar10-conv on the images of airplane and automobile.",
            tasks=_CIFAR_NETWORK.model_copy(update={"labels": (0, 1)}),
            recipe=_CIFAR_RECIPE,
            evaluation=_CIFAR_EVALUATION,
        ),
    ),
    datasets={
        "digits": "models.tasks.data:DIGITS",
        "mnist": "models.tasks.data:MNIST_SET",
        "cifar10": "models.tasks.cifar:WHOLE",
        "cifar10-subset": "models.tasks.cifar:SUBSET",
        "cifar10-jpeg": "models.tasks.cifar:JPEG",
    },
)
