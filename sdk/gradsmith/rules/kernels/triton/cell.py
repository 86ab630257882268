"""What both Triton programs share: products on tensor cores, activations, features, and one layer's cell.

A second telling of gradsmith/rules/lstm.py and features.py; tests/sdk/test_triton.py holds the two equal.

Letters, in all of them: H hidden units, PADDED the next power of two that is at least 16 (Triton's tiles want both),
BLOCK neighbouring coordinates that one program computes together. Tiles are feature-major, (PADDED, BLOCK), as the
memory is: rows of neighbouring coordinates, which a warp reads in one piece. Rows beyond H have zero weights, so that
their states and differences stay zero; nothing of them is stored.

Weights lie in the padded layout of layout.py: for each layer the input's matrices, the hidden state's, and the biases.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def high_bits(x):
    """The leading eleven bits of each number: what a tensor core reads of a float32."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def rounded(x, INTERPRETED: tl.constexpr):
    """Rounded to bfloat16, to nearest, ties to even. The interpreter multiplies no bfloat16, and a product of two of
    them is exact in float32: there the rounding is done on the bits."""
    if INTERPRETED:
        bits = x.to(tl.int32, bitcast=True)
        x = ((bits + 0x7FFF + ((bits >> 16) & 1)) & -65536).to(tl.float32, bitcast=True)
    else:
        x = x.to(tl.bfloat16)
    return x


@triton.jit
def product(a, b, total, BF16: tl.constexpr, INTERPRETED: tl.constexpr):
    """total + a b. In float32 each factor is split into two of eleven bits, whose products are exact: three passes of
    the tensor cores keep 22 bits (the fourth, low times low, lies below float32's rounding). Multiply-adds in plain
    float32 would take a tile's factors whole into the registers, which do not hold them."""
    if BF16:
        total = tl.dot(rounded(a, INTERPRETED), rounded(b, INTERPRETED), total)
    else:
        a_high = high_bits(a)
        b_high = high_bits(b)
        total = tl.dot(high_bits(a - a_high), b_high, total, input_precision="tf32")
        total = tl.dot(a_high, high_bits(b - b_high), total, input_precision="tf32")
        total = tl.dot(a_high, b_high, total, input_precision="tf32")
    return total


@triton.jit
def sigmoid(x):
    """No overflow on either side: the exponent is never positive."""
    small = tl.exp(-tl.abs(x))
    return tl.where(x < 0, small, 1.0) / (1.0 + small)


@triton.jit
def tanh(x):
    small = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - small) / (1.0 + small)
    return tl.where(x < 0, -size, size)


@triton.jit
def features(gradient, p, floor, LOG_SIGN: tl.constexpr):
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
def gate(
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
    total = product(weight, hidden, bias[:, None] + tl.zeros_like(hidden), BF16, INTERPRETED)
    if LOWEST:  # one or two columns are no work for a matrix unit
        total += tl.load(layer_at + rows * PADDED)[:, None] * first[None, :]
        if LOG_SIGN:
            total += tl.load(layer_at + rows * PADDED + 1)[:, None] * second[None, :]
    else:
        weight = tl.load(layer_at + rows[:, None] * PADDED + units[None, :])
        total = product(weight, signal, total, BF16, INTERPRETED)
    return total


@triton.jit
def lstm_cell(
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
    write = sigmoid(gate(layer_at, signal, first, second, hidden, 0, LOWEST, LOG_SIGN, PADDED, BF16, INTERPRETED))
    forget = sigmoid(gate(layer_at, signal, first, second, hidden, 1, LOWEST, LOG_SIGN, PADDED, BF16, INTERPRETED))
    candidate = tanh(gate(layer_at, signal, first, second, hidden, 2, LOWEST, LOG_SIGN, PADDED, BF16, INTERPRETED))
    show = sigmoid(gate(layer_at, signal, first, second, hidden, 3, LOWEST, LOG_SIGN, PADDED, BF16, INTERPRETED))
    cell = forget * cell + write * candidate
    return write, forget, candidate, show, show * tanh(cell), cell
