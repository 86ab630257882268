"""docs/your-own-problem.md: each family on it can be declared, and its tasks take a step."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from app.jobs.declaring import FamilyRequest, declared_family
from models.families import KINDS
from models.families.expression.operations import OPERATIONS
from models.spec import Split
from models.tasks.catalogue import open_for_training

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "your-own-problem.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```json\n(.*?)```", PAGE, re.S)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_families_of_the_page_lose_when_they_follow_their_gradient(block: str) -> None:
    family = declared_family(FamilyRequest.model_validate(json.loads(block)))
    found = open_for_training(family.tasks).sample(Split.TRAIN, seed=0, trajectory=0, tasks=3, dtype=torch.float64)
    for batch in found:  # several of a mixture
        theta = batch.initial()
        losses, gradient = batch.losses_and_gradient(theta, 0)
        assert bool((batch.losses(theta - 1e-4 * gradient, 0) < losses).all())


def test_the_page_names_every_function() -> None:
    assert len(BLOCKS) == 4
    assert [name for name in OPERATIONS if not re.search(rf"\b{name}\b", PAGE)] == []


def test_the_page_names_every_kind() -> None:
    assert [name for name in KINDS if f"`{name}`" not in PAGE] == []
