"""A plug-in that is a file: tasks of three sizes, which say that they hold `times` what they do."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from models.families.base import Kind
from tests.models.mixed_family import MixedSpec


class Light(MixedSpec):
    kind: Literal["light"] = "light"
    dimensions: tuple[int, ...] = (50, 100, 200)
    times: int = 1000

    def costs(self):
        told = super().costs()
        return replace(told, held=self.times * told.held)


KIND = Kind(Light, tasks="tests.models.mixed_tasks:MixedFamily")
