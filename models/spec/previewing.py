"""The job that shows a family before anything is trained on it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from models.rule_spec import Assigned
from models.spec.family import FamilySpec
from models.spec.jobs import Job, in_one_process, require_fitting
from models.spec.plans import PreviewPlan
from models.spec.resources import DEVICE_OF, Resources
from models.spec.training import MetaTrainSpec


class PreviewSpec(Job):
    """A resolved `preview` job: baselines on validation tasks of a family. It has no rule and makes no optimizer."""

    kind: Literal["preview"] = "preview"
    family: FamilySpec
    seed: int = Field(ge=0, lt=2**63)
    evaluation: PreviewPlan
    training: MetaTrainSpec | None = Field(
        None, description="The training whose price is calibrated: a few of its steps are timed. Null: none is."
    )
    resources: Resources

    @property
    def total(self) -> int:
        return 0

    @property
    def measures(self) -> None:
        return None

    @property
    def to_lower(self) -> list[str]:
        own = [] if self.training is None else [name for name in self.training.to_lower if name.startswith("recipe.")]
        return [*own, "evaluation.tuning_tasks", "evaluation.horizon"]

    def follow_up(self, optimizer: str) -> None:
        """None: it makes no optimizer."""

    def assigned(self) -> Assigned:
        return {}

    @model_validator(mode="after")
    def _torch_in_one_process_and_what_fits(self) -> PreviewSpec:
        in_one_process("a preview", self.resources)
        require_fitting(self.evaluation, self.family.tasks, self.family.name)
        if self.resources.backend in DEVICE_OF:
            raise ValueError(
                f"a preview has no rule for the backend {self.resources.backend} to compute; leave backend out, or "
                f"send torch, or reference for float64"
            )
        return self
