"""Neural Art, the part without torch: what a style loss compares, what it costs, and the families with a name."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from models.families.base import Costs, EvaluationPlan, FamilySpec, Kind, Part, TaskSpec
from models.families.recipes import winning
from models.families.style.networks import NETWORKS
from models.rule_spec import RULE_SPECS

_PHOTOS_BYTES = 20 * 2**20  # 754 tiles, read and apart by split
_LOADING_BYTES = 60 * 2**20
_WEIGHTS_BYTES = 6 * 2**20
_COPIES = 12
_LAYERS = "Their mean counts. Default: those of the network, see models/families/style/networks.py."


class StyleSpec(TaskSpec):
    """An image that has the content of a photo and the style of a painting (Gatys et al. 2015, arXiv 1508.06576).

    The loss is content_weight * content + style_weight * style + variation_weight * variation. With features F of a
    layer, divided by their mean over photos: content is the mean square of F - F(photo); style is the mean square of
    G - G(painting), where G has the products of channels, mean over positions; variation is the mean square of the
    differences of neighbouring pixels.
    """

    kind: Literal["style"] = "style"
    network: Literal["vgg19-distilled", "squeezenet"] = "vgg19-distilled"
    style: Literal[
        "composition_vii",
        "sakai_hoitsu_blossom",
        "shipwreck_minotaur",
        "starry_night",
        "the_scream",
        "udnie",
        "water_lilies_1919",
        "wave_kanagawa",
        "woman_with_hat",
    ] = Field("starry_night", description="The painting, by its file in the data set art.")
    size: Literal[64, 128] = Field(64, description="Width and height of the image in pixels.")
    content_layers: tuple[str, ...] | None = Field(None, min_length=1, max_length=8, description=_LAYERS)
    style_layers: tuple[str, ...] | None = Field(None, min_length=1, max_length=8, description=_LAYERS)
    content_weight: float = Field(1.0, ge=0, le=1e6)
    style_weight: float = Field(
        0.5,
        ge=0,
        le=1e6,
        description="The paper gives none of the three weights. These make content and style count alike at the end of "
        "a run, and its pictures show both.",
    )
    variation_weight: float = Field(5.0, ge=0, le=1e6)
    start_std: float = Field(
        1.0, gt=0, le=10, description="A run starts at white noise; 1 is the spread of a photo's pixels."
    )

    @model_validator(mode="after")
    def _the_network_has_the_layers(self) -> StyleSpec:
        names = NETWORKS[self.network].names
        for field in ("content_layers", "style_layers"):
            for name in getattr(self, field) or ():
                if name not in names:
                    raise ValueError(f"{field}: {self.network} has no layer {name!r}; it has {', '.join(names)}")
        return self

    @property
    def compared_content(self) -> tuple[str, ...]:
        """The layers whose features are compared."""
        return self.content_layers or NETWORKS[self.network].content

    @property
    def compared_style(self) -> tuple[str, ...]:
        """The layers whose products of channels are compared."""
        return self.style_layers or NETWORKS[self.network].style

    def parts(self) -> tuple[Part, ...]:
        return (Part("image", (3, self.size, self.size), "vector"),)

    def costs(self) -> Costs:
        """A batch holds photos and what of their features is compared. A step keeps every layer's output for the
        gradient, and some copies of the widest, which convolutions lay out anew (measured: 5 MiB a task of 64x64)."""
        layers = NETWORKS[self.network].shapes(self.size, (*self.compared_content, *self.compared_style))
        held = sum(shape.channels * shape.size**2 for name, shape in layers if name in self.compared_content)
        return Costs(
            held=held,
            held_bytes=8 + self.coordinates_per_task,
            drawn=self.coordinates_per_task,
            used=sum(shape.numbers for _, shape in layers) + _COPIES * max(s.channels * s.size**2 for _, s in layers),
            loading_bytes=_LOADING_BYTES,
            resident_bytes=_PHOTOS_BYTES + _WEIGHTS_BYTES,
        )

    @property
    def noisy(self) -> bool:
        return False

    @property
    def pictured(self) -> bool:
        return True

    @property
    def datasets(self) -> tuple[str, ...]:
        return ("art", self.network)


_RECIPE = winning(
    rule=RULE_SPECS["hyper"].model_validate({"output_scale": 0.4}),  # Adam's best rate on these images
    meta_steps=300,
    horizon=128,
    unroll_steps=32,
    tasks=1,
    meta_learning_rate=0.002,
    validation_tasks=4,
    validation_interval=50,
    pool=4,
)
_PLAN = EvaluationPlan(horizon=128, test_tasks=32, tuning_tasks=4)

KIND = Kind(
    spec=StyleSpec,
    tasks="models.families.style.tasks:StyleFamily",
    built_in=(
        FamilySpec(
            name="neural-art",
            title="Neural Art, 64x64",
            description="Photos in the style of The Starry Night at 64x64 pixels (section 3.4 of the paper).",
            tasks=StyleSpec(),
            recipe=_RECIPE,
            evaluation=_PLAN,
        ),
        FamilySpec(
            name="neural-art-new-style",
            title="Neural Art, another style",
            description="The same photos in the style of Composition VII, for what was trained on neural-art.",
            tasks=StyleSpec(style="composition_vii"),
            recipe=_RECIPE,
            evaluation=_PLAN,
        ),
        FamilySpec(
            name="neural-art-128",
            title="Neural Art, 128x128",
            description="The style of The Starry Night at 128x128 pixels, for what was trained on neural-art.",
            tasks=StyleSpec(size=128),
            recipe=_RECIPE,
            evaluation=_PLAN,
        ),
    ),
    datasets={
        "art": "models.families.style.data:ART",
        "vgg19-distilled": "models.families.style.data:VGG",
        "squeezenet": "models.families.style.data:SQUEEZENET",
    },
)
