"""Regressions on a user's table, one task a group; the part without torch: their parameters and what they cost."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from models.families.base import Costs, Kind, Part, TaskSpec
from models.families.row_costs import row_costs
from models.table_spec import Table

RowLossName = Literal["squared", "huber", "poisson", "logistic", "softmax"]
CLASSIFYING: frozenset[str] = frozenset({"logistic", "softmax"})


class RegressionSpec(TaskSpec):
    """A linear model of each group's rows: its weights and bias, and the mean loss over the rows.

    squared: half the squared error. huber: the same where the error is at most `huber_delta`, linear beyond. poisson:
    the target is a count, and the model its logarithm; the negative log-likelihood. logistic: the second of two
    classes, softmax: several classes; cross-entropy.
    """

    kind: Literal["regression"] = "regression"
    dataset: Table = Field(
        description="In a request the name of a data set (POST /datasets), whose `group` column says which rows belong "
        "to which task. Without groups every task has the whole table."
    )
    loss: RowLossName = "squared"
    huber_delta: float = Field(1.0, gt=0, le=1e6)
    l2: float = Field(0.0, ge=0, le=1e6, description="Half of this times the squared weights is added; not the bias.")
    l1: float = Field(
        0.0, ge=0, le=1e6, description="This times the absolute weights is added: lasso, with l2 an elastic net."
    )
    batch_size: int | None = Field(
        None, ge=1, le=4096, description="Rows of a step, drawn with replacement; null: all rows of a task."
    )
    most_rows: int = Field(
        1024,
        ge=4,
        le=65_536,
        description="Of full batches: a task with more rows draws so many of them, with replacement.",
    )
    standardize: bool = Field(
        True,
        description="Inputs, and targets of squared and huber, with mean 0 and standard deviation 1 over the training "
        "rows of the training groups.",
    )
    start_std: float = Field(0.1, gt=0, le=10, description="theta_0 is normal with this standard deviation.")
    split_seed: int = Field(0, ge=0, le=2**31, description="Parts groups in training, validation and test.")

    @model_validator(mode="after")
    def _target_fits(self) -> Self:
        table = self.dataset
        wrong = None
        if self.loss == "logistic" and len(table.classes) != 2:
            wrong = f"logistic needs a target of two classes, and {table.target} has {_counted(table)}"
        elif self.loss == "softmax" and len(table.classes) < 2:
            wrong = f"softmax needs a target of 2 to 100 classes, and {table.target} has {_counted(table)}"
        elif self.loss not in CLASSIFYING and table.target_lowest is None:
            wrong = f"{self.loss} needs a target of numbers, and {table.target} has words; choose logistic or softmax"
        elif self.loss == "poisson" and not (table.target_is_whole and (table.target_lowest or 0) >= 0):
            wrong = f"poisson needs a target of counts (0, 1, 2 ...), and {table.target} has others"
        if wrong is not None:
            raise PydanticCustomError("unfitting_target", "{wrong}", {"wrong": wrong})
        return self

    @property
    def layer_sizes(self) -> tuple[int, int]:
        """Inputs and outputs."""
        return len(self.dataset.inputs), len(self.dataset.classes) if self.loss == "softmax" else 1

    def parts(self) -> tuple[Part, ...]:
        return (Part("weight", self.layer_sizes, "weight"), Part("bias", self.layer_sizes[1:], "bias"))

    def costs(self) -> Costs:
        return row_costs(self.dataset, self.layer_sizes, batch_size=self.batch_size, most_rows=self.most_rows)

    @property
    def parts_data(self) -> bool:
        return True

    @property
    def composite(self) -> bool:
        return self.l1 > 0 and self.batch_size is None and self.loss != "poisson"

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.dataset,)


def _counted(table: Table) -> str:
    return f"{len(table.classes)} ({', '.join(table.classes[:5])})" if table.classes else "more than 100 values"


KIND = Kind(spec=RegressionSpec, tasks="models.families.regression.tasks:RegressionFamily")
