"""One step of a hyper rule as three Triton programs, over all tensors of an axis: `look`, `decide`, `move`.

A second telling of gradsmith/rules/hyper.py, whose names these are; tests/sdk/test_triton_tensors.py holds them equal.

Letters and layouts: tensor_cell.py. Rows of the state: the means with decays 0.5, 0.9 and 0.97, the squares, the last
update.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from gradsmith.rules.hyper import ALIGNMENT, FAST, FLOOR, MOMENTA, SLOW, SQUARES
from gradsmith.rules.kernels.triton.cell import tanh
from gradsmith.rules.kernels.triton.tensor_cell import (
    alignment,
    begun,
    dense,
    inverse,
    loaded,
    pointer,
    put,
    total,
    towards_the_end,
    within,
)

_B50, _B90, _B97 = map(tl.constexpr, MOMENTA)
_V, _FAST, _SLOW, _ALIGNMENT, _FLOOR = map(tl.constexpr, (SQUARES, FAST, SLOW, ALIGNMENT, FLOOR))
_LOG_B50, _LOG_B90, _LOG_B97 = (tl.constexpr(math.log(decay)) for decay in MOMENTA)
_LOG_V, _LOG_FAST, _LOG_SLOW = (tl.constexpr(math.log(decay)) for decay in (SQUARES, FAST, SLOW))


@triton.jit
def look(blocks, places, moving, state, sums, stride, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Seven sums over each block: of the squares of g, the last update, m_.9 and m_.97, and of g times the last three.

    sums: (7, blocks)
    """
    block = tl.program_id(0)
    tensor = tl.load(blocks + block)
    size = tl.load(places + 3 * tensor)
    start = tl.multiple_of(tl.load(places + 3 * tensor + 1), 16)
    first = (block - tl.load(places + 3 * tensor + 2)) * BLOCK
    address = tl.load(moving + 3 * tensor)
    if address != 0:
        inside = first + tl.arange(0, BLOCK)
        if first + BLOCK <= size:
            _sum(pointer(address, ALIGNED) + inside, state + start + inside, sums, stride, block, None)
        else:
            _sum(pointer(address, ALIGNED) + inside, state + start + inside, sums, stride, block, inside < size)


@triton.jit
def _sum(gradients, at, sums, stride, block, mask):
    g = loaded(gradients, mask)
    put(sums, block, 0, g * g)
    last = loaded(at + 4 * stride, mask)
    put(sums, block, 1, last * last)
    put(sums, block, 4, g * last)
    medium = loaded(at + stride, mask)
    put(sums, block, 2, medium * medium)
    put(sums, block, 5, g * medium)
    slow = loaded(at + 2 * stride, mask)
    put(sums, block, 3, slow * slow)
    put(sums, block, 6, g * slow)


@triton.jit(do_not_specialize=["count_of_blocks"])
def decide(
    weights,
    horizons,
    places,
    moving,
    sums,
    numbers,
    coefficients,
    count_of_blocks,
    scale,
    H: tl.constexpr,
    PADDED: tl.constexpr,
    LAYERS: tl.constexpr,
    FRACTION: tl.constexpr,
    BLOCK: tl.constexpr,
    LANES: tl.constexpr,
):
    """What is remembered of a tensor moves on, and its network says what its coordinates do; one tensor a program.

    weights: flat, in the order of `rule.parameters()`; horizons: (16,) steps, in the places of the features of time
    numbers: (tensors, 6 or 7), in place
    coefficients: (tensors, 8): those of g, m_.5, m_.9, m_.97 over s, of g, m_.9, m_.97 over r, and what s has beside
        the root of the squares
    """
    tensor = tl.program_id(0)
    size = tl.load(places + 3 * tensor)
    first = tl.load(places + 3 * tensor + 2)
    if tl.load(moving + 3 * tensor) != 0:
        mine = (size + BLOCK - 1) // BLOCK
        squared = total(sums, 0, count_of_blocks, first, mine, LANES)
        of_last = total(sums, 1, count_of_blocks, first, mine, LANES)
        of_medium = total(sums, 2, count_of_blocks, first, mine, LANES)
        of_slow = total(sums, 3, count_of_blocks, first, mine, LANES)
        by_last = total(sums, 4, count_of_blocks, first, mine, LANES)
        by_medium = total(sums, 5, count_of_blocks, first, mine, LANES)
        by_slow = total(sums, 6, count_of_blocks, first, mine, LANES)

        at = numbers + tensor * (6 + FRACTION)
        length = size.to(tl.float32)
        count = tl.load(at) + 1.0
        mean_square = tl.div_rn(squared, length)
        fast_square = _FAST * tl.load(at + 1) + (1 - _FAST) * mean_square
        slow_square = _SLOW * tl.load(at + 2) + (1 - _SLOW) * mean_square
        norm = tl.sqrt_rn(squared)
        to_last = alignment(at + 3, by_last, of_last, norm, _ALIGNMENT)
        to_medium = alignment(at + 4, by_medium, of_medium, norm, _ALIGNMENT)
        to_slow = alignment(at + 5, by_slow, of_slow, norm, _ALIGNMENT)
        tl.store(at, count)
        tl.store(at + 1, fast_square)
        tl.store(at + 2, slow_square)
        tl.store(at + 3, to_last)
        tl.store(at + 4, to_medium)
        tl.store(at + 5, to_slow)

        begun_50 = begun(count, _LOG_B50)
        begun_90 = begun(count, _LOG_B90)
        begun_97 = begun(count, _LOG_B97)
        r = tl.sqrt_rn(tl.div_rn(slow_square, begun(count, _LOG_SLOW)))
        over_r = inverse(r)
        fast = tl.sqrt_rn(tl.div_rn(fast_square, begun(count, _LOG_FAST)))
        medium = tl.div_rn(_grown(_B90, of_medium, by_medium, squared, length), begun_90)
        slow = tl.div_rn(_grown(_B97, of_slow, by_slow, squared, length), begun_97)

        columns = tl.arange(0, 16)
        x = tl.where(columns == 0, within(-4.0, 4.0, tl.log(r) / 4 + 1), tl.zeros((16,), tl.float32))
        x = tl.where(columns == 1, within(-4.0, 4.0, tl.log(fast * over_r)), x)
        x = tl.where(columns == 2, within(-4.0, 4.0, tl.log(medium * over_r)), x)
        x = tl.where(columns == 3, within(-4.0, 4.0, tl.log(slow * over_r)), x)
        x = tl.where(columns == 4, within(-4.0, 4.0, 3 * to_last), x)
        x = tl.where(columns == 5, within(-4.0, 4.0, 3 * to_medium), x)
        x = tl.where(columns == 6, within(-4.0, 4.0, 3 * to_slow), x)
        times = tanh(tl.div_rn(count + tl.zeros((16,), tl.float32), tl.load(horizons + columns)) - 1)
        x = tl.where((columns >= 7) & (columns < 14), times, x)
        if FRACTION:
            x = towards_the_end(x, columns, 14, count, tl.load(at + 6))

        units = tl.arange(0, PADDED)
        layer_at = weights
        signal = dense(
            layer_at, layer_at + H * (14 + 2 * FRACTION), x, units, columns, H, 14 + 2 * FRACTION, 14 + 2 * FRACTION
        )
        signal = tl.where(signal > 0, signal, tl.exp(signal) - 1)
        layer_at += H * (15 + 2 * FRACTION)
        for _ in tl.static_range(LAYERS - 1):
            signal = dense(layer_at, layer_at + H * H, signal, units, units, H, H, H)
            signal = tl.where(signal > 0, signal, tl.exp(signal) - 1)
            layer_at += H * (H + 1)
        which = tl.arange(0, 8)
        outputs = dense(layer_at, layer_at + 8 * H, signal, which, units, 8, H, H)

        magnitude = tl.sum(tl.where(which == 7, outputs, 0.0), axis=0)
        rate = scale * tl.exp(within(-7.0, 5.0, magnitude))
        start = tl.sqrt_rn(begun(count, _LOG_V))
        corrected = tl.where(which == 1, begun_50, 1.0)
        corrected = tl.where((which == 2) | (which == 5), begun_90, corrected)
        corrected = tl.where((which == 3) | (which == 6), begun_97, corrected)
        found = tl.div_rn(outputs * rate * tl.where(which < 4, start, over_r), corrected)
        tl.store(coefficients + 8 * tensor + which, tl.where(which == 7, start * _FLOOR * r, found))


@triton.jit
def _grown(DECAY: tl.constexpr, of_mean, by_mean, squared, length):
    """|b m + (1 - b) g| over the root of the number of coordinates; rounding may leave its square below zero."""
    grown = DECAY * (DECAY * of_mean + 2 * (1 - DECAY) * by_mean) + (1 - DECAY) * ((1 - DECAY) * squared)
    mean = tl.div_rn(grown, length)
    return tl.sqrt_rn(tl.where(mean < 0, 0.0, mean))


@triton.jit
def move(blocks, places, moving, state, coefficients, stride, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """The parameters and their memory take the step, in place."""
    block = tl.program_id(0)
    tensor = tl.load(blocks + block)
    size = tl.load(places + 3 * tensor)
    start = tl.multiple_of(tl.load(places + 3 * tensor + 1), 16)
    first = (block - tl.load(places + 3 * tensor + 2)) * BLOCK
    address = tl.load(moving + 3 * tensor)
    if address != 0:
        inside = first + tl.arange(0, BLOCK)
        gradients = pointer(address, ALIGNED) + inside
        theta = pointer(tl.load(moving + 3 * tensor + 1), ALIGNED) + inside
        factor = tl.load(moving + 3 * tensor + 2).to(tl.int32).to(tl.float32, bitcast=True)
        at = state + start + inside
        if first + BLOCK <= size:
            _moved(gradients, theta, at, stride, coefficients + 8 * tensor, factor, None)
        else:
            _moved(gradients, theta, at, stride, coefficients + 8 * tensor, factor, inside < size)


@triton.jit
def _moved(gradients, theta, at, stride, own, factor, mask):
    g = loaded(gradients, mask)
    fast = _B50 * loaded(at, mask) + (1 - _B50) * g
    medium = _B90 * loaded(at + stride, mask) + (1 - _B90) * g
    slow = _B97 * loaded(at + 2 * stride, mask) + (1 - _B97) * g
    square = _V * loaded(at + 3 * stride, mask) + (1 - _V) * g * g
    scaled = tl.load(own) * g + tl.load(own + 1) * fast + tl.load(own + 2) * medium + tl.load(own + 3) * slow
    over_r = tl.load(own + 4) * g + tl.load(own + 5) * medium + tl.load(own + 6) * slow
    update = scaled * inverse(tl.sqrt_rn(square) + tl.load(own + 7)) + over_r
    tl.store(at, fast, mask=mask)
    tl.store(at + stride, medium, mask=mask)
    tl.store(at + 2 * stride, slow, mask=mask)
    tl.store(at + 3 * stride, square, mask=mask)
    tl.store(at + 4 * stride, update, mask=mask)
    tl.store(theta, loaded(theta, mask) + factor * update, mask=mask)
