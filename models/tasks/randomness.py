"""Counter-based randomness: every number is a hash of where it is used, so nothing has a state to keep.

A task's seed is a hash of (split, distribution, seed, trajectory, index); a minibatch index is a hash of (task's
seed, step, slot). So any task can be made alone, on any rank, in any order, a batch of tasks needs no loop in
Python, and a resumed run has no generator to restore. The hash is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014),
in int64 tensors whose products wrap modulo 2^64.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from models.spec import Split

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, as a signed 64-bit number
_FIRST = -4658895280553007687  # 0xBF58476D1CE4E5B9
_SECOND = -7723592293110705685  # 0x94D049BB133111EB

# The two highest bits of a task's seed name its split, so that no seed of one split can ever be one of another:
# not by luck, but by construction.
_SPLIT_BITS = {Split.TRAIN: 1, Split.VALIDATION: 2, Split.TEST: 3}
_SPLIT_SHIFT = 62
_DRAWN_AT_ONCE = 1_000_000


def key(*parts: object) -> int:
    """A signed 64-bit key of `parts`, the same on every machine and in every version of Python."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def share_of(*parts: object) -> float:
    """A uniform number in [0, 1) that `parts` decide, the same on every machine."""
    return (key(*parts) & (1 << 63) - 1) / 2.0**63


def mix(counters: Tensor) -> Tensor:
    """SplitMix64's output for each int64 counter: equal counters, equal bits; neighbours, unrelated bits."""
    z = counters * _GOLDEN
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    return z ^ _shifted(z, 31)


def task_seeds(split: Split, namespace: str, seed: int, trajectory: int, first: int, tasks: int) -> Tensor:
    """Seeds (tasks,) int64 of the tasks `first`, `first + 1`, ... of one trajectory.

    `namespace` names the distribution. The split stands in the two highest bits.
    """
    root = key(split.value, namespace, seed, trajectory)
    hashed = mix(mix(torch.arange(first, first + tasks, dtype=torch.int64)) ^ root)
    low = hashed & ((1 << _SPLIT_SHIFT) - 1)
    return low | _signed(_SPLIT_BITS[split] << _SPLIT_SHIFT)


def streams(seeds: Tensor, name: str) -> Tensor:
    """An independent stream of counters for each task and purpose: (tasks,) -> (tasks,)."""
    return mix(seeds ^ key("stream", name))


def bits(stream: Tensor, count: int, first: int | Tensor = 0) -> Tensor:
    """The numbers `first` .. `first + count - 1` of each stream: (tasks,) -> (tasks, count), 64 random bits each."""
    # `first` is added: it may be a number on the device (models.captured), which arange would fetch.
    slots = torch.arange(count, dtype=torch.int64, device=stream.device) + first
    return mix(stream[:, None] + slots)


def uniforms(stream: Tensor, count: int, first: int = 0) -> Tensor:
    """Float64 numbers in (0, 1), never 0 nor 1: (tasks,) -> (tasks, count)."""
    return (_shifted(bits(stream, count, first), 11).to(torch.float64) + 0.5) * 2.0**-53


def normals(stream: Tensor, count: int) -> Tensor:
    """Standard normal float64 numbers by Box and Muller: (tasks,) -> (tasks, count)."""
    pairs = (count + 1) // 2
    u = uniforms(stream, 2 * pairs)
    radius = u[:, :pairs].log().mul_(-2.0).sqrt_()
    angle = u[:, pairs:].mul(2.0 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]


def drawn(
    draw: Callable[[Tensor, int], Tensor], stream: Tensor, count: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """`draw(stream, count)` in another dtype, some tasks at a time: (tasks,) -> (tasks, count).

    Drawing takes some fifty bytes a number while it lasts; this keeps that apart from the size of the result.
    """
    result = torch.empty(stream.shape[0], count, dtype=dtype, device=stream.device)
    rows = max(1, _DRAWN_AT_ONCE // max(1, count))
    for first in range(0, stream.shape[0], rows):
        result[first : first + rows] = draw(stream[first : first + rows], count)
    return result


def indices(stream: Tensor, step: int | Tensor, count: int, below: int | Tensor) -> Tensor:
    """Indices in [0, below), drawn with replacement for one step: (tasks,) -> (tasks, count) int64.

    below: one number, or (tasks, 1) where tasks differ.

    The remainder's bias is at most below / 2^62.
    """
    return (bits(stream, count, first=step * count) & ((1 << 62) - 1)) % below


def permutation(count: int, name: str) -> Tensor:
    """A fixed random order of range(count), (count,) int64, the same in every version of every library."""
    return torch.argsort(mix(torch.arange(count, dtype=torch.int64) ^ key("permutation", name)), stable=True)


def _shifted(z: Tensor, by: int) -> Tensor:
    # torch shifts int64 arithmetically; the mask makes it the logical shift that SplitMix64 wants.
    return (z >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
