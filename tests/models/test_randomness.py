"""The hash that every task and minibatch comes from: known answers, uniformity, independence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.spec import Split
from models.tasks.randomness import (
    bits,
    indices,
    key,
    mix,
    normals,
    permutation,
    streams,
    task_seeds,
    uniforms,
)

MASK = (1 << 64) - 1


def splitmix64(counter: int) -> int:
    """The published algorithm in Python's own integers."""
    z = counter * 0x9E3779B97F4A7C15 & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def test_it_is_splitmix64():
    counters = [0, 1, 2, 1234567, -1, -(2**63), 2**63 - 1]
    found = [value & MASK for value in mix(torch.tensor(counters)).tolist()]
    assert found == [splitmix64(counter & MASK) for counter in counters]
    # The first output of the reference generator seeded with 0 is that of the counter 1.
    assert found[1] == 0xE220A8397B1DCDAF


def test_minibatch_indices_are_uniform_for_every_task_and_step(stats):
    seeds = task_seeds(Split.TRAIN, "family", 0, 0, 0, 40)
    stream = streams(seeds, "minibatch")
    drawn = torch.stack([indices(stream, step, 128, 50) for step in range(50)])  # (steps, tasks, slots)
    assert drawn.min() >= 0
    assert drawn.max() < 50
    counts = np.bincount(drawn.flatten().numpy(), minlength=50)
    assert stats.chisquare(counts).pvalue > 1e-4
    by_task = [
        stats.chisquare(np.bincount(drawn[:, task].flatten().numpy(), minlength=50)).pvalue for task in range(40)
    ]
    assert stats.kstest(by_task, "uniform").pvalue > 1e-4  # p-values of a good hash are themselves uniform


def test_neighbouring_steps_tasks_and_slots_are_unrelated():
    stream = streams(task_seeds(Split.TRAIN, "family", 0, 0, 0, 64), "minibatch")
    grid = torch.stack([uniforms(stream, 64, first=64 * step) for step in range(64)]).numpy()  # (step, task, slot)
    for axis in range(3):
        ahead, behind = np.delete(grid, 0, axis), np.delete(grid, -1, axis)
        correlation = np.corrcoef(ahead.ravel(), behind.ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(ahead.size)


def test_each_bit_is_a_fair_coin(stats):
    values = bits(streams(torch.arange(1), "coins"), 20_000)[0].numpy().view(np.uint64)
    ones = [int(((values >> np.uint64(bit)) & np.uint64(1)).sum()) for bit in range(64)]
    assert min(stats.binomtest(count, 20_000).pvalue for count in ones) > 1e-5


def test_steps_do_not_share_their_slots():
    stream = streams(torch.arange(3), "minibatch")
    whole = bits(stream, 300)
    assert torch.equal(bits(stream, 100, first=100), whole[:, 100:200])
    assert len(torch.unique(whole)) == whole.numel()


def test_normals_are_normal(stats):
    values = normals(streams(torch.arange(100), "start"), 1001).flatten().numpy()
    assert stats.kstest(values, "norm").pvalue > 1e-4
    assert np.isfinite(values).all()


def test_uniforms_are_strictly_inside_the_interval(stats):
    values = uniforms(streams(torch.arange(10), "u"), 10_000)
    assert values.min() > 0
    assert values.max() < 1
    assert stats.kstest(values.flatten().numpy(), "uniform").pvalue > 1e-4


@pytest.mark.parametrize("seed", [0, 1, 2**62, 2**63 - 1])
def test_no_seed_of_one_split_can_be_one_of_another(seed):
    highest = {}
    for split in Split:
        seeds = task_seeds(split, "family", seed, trajectory=seed % 1000, first=0, tasks=5000)
        assert len(torch.unique(seeds)) == 5000
        highest[split] = set(((seeds >> 62) & 3).tolist())
    # by their highest bits: disjoint whatever is hashed
    assert sorted(map(list, highest.values())) == [[1], [2], [3]]


def test_a_task_depends_on_every_part_of_its_name_and_on_nothing_else():
    base = task_seeds(Split.TRAIN, "family", 0, 0, 0, 8)
    assert torch.equal(task_seeds(Split.TRAIN, "family", 0, 0, 5, 3), base[5:])
    for other in (
        task_seeds(Split.TRAIN, "other", 0, 0, 0, 8),
        task_seeds(Split.TRAIN, "family", 1, 0, 0, 8),
        task_seeds(Split.TRAIN, "family", 0, 1, 0, 8),
    ):
        assert not set(other.tolist()) & set(base.tolist())


def test_keys_and_permutations_never_change():
    # Recorded: if these move, every published result of every family moves with them.
    assert key("train", "x", 0, 0) == key("train", "x", 0, 0)
    order = permutation(1000, "digits")
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert key("a", "b") != key("ab")
