"""Autoencoders of images or of rows of a table, the part without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.families.base import Costs, EvaluationPlan, FamilySpec, Kind, Part, TaskSpec
from models.families.layers import layer_parts
from models.families.mlp import DATA_COSTS, INPUTS, MOST_HELD_OUT
from models.families.recipes import around_muon
from models.families.row_costs import row_costs
from models.table_spec import Table

PLACES = {
    "digits": "models.tasks.data:DIGITS",
    "mnist": "models.tasks.data:MNIST_SET",
    "breast-cancer": "models.tasks.data:BREAST_CANCER",
    "wine": "models.tasks.data:WINE",
}


class AutoencoderSpec(TaskSpec):
    """A network that gives back its inputs, with the mean squared error over rows and columns on random minibatches.

    The outputs are linear. On a table of one's own with groups, each task has the rows of one group; its target is not
    looked at, but rows without one are left out.
    """

    kind: Literal["autoencoder"] = "autoencoder"
    dataset: Literal["digits", "mnist", "breast-cancer", "wine"] | Table = Field(
        "digits", description="In a request also the name of a data set of POST /datasets."
    )
    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (16,), min_length=1, max_length=8, description="Units of the layers between the inputs and the outputs."
    )
    activation: Literal["sigmoid", "relu"] = "sigmoid"
    batch_size: int = Field(128, ge=1, le=4096)
    input_scale: float = Field(1.0, gt=0, le=1000, description="Inputs, which are also the targets, are times this.")
    start_std: float = Field(0.1, gt=0, le=10, description="theta_0 is normal with this standard deviation.")

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """The number of inputs, of each hidden layer's units, and of outputs."""
        inputs = len(self.dataset.inputs) if isinstance(self.dataset, Table) else INPUTS[self.dataset]
        return (inputs, *self.hidden, inputs)

    def parts(self) -> tuple[Part, ...]:
        return layer_parts(self.layer_sizes)

    def costs(self) -> Costs:
        if isinstance(self.dataset, Table):
            return row_costs(self.dataset, self.layer_sizes, batch_size=self.batch_size, most_rows=MOST_HELD_OUT)
        rows, loading, resident = DATA_COSTS[self.dataset]
        numbers = 4 * rows * INPUTS[self.dataset]  # which are kept as numbers, and once more in the batch's dtype
        return row_costs(
            *(None, self.layer_sizes),
            batch_size=self.batch_size,
            most_rows=MOST_HELD_OUT,
            loading_bytes=loading + 2 * numbers,
            resident_bytes=resident + 2 * numbers,
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


KIND = Kind(
    spec=AutoencoderSpec,
    tasks="models.families.autoencoder.tasks:AutoencoderFamily",
    built_in=(
        FamilySpec(
            name="digits-autoencoder",
            title="An autoencoder of 8x8 digits",
            description="64-16-64 sigmoid autoencoder of scikit-learn's 1,797 real digit images, minibatch 128.",
            tasks=AutoencoderSpec(),
            recipe=around_muon(
                0.1, meta_steps=400, tasks=2, validation_tasks=32, validation_interval=50, loss_weighting="sqrt"
            ),
            evaluation=EvaluationPlan(test_tasks=64, tuning_tasks=16, search="halving"),
        ),
    ),
    datasets=PLACES,
)
