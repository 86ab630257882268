"""How an optimizer's step runs over all of its parameters at once: laid on axes of coordinates, by a compiled kernel or
through torch."""

from gradsmith.axes.base import Axis, Home, Place
from gradsmith.axes.gradients import needs_another, readable
from gradsmith.axes.native import NativeAxis
from gradsmith.axes.placement import MEMORY, Placement
from gradsmith.axes.plain_torch import TorchAxis

__all__ = ["MEMORY", "Axis", "Home", "NativeAxis", "Place", "Placement", "TorchAxis", "needs_another", "readable"]
