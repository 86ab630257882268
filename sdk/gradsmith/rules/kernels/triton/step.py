"""One inner step as a Triton program. Letters and layouts: cell.py."""

from __future__ import annotations

import triton
import triton.language as tl

from gradsmith.rules.kernels.triton.cell import features, lstm_cell


@triton.jit(do_not_specialize=["coordinates"])
def step(
    weights,
    gradients,
    theta,
    state,
    coordinates,
    state_stride,
    p,
    floor,
    scale,
    H: tl.constexpr,
    PADDED: tl.constexpr,
    LAYERS: tl.constexpr,
    LOG_SIGN: tl.constexpr,
    BLOCK: tl.constexpr,
    BF16: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """theta += update and the state moves on, in place; one block of coordinates a program.

    state: rows of `state_stride` numbers, a whole number of blocks: for each layer H rows of h, then H of c
    """
    units = tl.arange(0, PADDED)
    state_stride = state_stride.to(tl.int64)
    mine = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    first, second = features(tl.load(gradients + mine, mask=mine < coordinates, other=0.0), p, floor, LOG_SIGN)
    signal = tl.zeros((PADDED, BLOCK), tl.float32)
    real = (units < H)[:, None]
    for layer in tl.static_range(LAYERS):
        hidden_at = state + (2 * layer * H + units)[:, None] * state_stride + mine[None, :]
        cell_at = hidden_at + H * state_stride
        hidden = tl.load(hidden_at, mask=real, other=0.0)
        cell = tl.load(cell_at, mask=real, other=0.0)
        layer_at = weights + layer * (8 * PADDED * PADDED + 4 * PADDED)
        _, _, _, _, signal, cell = lstm_cell(
            layer_at, signal, first, second, hidden, cell, layer == 0, LOG_SIGN, PADDED, BF16, INTERPRETED
        )
        tl.store(hidden_at, signal, mask=real)
        tl.store(cell_at, cell, mask=real)
    readout_at = weights + LAYERS * (8 * PADDED * PADDED + 4 * PADDED)
    output = tl.sum(tl.load(readout_at + units)[:, None] * signal, axis=0) + tl.load(readout_at + PADDED)
    moved = tl.load(theta + mine, mask=mine < coordinates, other=0.0) + scale * output
    tl.store(theta + mine, moved, mask=mine < coordinates)
