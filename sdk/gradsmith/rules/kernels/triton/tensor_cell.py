"""What the Triton programs of rules that look at tensors share. NaN and infinity go where they go in torch: roots and
quotients are those that round correctly, and comparisons keep NaN.

Tensors lie one after another in rows of `stride` numbers, each from a multiple of 16 on: running means of the gradient,
of its square, and the last update. A program sees one block of BLOCK coordinates of one tensor.

blocks: (blocks,) int32, the tensor of each block
places: (tensors, 3) int64, its number of coordinates, where it begins in a row, and its first block
moving: (tensors, 3) int64, the addresses of its gradient and its parameter, and the bits of the float32 factor on its
    update; an address of 0: it rests
"""

from __future__ import annotations

import triton
import triton.language as tl

from gradsmith.rules.kernels.triton.cell import tanh


@triton.jit
def inverse(size):
    """1 / size; 0 where it is 0. NaN stays."""
    return tl.where(size == 0, size, tl.div_rn(1.0, size))


@triton.jit
def within(low, high, x):
    """NaN stays: a comparison with it is false."""
    return tl.where(x < low, low, tl.where(x > high, high, x))


@triton.jit
def pointer(address, ALIGNED: tl.constexpr):
    """Where float32 numbers lie. ALIGNED: at a multiple of 16 bytes, which is what makes wide loads."""
    found = address.to(tl.pointer_type(tl.float32))
    if ALIGNED:
        found = tl.multiple_of(found, 16)
    return found


@triton.jit
def loaded(at, mask):
    return tl.load(at) if mask is None else tl.load(at, mask=mask, other=0.0)


@triton.jit
def put(sums, block, ROW: tl.constexpr, each):
    tl.store(sums + ROW * tl.num_programs(0) + block, tl.sum(each, axis=0))


@triton.jit
def total(sums, ROW: tl.constexpr, count, first, mine, LANES: tl.constexpr):
    """A row's sum over the blocks of one tensor, in double, rounded once."""
    found = tl.zeros((LANES,), tl.float64)
    for at in range(0, mine, LANES):
        lanes = at + tl.arange(0, LANES)
        found += tl.load(sums + ROW * count + first + lanes, mask=lanes < mine, other=0.0).to(tl.float64)
    return tl.sum(found, axis=0).to(tl.float32)


@triton.jit
def begun(count, LOG_DECAY: tl.constexpr):
    """1 - decay^count: what a running mean of ones would be by now."""
    return (1.0 - tl.exp(count.to(tl.float64) * LOG_DECAY)).to(tl.float32)


@triton.jit
def dense(weights, biases, x, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STRIDE: tl.constexpr):
    """weights (ROWS x COLUMNS, rows STRIDE apart) x + biases; rows and columns beyond are zero."""
    real = (rows < ROWS)[:, None] & (columns < COLUMNS)[None, :]
    matrix = tl.load(weights + rows[:, None] * STRIDE + columns[None, :], mask=real, other=0.0)
    return tl.sum(matrix * x[None, :], axis=1) + tl.load(biases + rows, mask=rows < ROWS, other=0.0)


@triton.jit
def alignment(at, product, squared, norm, DECAY: tl.constexpr):
    """The running cosine of the gradient with something whose squares have this sum."""
    cosine = tl.div_rn(product, tl.sqrt_rn(squared) * norm + 1e-30)
    return DECAY * tl.load(at) + (1 - DECAY) * cosine


@triton.jit
def towards_the_end(x, columns, PLACE: tl.constexpr, count, planned):
    """x with the two features of the fraction from PLACE on."""
    done = count - 1
    share = tl.div_rn(done, tl.where(planned < 1, 1.0, planned))
    left = tl.where(planned < done, 0.0, planned - done)
    x = tl.where(columns == PLACE, 2 * tl.where(share > 1, 1.0, share) - 1, x)
    return tl.where(columns == PLACE + 1, tanh(left / 10 - 1 + tl.zeros_like(x)), x)
