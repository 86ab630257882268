"""What a kind of family is made of. All that its torch-free half needs can be imported from here.

A kind has two halves. The first is a `TaskSpec`, which the API reads: parameters with bounds, `parts()` and `costs()`.
The second makes the tasks themselves (`models.tasks.base.Family`) and imports torch; only a worker opens it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from models.spec import EvaluationPlan, FamilySpec, Recipe
from models.task_spec import Costs, Part, Spec, TaskSpec

__all__ = ["Costs", "EvaluationPlan", "FamilySpec", "Kind", "Part", "Recipe", "Spec", "TaskSpec"]


@dataclass(frozen=True)
class Kind:
    """One kind of family, as the register keeps it.

    spec: the torch-free half
    tasks: where the other half is, "package.module:Class": a `models.tasks.base.Family`, called as
        `Class(spec, splits, data_dir)`
    built_in: families of this kind that have a name of their own
    datasets: where each data set that the kind may need is, "package.module:OBJECT" by name: a
        `models.tasks.data.DataSet`
    """

    spec: type[TaskSpec]
    tasks: str
    built_in: tuple[FamilySpec, ...] = ()
    datasets: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What `kind` is in its specs."""
        name = self.spec.model_fields["kind"].default
        assert isinstance(name, str), f"{self.spec.__name__} needs a field `kind`, a Literal with a default"
        return name
