"""A window's gradient as a Triton program: a block of coordinates is replayed from the state before the window, run
backward, and its share of the weights' gradient added up. T steps; other letters and layouts: cell.py.

What the replay leaves for the backward pass lies in slots of global memory that belong to the program alone, and stays
in the L2 cache as far as that goes. Threads read there what others of the program wrote: hence the barriers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gradsmith.rules.kernels.triton.cell import features, lstm_cell, product, tanh


@triton.jit
def _add(at, value, mask):
    tl.store(at, tl.load(at, mask=mask, other=0.0) + value, mask=mask)


@triton.jit
def _replay(
    weights,
    G,
    G_stride,
    snapshot,
    state_stride,
    slots,
    mine,
    steps,
    coordinates,
    p,
    floor,
    H: tl.constexpr,
    PADDED: tl.constexpr,
    LAYERS: tl.constexpr,
    LOG_SIGN: tl.constexpr,
    BLOCK: tl.constexpr,
    BF16: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """The window forward. Slot t keeps, for each layer, the gates of step t and the cell and hidden state before it."""
    units = tl.arange(0, PADDED)
    real = (units < H)[:, None]
    tile = units[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    for layer in tl.static_range(LAYERS):
        at = snapshot + (2 * layer * H + units)[:, None] * state_stride + mine[None, :]
        hidden = tl.load(at, mask=real, other=0.0)
        cell = tl.load(at + H * state_stride, mask=real, other=0.0)
        kept = slots + (6 * layer * H) * BLOCK + tile
        tl.store(kept + 4 * H * BLOCK, cell, mask=real)
        tl.store(kept + 5 * H * BLOCK, hidden, mask=real)
    for t in range(steps):
        tl.debug_barrier()  # other threads of this program wrote what is read now
        gradient = tl.load(G + t * G_stride + mine, mask=mine < coordinates, other=0.0)
        first, second = features(gradient, p, floor, LOG_SIGN)
        signal = tl.zeros((PADDED, BLOCK), tl.float32)
        for layer in tl.static_range(LAYERS):
            kept = slots + t * (6 * LAYERS * H * BLOCK) + (6 * layer * H) * BLOCK + tile
            cell = tl.load(kept + 4 * H * BLOCK, mask=real, other=0.0)
            hidden = tl.load(kept + 5 * H * BLOCK, mask=real, other=0.0)
            layer_at = weights + layer * (8 * PADDED * PADDED + 4 * PADDED)
            write, forget, candidate, show, signal, cell = lstm_cell(
                layer_at, signal, first, second, hidden, cell, layer == 0, LOG_SIGN, PADDED, BF16, INTERPRETED
            )
            tl.store(kept, write, mask=real)
            tl.store(kept + H * BLOCK, forget, mask=real)
            tl.store(kept + 2 * H * BLOCK, candidate, mask=real)
            tl.store(kept + 3 * H * BLOCK, show, mask=real)
            following = kept + 6 * LAYERS * H * BLOCK
            tl.store(following + 4 * H * BLOCK, cell, mask=real)
            tl.store(following + 5 * H * BLOCK, signal, mask=real)


@triton.jit
def _returned(
    at, delta, total, GATE: tl.constexpr, PADDED: tl.constexpr, BF16: tl.constexpr, INTERPRETED: tl.constexpr
):
    """A gate's difference, carried back through one of its matrices and added: (PADDED inputs, BLOCK)."""
    units = tl.arange(0, PADDED)
    transposed = tl.load(at + (GATE * PADDED + units)[None, :] * PADDED + units[:, None])
    return product(transposed, delta, total, BF16, INTERPRETED)


@triton.jit
def _backward(
    weights,
    D,
    D_stride,
    slots,
    carried,
    mine,
    steps,
    coordinates,
    scale,
    H: tl.constexpr,
    PADDED: tl.constexpr,
    LAYERS: tl.constexpr,
    BLOCK: tl.constexpr,
    BF16: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """The window backward: the gates in the slots give way to the differences before their activations.

    carried: for each layer, d/d(hidden state) and d/d(cell) between two steps
    """
    units = tl.arange(0, PADDED)
    real = (units < H)[:, None]
    tile = units[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    readout = tl.load(weights + LAYERS * (8 * PADDED * PADDED + 4 * PADDED) + units)
    for layer in tl.static_range(LAYERS):
        nothing = tl.zeros((PADDED, BLOCK), tl.float32)
        tl.store(carried + (2 * layer * H) * BLOCK + tile, nothing, mask=real)
        tl.store(carried + (2 * layer * H + H) * BLOCK + tile, nothing, mask=real)
    for passed in range(steps):
        tl.debug_barrier()
        t = steps - 1 - passed
        weight = tl.load(D + t * D_stride + mine, mask=mine < coordinates, other=0.0)
        above = readout[:, None] * (scale * weight)[None, :]
        for layer in tl.static_range(LAYERS - 1, -1, -1):
            kept = slots + t * (6 * LAYERS * H * BLOCK) + (6 * layer * H) * BLOCK + tile
            hidden_at = carried + (2 * layer * H) * BLOCK + tile
            cell_at = hidden_at + H * BLOCK
            write = tl.load(kept, mask=real, other=0.0)
            forget = tl.load(kept + H * BLOCK, mask=real, other=0.0)
            candidate = tl.load(kept + 2 * H * BLOCK, mask=real, other=0.0)
            show = tl.load(kept + 3 * H * BLOCK, mask=real, other=0.0)
            before = tl.load(kept + 4 * H * BLOCK, mask=real, other=0.0)
            after = tanh(tl.load(kept + (6 * LAYERS * H + 4 * H) * BLOCK, mask=real, other=0.0))
            d_hidden = tl.load(hidden_at, mask=real, other=0.0) + above
            d_cell = tl.load(cell_at, mask=real, other=0.0) + d_hidden * show * (1.0 - after * after)
            d_write = d_cell * candidate * write * (1.0 - write)
            d_forget = d_cell * before * forget * (1.0 - forget)
            d_candidate = d_cell * write * (1.0 - candidate * candidate)
            d_show = d_hidden * after * show * (1.0 - show)
            tl.store(cell_at, d_cell * forget, mask=real)
            tl.store(kept, d_write, mask=real)
            tl.store(kept + H * BLOCK, d_forget, mask=real)
            tl.store(kept + 2 * H * BLOCK, d_candidate, mask=real)
            tl.store(kept + 3 * H * BLOCK, d_show, mask=real)
            layer_at = weights + layer * (8 * PADDED * PADDED + 4 * PADDED)
            below = layer_at + 4 * PADDED * PADDED
            d_hidden = _returned(below, d_write, tl.zeros_like(d_write), 0, PADDED, BF16, INTERPRETED)
            d_hidden = _returned(below, d_forget, d_hidden, 1, PADDED, BF16, INTERPRETED)
            d_hidden = _returned(below, d_candidate, d_hidden, 2, PADDED, BF16, INTERPRETED)
            d_hidden = _returned(below, d_show, d_hidden, 3, PADDED, BF16, INTERPRETED)
            tl.store(hidden_at, d_hidden, mask=real)
            if layer > 0:
                above = _returned(layer_at, d_write, tl.zeros_like(d_write), 0, PADDED, BF16, INTERPRETED)
                above = _returned(layer_at, d_forget, above, 1, PADDED, BF16, INTERPRETED)
                above = _returned(layer_at, d_candidate, above, 2, PADDED, BF16, INTERPRETED)
                above = _returned(layer_at, d_show, above, 3, PADDED, BF16, INTERPRETED)


@triton.jit
def _weigh(
    found,
    G,
    G_stride,
    D,
    D_stride,
    slots,
    mine,
    steps,
    coordinates,
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
    """The weights' gradient of one block, from the slots, added to `found`."""
    units = tl.arange(0, PADDED)
    rows = tl.arange(0, 4 * PADDED)  # of all four gates
    lanes = tl.arange(0, BLOCK)
    columns = tl.arange(0, 16)  # of a narrow factor: the features, and ones for the bias
    turned = lanes[:, None] + units[None, :] * BLOCK  # (BLOCK, PADDED)
    real = (units < H)[None, :]
    tl.debug_barrier()
    for layer in tl.static_range(LAYERS):
        layer_found = found + layer * (8 * PADDED * PADDED + 4 * PADDED)
        by_hidden = tl.zeros((4 * PADDED, PADDED), tl.float32)
        by_signal = tl.zeros((4 * PADDED, PADDED), tl.float32)
        by_narrow = tl.zeros((4 * PADDED, 16), tl.float32)
        from_gate = (rows // PADDED) * H + rows % PADDED
        for t in range(steps):
            kept = slots + t * (6 * LAYERS * H * BLOCK) + (6 * layer * H) * BLOCK
            delta = tl.load(
                kept + from_gate[:, None] * BLOCK + lanes[None, :], mask=(rows % PADDED < H)[:, None], other=0.0
            )
            hidden = tl.load(kept + 5 * H * BLOCK + turned, mask=real, other=0.0)
            by_hidden = product(delta, hidden, by_hidden, BF16, INTERPRETED)
            narrow = tl.where((columns == 2)[None, :], 1.0, tl.zeros((BLOCK, 16), tl.float32))
            if layer == 0:
                gradient = tl.load(G + t * G_stride + mine, mask=mine < coordinates, other=0.0)
                first, second = features(gradient, p, floor, LOG_SIGN)
                narrow = tl.where((columns == 0)[None, :], first[:, None], narrow)
                if LOG_SIGN:
                    narrow = tl.where((columns == 1)[None, :], second[:, None], narrow)
            else:  # the layer below's hidden state after this step
                signal = tl.load(kept + (6 * LAYERS * H - H) * BLOCK + turned, mask=real, other=0.0)
                by_signal = product(delta, signal, by_signal, BF16, INTERPRETED)
            by_narrow = product(delta, narrow, by_narrow, BF16, INTERPRETED)
        square = rows[:, None] * PADDED + units[None, :]
        everywhere = rows[:, None] >= 0
        _add(layer_found + 4 * PADDED * PADDED + square, by_hidden, everywhere)
        bias_at = layer_found + 8 * PADDED * PADDED + rows
        _add(bias_at[:, None] + 0 * columns[None, :], by_narrow, (columns == 2)[None, :])
        if layer == 0:
            _add(layer_found + rows[:, None] * PADDED + columns[None, :], by_narrow, (columns < 2)[None, :])
        else:
            _add(layer_found + square, by_signal, everywhere)
    by_readout = tl.zeros((BLOCK, PADDED), tl.float32)
    by_constant = tl.zeros((BLOCK,), tl.float32)
    for t in range(steps):
        weight = scale * tl.load(D + t * D_stride + mine, mask=mine < coordinates, other=0.0)
        following = slots + (t + 1) * (6 * LAYERS * H * BLOCK)
        shown = tl.load(following + (6 * LAYERS * H - H) * BLOCK + turned, mask=real, other=0.0)
        by_readout += shown * weight[:, None]
        by_constant += weight
    readout_found = found + LAYERS * (8 * PADDED * PADDED + 4 * PADDED)
    _add(readout_found + units, tl.sum(by_readout, axis=0), units < H)
    one = tl.arange(0, 16)
    _add(readout_found + PADDED + one, tl.sum(by_constant, axis=0) + tl.zeros((16,), tl.float32), one == 0)


@triton.jit(do_not_specialize=["coordinates", "steps", "blocks", "G_stride", "D_stride"])
def window_gradient(
    weights,
    G,
    D,
    snapshot,
    scratch,
    found,
    coordinates,
    steps,
    blocks,
    G_stride,
    D_stride,
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
    """d/d(weights) of sum_t <D[t], update_t>: each program adds up the blocks that fall to it, in order, into a row of
    `found` that is its own. No atomics: the same launch gives the same bits.

    scratch: for each program steps + 1 slots and what is carried between steps
    """
    program = tl.program_id(0)
    G_stride, D_stride, state_stride = G_stride.to(tl.int64), D_stride.to(tl.int64), state_stride.to(tl.int64)
    slots = scratch + program.to(tl.int64) * ((steps + 1) * 6 + 2) * (LAYERS * H * BLOCK)
    carried = slots + (steps + 1).to(tl.int64) * (6 * LAYERS * H * BLOCK)
    found += program.to(tl.int64) * (LAYERS * (8 * PADDED * PADDED + 4 * PADDED) + 2 * PADDED)
    for block in range(program, blocks, tl.num_programs(0)):
        mine = (block * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
        tl.debug_barrier()  # the block before is done with the slots
        _replay(
            weights, G, G_stride, snapshot, state_stride, slots, mine, steps, coordinates, p, floor,
            H, PADDED, LAYERS, LOG_SIGN, BLOCK, BF16, INTERPRETED,
        )  # fmt: skip
        _backward(
            weights, D, D_stride, slots, carried, mine, steps, coordinates, scale,
            H, PADDED, LAYERS, BLOCK, BF16, INTERPRETED,
        )  # fmt: skip
        _weigh(
            found, G, G_stride, D, D_stride, slots, mine, steps, coordinates, p, floor, scale,
            H, PADDED, LAYERS, LOG_SIGN, BLOCK, BF16, INTERPRETED,
        )  # fmt: skip
