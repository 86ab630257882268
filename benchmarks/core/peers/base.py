"""What a worker process asks of a peer. numpy alone."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Weights = dict[str, np.ndarray[Any, Any]]
"""The rule's tensors by the product's names: layers.0.weight (80, 22), layers.0.bias (80,), layers.1.weight (80, 40),
layers.1.bias, readout_weight (20,), readout_bias (1,). Gates in torch's order, input columns before hidden ones."""


class Peer(Protocol):
    about: dict[str, str]
    """Name, versions and the settings that matter."""

    counted_losses: int
    """Losses beyond theta_0's that one window counts: `unroll_steps`, or one fewer for a peer whose window counts
    theta_0 .. theta_(T-1), of which the first is a constant."""

    def begin(self) -> None:
        """Put every task at theta_0, with an empty memory. Until it is called the first time, a peer holds its library,
        the data and the rule's weights, and nothing of a run."""

    def gradient(self) -> Weights:
        """Meta-gradient of the first window from theta_0: losses summed over steps, averaged over tasks."""

    def run(self, meta_steps: int) -> None:
        """Runs that many meta-steps after `begin`: inner steps, meta-gradient, Adam. All are done when it returns."""
