"""The two Triton programs: one inner step, and a window replayed and differentiated block by block.

A second telling of gradsmith/rules/lstm.py and features.py; tests/sdk/test_triton.py holds the two equal.

Letters: H hidden units, PADDED the next power of two that is at least 16 (Triton's tiles want both), BLOCK neighbouring
coordinates that one program computes together, T steps of the window. Tiles are feature-major, (PADDED, BLOCK), as the
memory is: rows of neighbouring coordinates, which a warp reads in one piece. Rows beyond H have zero weights, so that
their states and differences stay zero; nothing of them is stored.

Weights lie in the padded layout of layout.py: for each layer the input's matrices, the hidden state's, and the biases.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tf32(x):
    """The leading eleven bits of each number: what a tensor core reads of a float32."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def _bf16(x, INTERPRETED: tl.constexpr):
    """Rounded to bfloat16, to nearest, ties to even. The interpreter multiplies no bfloat16, and a product of two of
    them is exact in float32: there the rounding is done on the bits."""
    if INTERPRETED:
        bits = x.to(tl.int32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
        x = tl.where(x == x, rounded.to(tl.float32, bitcast=True), x)  # NaN stays NaN
    else:
        x = x.to(tl.bfloat16)
    return x


@triton.jit
def _product(a, b, total, BF16: tl.constexpr, INTERPRETED: tl.constexpr):
    """total + a b. In float32 each factor is split into two of eleven bits, whose products are exact: three passes of
    the tensor cores keep 22 bits (the fourth, low times low, lies below float32's rounding). Multiply-adds in plain
    float32 would take a tile's factors whole into the registers, which do not hold them."""
    if BF16:
        total = tl.dot(_bf16(a, INTERPRETED), _bf16(b, INTERPRETED), total)
    else:
        a_high = _tf32(a)
        b_high = _tf32(b)
        total = tl.dot(_tf32(a - a_high), b_high, total, input_precision="tf32")
        total = tl.dot(a_high, _tf32(b - b_high), total, input_precision="tf32")
        total = tl.dot(a_high, b_high, total, input_precision="tf32")
    return total


@triton.jit
def _sigmoid(x):
    """No overflow on either side: the exponent is never positive."""
    small = tl.exp(-tl.abs(x))
    return tl.where(x < 0, small, 1.0) / (1.0 + small)


@triton.jit
def _tanh(x):
    small = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - small) / (1.0 + small)
    return tl.where(x < 0, -size, size)


@triton.jit
def _features(gradient, p, floor, LOG_SIGN: tl.constexpr):
    """The rule's inputs; `floor` is e^-p. The second one has a meaning for log_sign only. NaN stays NaN: a comparison
    with it is false."""
    first = gradient
    second = gradient
    if LOG_SIGN:
        size = tl.abs(gradient)
        first = tl.log(tl.where(size < floor, floor, size)) / p
        second = tl.where(gradient < -floor, -floor, tl.where(gradient > floor, floor, gradient)) / floor
    return first, second


@triton.jit
def _gate(
    layer_at,
    signal,
    first,
    second,
    hidden,
    GATE: tl.constexpr,
    LOWEST: tl.constexpr,
    LOG_SIGN: tl.constexpr,
    PADDED: tl.constexpr,
    BF16: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """A gate before its activation, (PADDED, BLOCK). first, second: (BLOCK,) features."""
    units = tl.arange(0, PADDED)
    rows = GATE * PADDED + units
    hidden_at = layer_at + 4 * PADDED * PADDED
    weight = tl.load(hidden_at + rows[:, None] * PADDED + units[None, :])
    bias = tl.load(layer_at + 8 * PADDED * PADDED + rows)
    total = _product(weight, hidden, bias[:, None] + tl.zeros_like(hidden), BF16, INTERPRETED)
    if LOWEST:  # one or two columns are no work for a matrix unit
        total += tl.load(layer_at + rows * PADDED)[:, None] * first[None, :]
        if LOG_SIGN:
            total += tl.load(layer_at + rows * PADDED + 1)[:, None] * second[None, :]
    else:
        weight = tl.load(layer_at + rows[:, None] * PADDED + units[None, :])
        total = _product(weight, signal, total, BF16, INTERPRETED)
    return total


@triton.jit
def _cell(
    layer_at,
    signal,
    first,
    second,
    hidden,
    cell,
    LOWEST: tl.constexpr,
    LOG_SIGN: tl.constexpr,
    PADDED: tl.constexpr,
    BF16: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """One layer, one step: the four gates (input, forget, candidate, output), the next hidden state and cell."""
    write = _sigmoid(_gate(layer_at, signal, first, second, hidden, 0, LOWEST, LOG_SIGN, PADDED, BF16, INTERPRETED))
    forget = _sigmoid(_gate(layer_at, signal, first, second, hidden, 1, LOWEST, LOG_SIGN, PADDED, BF16, INTERPRETED))
    candidate = _tanh(_gate(layer_at, signal, first, second, hidden, 2, LOWEST, LOG_SIGN, PADDED, BF16, INTERPRETED))
    show = _sigmoid(_gate(layer_at, signal, first, second, hidden, 3, LOWEST, LOG_SIGN, PADDED, BF16, INTERPRETED))
    cell = forget * cell + write * candidate
    return write, forget, candidate, show, show * _tanh(cell), cell


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
    first, second = _features(tl.load(gradients + mine, mask=mine < coordinates, other=0.0), p, floor, LOG_SIGN)
    signal = tl.zeros((PADDED, BLOCK), tl.float32)
    real = (units < H)[:, None]
    for layer in tl.static_range(LAYERS):
        hidden_at = state + (2 * layer * H + units)[:, None] * state_stride + mine[None, :]
        cell_at = hidden_at + H * state_stride
        hidden = tl.load(hidden_at, mask=real, other=0.0)
        cell = tl.load(cell_at, mask=real, other=0.0)
        layer_at = weights + layer * (8 * PADDED * PADDED + 4 * PADDED)
        _, _, _, _, signal, cell = _cell(
            layer_at, signal, first, second, hidden, cell, layer == 0, LOG_SIGN, PADDED, BF16, INTERPRETED
        )
        tl.store(hidden_at, signal, mask=real)
        tl.store(cell_at, cell, mask=real)
    readout_at = weights + LAYERS * (8 * PADDED * PADDED + 4 * PADDED)
    output = tl.sum(tl.load(readout_at + units)[:, None] * signal, axis=0) + tl.load(readout_at + PADDED)
    moved = tl.load(theta + mine, mask=mine < coordinates, other=0.0) + scale * output
    tl.store(theta + mine, moved, mask=mine < coordinates)


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
        first, second = _features(gradient, p, floor, LOG_SIGN)
        signal = tl.zeros((PADDED, BLOCK), tl.float32)
        for layer in tl.static_range(LAYERS):
            kept = slots + t * (6 * LAYERS * H * BLOCK) + (6 * layer * H) * BLOCK + tile
            cell = tl.load(kept + 4 * H * BLOCK, mask=real, other=0.0)
            hidden = tl.load(kept + 5 * H * BLOCK, mask=real, other=0.0)
            layer_at = weights + layer * (8 * PADDED * PADDED + 4 * PADDED)
            write, forget, candidate, show, signal, cell = _cell(
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
    return _product(transposed, delta, total, BF16, INTERPRETED)


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
            after = _tanh(tl.load(kept + (6 * LAYERS * H + 4 * H) * BLOCK, mask=real, other=0.0))
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
    GATES: tl.constexpr,
    BF16: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """The weights' gradient of one block, from the slots, added to `found`. GATES: gates in one product."""
    units = tl.arange(0, PADDED)
    rows = tl.arange(0, GATES * PADDED)
    lanes = tl.arange(0, BLOCK)
    columns = tl.arange(0, 16)  # of a narrow factor: the features, and ones for the bias
    turned = lanes[:, None] + units[None, :] * BLOCK  # (BLOCK, PADDED)
    real = (units < H)[None, :]
    tl.debug_barrier()
    for layer in tl.static_range(LAYERS):
        layer_found = found + layer * (8 * PADDED * PADDED + 4 * PADDED)
        for gate in tl.static_range(0, 4, GATES):
            by_hidden = tl.zeros((GATES * PADDED, PADDED), tl.float32)
            by_signal = tl.zeros((GATES * PADDED, PADDED), tl.float32)
            by_narrow = tl.zeros((GATES * PADDED, 16), tl.float32)
            from_gate = (gate + rows // PADDED) * H + rows % PADDED
            for t in range(steps):
                kept = slots + t * (6 * LAYERS * H * BLOCK) + (6 * layer * H) * BLOCK
                delta = tl.load(
                    kept + from_gate[:, None] * BLOCK + lanes[None, :], mask=(rows % PADDED < H)[:, None], other=0.0
                )
                hidden = tl.load(kept + 5 * H * BLOCK + turned, mask=real, other=0.0)
                by_hidden = _product(delta, hidden, by_hidden, BF16, INTERPRETED)
                narrow = tl.where((columns == 2)[None, :], 1.0, tl.zeros((BLOCK, 16), tl.float32))
                if layer == 0:
                    gradient = tl.load(G + t * G_stride + mine, mask=mine < coordinates, other=0.0)
                    first, second = _features(gradient, p, floor, LOG_SIGN)
                    narrow = tl.where((columns == 0)[None, :], first[:, None], narrow)
                    if LOG_SIGN:
                        narrow = tl.where((columns == 1)[None, :], second[:, None], narrow)
                else:  # the layer below's hidden state after this step
                    signal = tl.load(kept + (6 * LAYERS * H - H) * BLOCK + turned, mask=real, other=0.0)
                    by_signal = _product(delta, signal, by_signal, BF16, INTERPRETED)
                by_narrow = _product(delta, narrow, by_narrow, BF16, INTERPRETED)
            row = gate * PADDED + rows
            square = row[:, None] * PADDED + units[None, :]
            everywhere = rows[:, None] >= 0
            _add(layer_found + 4 * PADDED * PADDED + square, by_hidden, everywhere)
            bias_at = layer_found + 8 * PADDED * PADDED + row
            _add(bias_at[:, None] + 0 * columns[None, :], by_narrow, (columns == 2)[None, :])
            if layer == 0:
                _add(layer_found + row[:, None] * PADDED + columns[None, :], by_narrow, (columns < 2)[None, :])
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
    GATES: tl.constexpr,
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
            H, PADDED, LAYERS, LOG_SIGN, BLOCK, GATES, BF16, INTERPRETED,
        )  # fmt: skip
