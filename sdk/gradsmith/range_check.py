"""Warnings of a learned optimizer that is used far outside what it was trained for."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from gradsmith.errors import OutsideTrainingWarning
from gradsmith.rules.origin import Origin

MOST_TIMES_STEPS = 2
MOST_TIMES_COORDINATES = 100
"""Rules carry over to networks of some ten times the size (benchmarks/RESULTS.md, "Panels"); nobody has shown more."""


class RangeCheck:
    """Warns once for each thing that is far outside of it. origin: None where nothing is known"""

    def __init__(self, origin: Origin | None, planned_steps: int | None) -> None:
        self._origin = origin
        self._steps = 0
        self._warned: set[str] = set()
        if origin is None:
            return
        if origin.worse_than is not None:
            self._warn("verdict", f"when it was measured, {origin.worse_than} did better. Use another optimizer")
        if origin.horizon is not None and planned_steps is not None:
            self._warn_of_steps(origin.horizon, planned_steps, "is to have")

    def stepped(self, coordinates: Callable[[], int]) -> None:
        """A step is made. coordinates: counts the parameters that the optimizer has"""
        self._steps += 1
        origin = self._origin
        if origin is None:
            return
        if origin.horizon is not None and self._steps > MOST_TIMES_STEPS * origin.horizon:
            self._warn_of_steps(origin.horizon, self._steps, "has had")
        if self._steps == 1 and origin.coordinates is not None:
            self._warn_of_coordinates(origin.coordinates, coordinates())

    def _warn_of_coordinates(self, trained: int, coordinates: int) -> None:
        if coordinates > MOST_TIMES_COORDINATES * trained:
            self._warn(
                "coordinates",
                f"it was trained on {trained:,} parameters, and this model has {coordinates:,}. Evaluate it on such a "
                "family first",
            )

    def _warn_of_steps(self, horizon: int, steps: int, has: str) -> None:
        if steps > MOST_TIMES_STEPS * horizon:
            self._warn(
                "steps",
                f"it was trained for {horizon:,} steps, and this run {has} {steps:,}: it may stall or diverge. Train "
                "one for longer runs (recipe.horizon)",
            )

    def _warn(self, what: str, told: str) -> None:
        if what in self._warned:
            return
        self._warned.add(what)
        assert self._origin is not None
        message = f"{self._origin.name}: {told}; warnings.simplefilter('ignore', gradsmith.OutsideTrainingWarning)"
        warnings.warn(f"{message} silences this", OutsideTrainingWarning, stacklevel=4)
