"""`Tape`: what the steps of a window leave for its gradient, which then need not compute it again.

Without it, nearly half of the work of a window's gradient is to compute once more what its steps computed. Keeping all
of that, the gates and c of every step, takes 800 bytes a coordinate and step for the 2x20 LSTM; a budget says how much
memory it may take.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradsmith.rules.kernels.sizes import Sizes


@dataclass(frozen=True)
class Tape:
    """data: (steps, blocks, kept layers, 5 hidden, block): the gates i, f, g, o and c, of the layers from `first_layer`
    on, for the first `blocks` blocks. The upper layers are the first to be kept, whose products are the larger ones."""

    data: Tensor
    first_layer: int
    room: Tensor  # what `data` is a part of

    @property
    def steps(self) -> int:
        return self.data.shape[0]

    @property
    def blocks(self) -> int:
        return self.data.shape[1]

    @classmethod
    def within(
        cls, budget_bytes: int, sizes: Sizes, steps: int, blocks: int, block: int, before: Tape | None = None
    ) -> Tape | None:
        """A tape for as much of a window of `steps` steps on `blocks` blocks as fits the budget; None if nothing fits.

        Memory is only taken when the steps write it; `before`, which is not to be used again, gives its own where that
        is enough.
        """
        layer_floats = steps * 5 * sizes.hidden * block  # of one block
        budget = budget_bytes // 4
        layers = max(1, min(sizes.layers, budget // (layer_floats * max(1, blocks))))
        blocks = min(blocks, budget // (layer_floats * layers))
        if blocks == 0:
            return None
        floats = layer_floats * layers * blocks
        whole = None if before is None else before.room
        if whole is None or whole.numel() < floats:
            whole = torch.empty(floats, dtype=torch.float32, device="cpu")
        data = whole[:floats].view(steps, blocks, layers, 5 * sizes.hidden, block)
        return cls(data, sizes.layers - layers, whole)
