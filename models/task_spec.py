"""What a distribution of tasks describes of itself, whatever its kind: its parameters, its coordinates, what it costs.

`models.families` registers the kinds. This module knows none of them, and imports no torch.
"""

from __future__ import annotations

import importlib
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

if TYPE_CHECKING:
    from models.datasets.inspection import Column
    from models.table_spec import Table

LossesOn = Literal["training", "held_out"]
"""Which data a loss that counts is of: the minibatches that the inner gradients come from, or data that they do not
see."""


class Spec(BaseModel):
    """A frozen description; an unknown field is an error, and so is NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Part(NamedTuple):
    """A group of coordinates of one task that belong together, such as the weights of a layer.

    `role` says what they are: "weight", "bias", or "vector" where nothing more is known of them.
    """

    name: str
    shape: tuple[int, ...]
    role: str

    @property
    def size(self) -> int:
        """Its number of coordinates."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Costs:
    """The memory that ONE task takes, and what the data of all tasks take together.

    Numbers have the width of the run: 4 bytes, or 8 where the backend is `reference`.
    """

    held: int = 0
    """Numbers that a batch keeps for a task as long as it lives."""
    held_bytes: int = 0
    """Bytes beside them, whatever the width of the numbers."""
    drawn: int = 0
    """Numbers that are drawn at random, in float64, when a task is made."""
    used: int = 0
    """Numbers that `losses_and_gradient` takes for a task and gives back."""
    used_bytes: int = 0
    """Bytes beside them, whatever the width of the numbers."""
    working: int = 0
    """Numbers that it takes beside them for however many tasks, where these compute one after the other."""
    held_out_bytes: int = 0
    """Bytes that `held_out` takes at most, for however many tasks."""
    parted_bytes: int = 0
    """Bytes that a task keeps beside them where its data are parted (`TaskSpec.parts_data`)."""
    loading_bytes: int = 0
    """Bytes that the data take while they are read."""
    resident_bytes: int = 0
    """Bytes of the data for as long as the family is open."""


class TaskSpec(Spec):
    """A distribution of tasks: its parameters with their bounds. A subclass has a field `kind`, a Literal with its
    name as the default."""

    nested: ClassVar[frozenset[str]] = frozenset()
    """Its fields that hold tasks of other families."""

    if TYPE_CHECKING:
        kind: Any

    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """The groups of coordinates of one task, in the order in which they lie on its axis."""

    @abstractmethod
    def costs(self) -> Costs:
        """What a task takes in memory. A wrong answer gets a job refused, or its worker killed."""

    @property
    def coordinates_per_task(self) -> int:
        """Numbers that an optimizer moves in one task."""
        return sum(part.size for part in self.parts())

    @property
    def weighted_points(self) -> tuple[Weighted, ...]:
        """The distributions that it is a mixture of, none of which is one; itself alone where it is none."""
        return (Weighted("", self, 1.0),)

    @property
    def parts_data(self) -> bool:
        """Whether a task can train on a part of its data and be judged on the rest (`TaskBatch.parted`)."""
        return False

    @property
    def noisy(self) -> bool:
        """Whether a step's loss and gradient are of data, or of noise, that is drawn for that step."""
        return self.parts_data or bool(self.datasets)

    @property
    def composite(self) -> bool:
        """Whether a loss is a smooth part and absolute values, which the tasks tell apart (`TaskBatch.composite`)."""
        return False

    @property
    def pictured(self) -> bool:
        """Whether a task's parameters can be seen (`TaskBatch.pictures`); an evaluation then keeps some pictures."""
        return False

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of the data sets that the tasks are made of."""
        return ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """The data sets of the workspace that the tasks are made of."""
        return ()

    def misfit(self, inputs: Sequence[Column]) -> str | None:  # noqa: ARG002 - most kinds take any numbers
        """What is wrong with the values of its table's inputs, which the spec itself does not know; None where nothing
        is. Asked when a family is declared, so that no job fails by it."""
        return None

    def narrowed(self, declared: Self) -> tuple[str, str] | None:  # noqa: ARG002 - few kinds look at inputs
        """A field that a job may not change so, and why, or None. declared: the tasks before, whose table was found to
        fit; nobody looks at it again until a worker does"""
        return None


class Weighted(NamedTuple):
    """One distribution of a mixture: the name that it was given, "" where it has none, and how often it is drawn."""

    name: str
    tasks: TaskSpec
    weight: float


UNKNOWN_KIND = "unknown_kind"
"""The type of the error, as pydantic has them, for a spec whose kind is not registered."""

TASK_SPECS: dict[str, type[TaskSpec]] = {}
"""The specs of all kinds by name: what `Tasks` accepts. `models.families` fills it."""


def task_specs() -> dict[str, type[TaskSpec]]:
    """TASK_SPECS, filled. The register is named as a string: it imports this module, never the other way round."""
    importlib.import_module("models.families")
    return TASK_SPECS


class _OfItsKind:
    """Validates an object by the kind that it names, among those that are registered when it is validated.

    pydantic's own discriminated union is fixed when a class is made, which for `FamilySpec` is before any kind is
    registered. Errors, serialization and JSON schema are those of that union.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _validated, serialization=core_schema.simple_ser_schema("any")
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        choices = {name: spec.__pydantic_core_schema__ for name, spec in task_specs().items()}
        return handler(core_schema.tagged_union_schema(choices, discriminator="kind"))


def _validated(value: Any) -> TaskSpec:
    if isinstance(value, TaskSpec):
        return value
    if not isinstance(value, Mapping):
        raise PydanticCustomError("model_type", "Input should be an object with the field `kind`")
    name = value.get("kind")
    specs = task_specs()
    if not isinstance(name, str) or name not in specs:
        reason = importlib.import_module("models.families").no_such_kind(name)
        raise PydanticCustomError(UNKNOWN_KIND, "{reason}", {"reason": reason, "name": name})
    return specs[name].model_validate(value)


if TYPE_CHECKING:
    Tasks: TypeAlias = TaskSpec
else:  # FastAPI would list the abstract TaskSpec among the models that it finds in annotations
    Tasks = Annotated[Any, _OfItsKind()]
"""A TaskSpec of any registered kind."""
