"""One step of an mlp rule as three Triton programs, over all tensors of an axis: `look`, `decide`, `move`.

A second telling of gradsmith/rules/mlp.py and features.py; tests/sdk/test_triton_tensors.py holds them equal.

Letters and layouts: tensor_cell.py and, for the network, cell.py. The constants MOMENTA, SCALES, ... say which inputs
there are. Rows of the state: the mean with decay 0.5 if MOMENTA, those with 0.9 and 0.97; the squares with 0.9 if
SCALES, those with 0.99; the last update if ALIGNMENT.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from gradsmith.rules.features import ALIGNMENT as ALIGNED_BY
from gradsmith.rules.features import FLOOR, SLOW
from gradsmith.rules.kernels.triton.cell import product, tanh
from gradsmith.rules.kernels.triton.tensor_cell import (
    alignment,
    begun,
    dense,
    inverse,
    pointer,
    put,
    total,
    towards_the_end,
    within,
)

TINY = 1.1754943508222875e-38
"""The least normal number, whose logarithm that of 0 counts as."""

_SLOW, _FLOOR, _ALIGNED, _TINY = map(tl.constexpr, (SLOW, FLOOR, ALIGNED_BY, TINY))
_LOG_50, _LOG_90, _LOG_95, _LOG_97, _LOG_99 = (tl.constexpr(math.log(b)) for b in (0.5, 0.9, 0.95, 0.97, 0.99))


@triton.jit
def look(blocks, places, moving, state, sums, stride, LAST: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Three sums over each block: of the squares of g and the last update, and of their product. LAST: its row, or -1.

    sums: (3, blocks)
    """
    block = tl.program_id(0)
    tensor = tl.load(blocks + block)
    size = tl.load(places + 3 * tensor)
    first = (block - tl.load(places + 3 * tensor + 2)) * BLOCK
    start = tl.multiple_of(tl.load(places + 3 * tensor + 1), 16)
    address = tl.load(moving + 3 * tensor)
    if address != 0:
        inside = first + tl.arange(0, BLOCK)
        g = tl.load(pointer(address, ALIGNED) + inside, mask=inside < size, other=0.0)
        put(sums, block, 0, g * g)
        if LAST >= 0:
            last = tl.load(state + LAST * stride + start + inside, mask=inside < size, other=0.0)
            put(sums, block, 1, last * last)
            put(sums, block, 2, g * last)


@triton.jit(do_not_specialize=["count_of_blocks"])
def decide(
    weights,
    horizons,
    places,
    moving,
    sums,
    numbers,
    known,
    count_of_blocks,
    H: tl.constexpr,
    PADDED: tl.constexpr,
    EACH: tl.constexpr,
    SHARED: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    TIME: tl.constexpr,
    FRACTION: tl.constexpr,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
):
    """What is remembered of a tensor moves on; one tensor a program.

    horizons: (16,) steps, in the places of the features of time among those that a tensor's coordinates share
    numbers: (tensors, 3 or 4), in place
    known: (tensors, PADDED + 16): the first layer's biases with what shared features add; what running means of ones
        would be by now, of decays 0.5, 0.9, 0.97, 0.99; what s has beside the root of the squares; 1 / r; log r
    """
    tensor = tl.program_id(0)
    size = tl.load(places + 3 * tensor)
    first = tl.load(places + 3 * tensor + 2)
    if tl.load(moving + 3 * tensor) != 0:
        mine = (size + BLOCK - 1) // BLOCK
        squared = total(sums, 0, count_of_blocks, first, mine, LANES)
        at = numbers + tensor * (3 + FRACTION)
        count = tl.load(at) + 1.0
        slow_square = _SLOW * tl.load(at + 1) + tl.div_rn(squared * (1 - _SLOW), size.to(tl.float32))
        aligned = 0.0
        if ALIGNMENT:
            of_last = total(sums, 1, count_of_blocks, first, mine, LANES)
            by_last = total(sums, 2, count_of_blocks, first, mine, LANES)
            aligned = alignment(at + 2, by_last, of_last, tl.sqrt_rn(squared), _ALIGNED)
            tl.store(at + 2, aligned)
        tl.store(at, count)
        tl.store(at + 1, slow_square)
        r = tl.sqrt_rn(tl.div_rn(slow_square, begun(count, _LOG_95)))

        columns = tl.arange(0, 16)
        x = tl.zeros((16,), tl.float32)
        if ALIGNMENT:
            x = tl.where(columns == 0, 3 * aligned, x)
        if TIME:
            times = tanh(tl.div_rn(count + tl.zeros((16,), tl.float32), tl.load(horizons + columns)) - 1)
            x = tl.where((columns >= ALIGNMENT) & (columns < ALIGNMENT + 7), times, x)
        if FRACTION:
            x = towards_the_end(x, columns, ALIGNMENT + 7 * TIME, count, tl.load(at + 3))
        units = tl.arange(0, PADDED)
        own = known + tensor * (PADDED + 16)
        biases = weights + H * (EACH + SHARED)
        tl.store(own + units, dense(weights + EACH, biases, x, units, columns, H, SHARED, EACH + SHARED))
        tl.store(own + PADDED, begun(count, _LOG_50))
        tl.store(own + PADDED + 1, begun(count, _LOG_90))
        tl.store(own + PADDED + 2, begun(count, _LOG_97))
        tl.store(own + PADDED + 3, begun(count, _LOG_99))
        tl.store(own + PADDED + 4, r * _FLOOR)
        tl.store(own + PADDED + 5, inverse(r))
        tl.store(own + PADDED + 6, _log(r))


@triton.jit
def _log(x):
    return tl.log(tl.where(x < _TINY, _TINY, x))


@triton.jit
def _held(x):
    return within(-4.0, 4.0, x)


@triton.jit
def _put_row(tile, ROW: tl.constexpr, row):
    return tl.where((tl.arange(0, 16) == ROW)[:, None], row[None, :], tile)


@triton.jit
def _mean(at, mask, g, DECAY: tl.constexpr):
    """The next running mean; it is stored."""
    found = DECAY * tl.load(at, mask=mask, other=0.0) + (1 - DECAY) * g
    tl.store(at, found, mask=mask)
    return found


@triton.jit
def move(
    weights,
    blocks,
    places,
    moving,
    state,
    known,
    stride,
    scale,
    H: tl.constexpr,
    PADDED: tl.constexpr,
    LAYERS: tl.constexpr,
    EACH: tl.constexpr,
    SHARED: tl.constexpr,
    MOMENTA: tl.constexpr,
    SCALES: tl.constexpr,
    TENSOR_SCALE: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """The parameters and their memory take the step, in place."""
    block = tl.program_id(0)
    tensor = tl.load(blocks + block)
    size = tl.load(places + 3 * tensor)
    start = tl.multiple_of(tl.load(places + 3 * tensor + 1), 16)
    inside = (block - tl.load(places + 3 * tensor + 2)) * BLOCK + tl.arange(0, BLOCK)
    mask = inside < size
    address = tl.load(moving + 3 * tensor)
    if address != 0:
        own = known + tensor * (PADDED + 16)
        g = tl.load(pointer(address, ALIGNED) + inside, mask=mask, other=0.0)
        at = state + start + inside
        x = tl.zeros((16, BLOCK), tl.float32)
        directions = tl.zeros((16, BLOCK), tl.float32)
        begun_90 = tl.load(own + PADDED + 1)
        begun_99 = tl.load(own + PADDED + 3)
        medium = tl.div_rn(_mean(at + MOMENTA * stride, mask, g, 0.9), begun_90)
        slow = tl.div_rn(_mean(at + (1 + MOMENTA) * stride, mask, g, 0.97), tl.load(own + PADDED + 2))
        square = _mean(at + (2 + MOMENTA + SCALES) * stride, mask, g * g, 0.99)
        root = tl.sqrt_rn(tl.div_rn(square, begun_99))
        over_s = tl.where(square == 0, square, tl.div_rn(1.0, root + tl.load(own + PADDED + 4)))
        log_slow = _log(root)
        if MOMENTA:
            fast = tl.div_rn(_mean(at, mask, g, 0.5), tl.load(own + PADDED))
            x = _put_row(x, 0, g * over_s)
            x = _put_row(x, 1, fast * over_s)
            x = _put_row(x, 2, medium * over_s)
            x = _put_row(x, 3, slow * over_s)
            directions = x
        if SCALES:
            quick = _mean(at + (2 + MOMENTA) * stride, mask, g * g, 0.9)
            quick_root = tl.sqrt_rn(tl.div_rn(quick, begun_90))
            over = tl.where(quick == 0, quick, tl.div_rn(1.0, quick_root))
            x = _put_row(x, 4 * MOMENTA, g * over)
            x = _put_row(x, 4 * MOMENTA + 1, _held(log_slow / 4 + 1))
            x = _put_row(x, 4 * MOMENTA + 2, _held(_log(quick_root) - log_slow))
            x = _put_row(x, 4 * MOMENTA + 3, _held(0.3 * tl.log(tl.abs(medium * over_s) + 1e-4)))
        if TENSOR_SCALE:
            over_r = tl.load(own + PADDED + 5)
            log_r = tl.load(own + PADDED + 6)
            x = _put_row(x, EACH - 5, g * over_r)
            x = _put_row(x, EACH - 4, medium * over_r)
            x = _put_row(x, EACH - 3, slow * over_r)
            x = _put_row(x, EACH - 2, _held(log_r / 4 + 1 + tl.zeros_like(g)))
            x = _put_row(x, EACH - 1, _held(0.3 * (log_slow - log_r)))
            directions = _put_row(directions, 4 * MOMENTA, g * over_r)
            directions = _put_row(directions, 4 * MOMENTA + 1, medium * over_r)
            directions = _put_row(directions, 4 * MOMENTA + 2, slow * over_r)

        units = tl.arange(0, PADDED)
        rows = tl.arange(0, 16)
        real = (units < H)[:, None]
        biases = tl.load(own + units)[:, None] + tl.zeros((PADDED, BLOCK), tl.float32)
        matrix = tl.load(
            weights + units[:, None] * (EACH + SHARED) + rows[None, :], mask=real & (rows < EACH)[None, :], other=0.0
        )
        signal = product(matrix, x, biases, False, INTERPRETED)
        signal = tl.where(signal > 0, signal, tl.exp(signal) - 1)
        layer_at = weights + H * (EACH + SHARED + 1)
        for _ in tl.static_range(LAYERS - 1):
            matrix = tl.load(
                layer_at + units[:, None] * H + units[None, :], mask=real & (units < H)[None, :], other=0.0
            )
            biases = tl.load(layer_at + H * H + units, mask=units < H, other=0.0)[:, None] + tl.zeros_like(signal)
            signal = product(matrix, signal, biases, False, INTERPRETED)
            signal = tl.where(signal > 0, signal, tl.exp(signal) - 1)
            layer_at += H * (H + 1)
        ways: tl.constexpr = 4 * MOMENTA + 3 * TENSOR_SCALE
        matrix = tl.load(
            layer_at + rows[:, None] * H + units[None, :],
            mask=(rows <= ways)[:, None] & (units < H)[None, :],
            other=0.0,
        )
        biases = tl.load(layer_at + (ways + 1) * H + rows, mask=rows <= ways, other=0.0)
        outputs = product(matrix, signal, biases[:, None] + tl.zeros((16, BLOCK), tl.float32), False, INTERPRETED)
        magnitude = tl.sum(tl.where((rows == ways)[:, None], outputs, 0.0), axis=0)
        along = tl.sum(tl.where((rows < ways)[:, None], outputs * directions, 0.0), axis=0)
        update = scale * tl.exp(within(-7.0, 5.0, magnitude)) * along
        if ALIGNMENT:
            tl.store(at + (3 + MOMENTA + SCALES) * stride, update, mask=mask)
        theta = pointer(tl.load(moving + 3 * tensor + 1), ALIGNED) + inside
        factor = tl.load(moving + 3 * tensor + 2).to(tl.int32).to(tl.float32, bitcast=True)
        tl.store(theta, tl.load(theta, mask=mask, other=0.0) + factor * update, mask=mask)
