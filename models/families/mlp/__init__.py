"""Networks that classify images, the part without torch: their parameters, what they cost, and the families with a
name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from models.families.base import Costs, EvaluationPlan, FamilySpec, Kind, Part, TaskSpec
from models.families.layers import layer_parts
from models.families.recipes import around_muon, winning
from models.families.row_costs import row_costs
from models.table_spec import Table

INPUTS = {"digits": 64, "mnist": 784, "breast-cancer": 30, "wine": 13}
CLASSES = {"digits": 10, "mnist": 10, "breast-cancer": 2, "wine": 3}
_TRAINING_IMAGES = {"digits": 1_797, "mnist": 60_000, "breast-cancer": 569, "wine": 178}  # at most
_SCIKIT_LEARN_BYTES = 84 * 2**20  # it is more than its data
_LOADING_BYTES = {"mnist": 150 * 2**20}  # 70,000 images, checked and split
_RESIDENT_BYTES = {"mnist": 63 * 2**20}
_HELD_OUT_BYTES = 32 * 2**20
DATA_COSTS = {
    name: (rows, _LOADING_BYTES.get(name, _SCIKIT_LEARN_BYTES), _RESIDENT_BYTES.get(name, _SCIKIT_LEARN_BYTES))
    for name, rows in _TRAINING_IMAGES.items()
}
"""The most rows of each data set, and the bytes that it takes while it is loaded and afterwards."""
MOST_HELD_OUT = 1024
"""Held-out rows of a group that count, of a table of one's own."""


class MLPSpec(TaskSpec):
    """A multi-layer perceptron that classifies images, or rows of a table, with cross-entropy on random minibatches.

    On a table of one's own with groups, each task has the rows of one group, with inputs of mean 0 and standard
    deviation 1 over the training rows of the training groups.
    """

    kind: Literal["mlp"] = "mlp"
    dataset: Literal["digits", "mnist", "breast-cancer", "wine"] | Table = Field(
        "digits", description="In a request also the name of a data set of POST /datasets."
    )
    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field((20,), max_length=8)
    activation: Literal["sigmoid", "relu"] = "sigmoid"
    batch_size: int = Field(128, ge=1, le=4096)
    input_scale: float = Field(1.0, gt=0, le=1000, description="Inputs are times this.")
    start_std: float = Field(0.1, gt=0, le=10, description="theta_0 is normal with this standard deviation.")

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """The number of inputs, of each hidden layer's units, and of classes."""
        if isinstance(self.dataset, Table):
            return (len(self.dataset.inputs), *self.hidden, len(self.dataset.classes))
        return (INPUTS[self.dataset], *self.hidden, CLASSES[self.dataset])

    def parts(self) -> tuple[Part, ...]:
        return layer_parts(self.layer_sizes)

    def costs(self) -> Costs:
        """A batch holds seeds alone. A step takes images as bytes and as numbers, every layer's activations, and the
        gradient of a layer before it is in place."""
        if isinstance(self.dataset, Table):
            return row_costs(self.dataset, self.layer_sizes, batch_size=self.batch_size, most_rows=MOST_HELD_OUT)
        inputs, *others = self.layer_sizes
        rows, loading, resident = DATA_COSTS[self.dataset]
        return Costs(
            held_bytes=16,
            drawn=self.coordinates_per_task,
            used=self.batch_size * (inputs + 4 * sum(others)) + self.coordinates_per_task,
            used_bytes=self.batch_size * (inputs + 40),
            held_out_bytes=_HELD_OUT_BYTES,
            parted_bytes=8 * rows,
            loading_bytes=loading,
            resident_bytes=resident,
        )

    @property
    def parts_data(self) -> bool:
        return True

    @property
    def datasets(self) -> tuple[str, ...]:
        return () if isinstance(self.dataset, Table) else (self.dataset,)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.dataset,) if isinstance(self.dataset, Table) else ()

    @field_validator("dataset")
    @classmethod
    def _classifies(cls, dataset: str | Table) -> str | Table:
        if isinstance(dataset, Table) and len(dataset.classes) < 2:
            raise PydanticCustomError(
                "unfitting_target",
                "a network needs a target of 2 to 100 classes, and {target} has others",
                {"target": dataset.target},
            )
        return dataset


DIGITS = FamilySpec(
    name="digits-mlp",
    title="A small network on 8x8 digits",
    description="64-20-10 sigmoid perceptron on scikit-learn's 1,797 real digit images, minibatch 128.",
    tasks=MLPSpec(dataset="digits"),
    recipe=around_muon(
        0.3, meta_steps=600, tasks=2, loss_weighting="sqrt", validation_tasks=64, validation_interval=50, starts=3
    ),
    evaluation=EvaluationPlan(test_tasks=128, tuning_tasks=32, search="halving"),
)
MNIST = FamilySpec(
    name="mnist-mlp",
    title="The paper's MNIST network",
    description="784-20-10 sigmoid perceptron on MNIST, minibatch 128 (section 3.2 of the paper).",
    tasks=MLPSpec(dataset="mnist"),
    recipe=around_muon(
        0.1, meta_steps=600, tasks=1, validation_tasks=32, validation_interval=100, starts=2, start_steps=100
    ),
    evaluation=EvaluationPlan(test_tasks=64, tuning_tasks=16, search="halving"),
)

TABLES = tuple(
    FamilySpec(
        name=f"{dataset}-mlp",
        title=f"A small network on {words}",
        description=f"{layers} sigmoid perceptron on scikit-learn's {rows} {words}, minibatch 128.",
        tasks=MLPSpec(dataset=dataset),
        recipe=winning(meta_steps=400, tasks=2, validation_tasks=64, validation_interval=50),
        evaluation=DIGITS.evaluation,
    )
    for dataset, words, layers, rows in (
        ("breast-cancer", "breast cancer samples", "30-20-2", 569),
        ("wine", "wines", "13-20-3", 178),
    )
)


def for_200_steps(family: FamilySpec) -> FamilySpec:
    """The same tasks, twice as long (the paper's figure 4, right)."""
    return family.model_copy(
        update={
            "name": f"{family.name}-200-steps",
            "title": f"{family.title}, 200 steps",
            "description": f"The tasks of {family.name}, trained and measured for 200 steps.",
            "recipe": family.recipe.model_copy(update={"horizon": 200}),
            "evaluation": family.evaluation.model_copy(update={"horizon": 200}),
        }
    )


def with_other_networks(family: FamilySpec) -> tuple[FamilySpec, ...]:
    """The networks on which the paper measures what was trained on `family` (its figure 5): more units, two hidden
    layers, another activation."""
    changes: tuple[tuple[str, str, dict[str, object]], ...] = (
        ("40-units", "40 hidden units", {"hidden": (40,)}),
        ("2-layers", "two hidden layers of 20 units", {"hidden": (20, 20)}),
        ("relu", "ReLU in place of the sigmoid", {"activation": "relu"}),
    )
    return tuple(
        family.model_copy(
            update={
                "name": f"{family.name}-{name}",
                "title": f"{family.title}, {words}",
                "description": f"The tasks of {family.name} with {words} (section 3.2 of the paper).",
                "tasks": family.tasks.model_copy(update=changed),
            }
        )
        for name, words, changed in changes
    )


KIND = Kind(
    spec=MLPSpec,
    tasks="models.families.mlp.tasks:opened",
    built_in=(
        *(each for family in (DIGITS, MNIST) for each in (family, for_200_steps(family), *with_other_networks(family))),
        *TABLES,
    ),
    datasets={
        "digits": "models.tasks.data:DIGITS",
        "mnist": "models.tasks.data:MNIST_SET",
        "breast-cancer": "models.tasks.data:BREAST_CANCER",
        "wine": "models.tasks.data:WINE",
    },
)
