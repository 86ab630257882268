"""Small transformers on token sequences, the part without torch: parameters, costs, and the family with a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from models.families.base import Costs, EvaluationPlan, FamilySpec, Kind, Part, TaskSpec
from models.families.recipes import around_muon
from models.table_spec import Table

if TYPE_CHECKING:
    from models.datasets.inspection import Column

MOST_HELD_OUT = 256
"""Held-out sequences of a group that count."""


class TransformerSpec(TaskSpec):
    """A causal transformer that predicts each next token of a sequence, with cross-entropy on random minibatches.

    Layers normalize their inputs by the root mean square, without parameters; attention is followed by a GELU network.
    `markov`: sequences of a Markov chain that each task draws anew. On a table of one's own a row is a sequence: its
    inputs, in their order, are tokens from 0 to vocabulary - 1; the target is not looked at.
    """

    kind: Literal["transformer"] = "transformer"
    dataset: Literal["markov"] | Table = Field(
        "markov", description="In a request also the name of a data set of POST /datasets."
    )
    vocabulary: int = Field(16, ge=2, le=256, description="How many tokens there are.")
    length: int = Field(16, ge=2, le=128, description="Tokens of a sequence of `markov`; a table has its inputs.")
    width: int = Field(16, ge=2, le=128, description="Numbers that stand for a token.")
    heads: int = Field(2, ge=1, le=16, description="Heads of attention; divides width.")
    layers: int = Field(1, ge=1, le=4)
    hidden: int = Field(32, ge=1, le=512, description="Units of the network after attention.")
    batch_size: int = Field(16, ge=1, le=512, description="Sequences of a step, drawn with replacement.")
    start_std: float = Field(0.1, gt=0, le=10, description="theta_0 is normal with this standard deviation.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wrong = None
        if self.width % self.heads:
            wrong = f"{self.heads} heads do not divide a width of {self.width}; send heads that do"
        elif not 2 <= self.tokens <= 128:
            wrong = f"a sequence has 2 to 128 tokens, and this table has {self.tokens} inputs"
        if wrong is not None:
            raise PydanticCustomError("unfitting_size", "{wrong}", {"wrong": wrong})
        return self

    def misfit(self, inputs: Sequence[Column]) -> str | None:
        for each in inputs:
            low, high = each.low or 0, each.high or 0
            if each.type == "whole number" and not each.missing and low >= 0 and high < self.vocabulary:
                continue
            what = f"{each.missing} missing values" if each.missing else f"{each.type}s from {low:g} to {high:g}"
            return (
                f"the inputs are not all tokens from 0 to {self.vocabulary - 1}: {each.name} has {what}; send a larger "
                f"vocabulary, or a table of whole numbers without gaps"
            )
        return None

    def narrowed(self, declared: Self) -> tuple[str, str] | None:
        if not isinstance(self.dataset, Table) or self.vocabulary >= declared.vocabulary:
            return None
        return (
            "vocabulary",
            f"{self.vocabulary} is less than its family's {declared.vocabulary}, with which its table was looked "
            f"through; send as many or more, or declare another family with POST /families",
        )

    @property
    def tokens(self) -> int:
        """Tokens of a sequence."""
        return len(self.dataset.inputs) if isinstance(self.dataset, Table) else self.length

    def parts(self) -> tuple[Part, ...]:
        w, h, V = self.width, self.hidden, self.vocabulary
        found = [Part("token", (V, w), "weight"), Part("place", (self.tokens, w), "weight")]
        for n in range(self.layers):
            found += [Part(f"layer{n}.{name}", (w, w), "weight") for name in ("query", "key", "value", "output")]
            found += [Part(f"layer{n}.up", (w, h), "weight"), Part(f"layer{n}.up_bias", (h,), "bias")]
            found += [Part(f"layer{n}.down", (h, w), "weight"), Part(f"layer{n}.down_bias", (w,), "bias")]
        return (*found, Part("head", (w, V), "weight"), Part("head_bias", (V,), "bias"))

    def costs(self) -> Costs:
        """A step keeps what autograd needs of every layer; a Markov chain has its transitions."""
        rows = self.batch_size * self.tokens
        layer = 14 * self.width + 4 * self.hidden + 4 * self.heads * self.tokens
        used = rows * (self.layers * layer + 6 * self.width + 4 * self.vocabulary) + 3 * self.coordinates_per_task
        table = self.dataset if isinstance(self.dataset, Table) else None
        numbers = 0 if table is None else table.rows * (self.tokens + 2)
        held = 0 if table is not None else self.vocabulary**2
        return Costs(
            held=held + self.coordinates_per_task,
            held_bytes=64,
            drawn=max(self.coordinates_per_task, held),
            used=used,
            used_bytes=24 * rows,
            held_out_bytes=0 if table is None else 4 * MOST_HELD_OUT * (used // self.batch_size),
            loading_bytes=40 * numbers,
            resident_bytes=20 * numbers,
        )

    @property
    def noisy(self) -> bool:
        return True

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.dataset,) if isinstance(self.dataset, Table) else ()


KIND = Kind(
    spec=TransformerSpec,
    tasks="models.families.transformer.tasks:TransformerFamily",
    built_in=(
        FamilySpec(
            name="markov-transformer",
            title="A small transformer on Markov chains",
            description="One layer of two heads on sequences of 16 tokens, of a Markov chain drawn anew for each task.",
            tasks=TransformerSpec(),
            recipe=around_muon(0.1, meta_steps=200, tasks=1, validation_tasks=16, validation_interval=50),
            evaluation=EvaluationPlan(test_tasks=32, tuning_tasks=8, search="halving"),
        ),
    ),
)
