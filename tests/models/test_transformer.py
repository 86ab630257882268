"""Small transformers against torch's own attention, on Markov chains and on a user's sequences."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from models.datasets.blobs import blobs_of
from models.datasets.inspection import inspected, table
from models.errors import DatasetCorrupt
from models.families.transformer import TransformerSpec
from models.families.transformer.tasks import MarkovBatch, TransformerBatch
from models.spec import Split
from models.table_spec import Table
from models.tasks.catalogue import open_for_training
from models.tasks.conformance import CHECKS, Subject

SMALL = TransformerSpec(vocabulary=5, length=4, width=6, heads=3, layers=2, hidden=5, batch_size=3, start_std=0.4)


def drawn(spec: TransformerSpec, data_dir: Path | None = None, tasks: int = 2) -> TransformerBatch:
    family = open_for_training(spec, data_dir)
    [batch] = family.sample(Split.TRAIN, seed=1, trajectory=0, tasks=tasks, dtype=torch.float64)
    assert isinstance(batch, TransformerBatch)
    return batch


@pytest.mark.parametrize("promise", sorted(CHECKS.keys() - {"memory", "pictures", "parted"}))
def test_it_keeps_what_families_promise(promise: str) -> None:
    CHECKS[promise](Subject(SMALL))


def test_a_task_is_the_transformer_that_users_would_write() -> None:
    batch = drawn(SMALL)
    theta, tokens = batch.initial(), batch._sequences(3)
    flat, p, first = theta.view(2, -1)[1], {}, 0
    for part in SMALL.parts():
        p[part.name] = flat[first : first + part.size].view(part.shape)
        first += part.size
    x = functional.embedding(tokens[1], p["token"]) + p["place"]
    for n in range(2):
        layer = f"layer{n}."
        z = functional.rms_norm(x, (6,), eps=1e-5)
        q, k, v = ((z @ p[layer + name]).view(3, 4, 3, 2).transpose(1, 2) for name in ("query", "key", "value"))
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + seen.transpose(1, 2).reshape(3, 4, 6) @ p[layer + "output"]
        up = functional.rms_norm(x, (6,), eps=1e-5) @ p[layer + "up"] + p[layer + "up_bias"]
        x = x + functional.gelu(up) @ p[layer + "down"] + p[layer + "down_bias"]
    logits = functional.rms_norm(x, (6,), eps=1e-5) @ p["head"] + p["head_bias"]
    truth = functional.cross_entropy(logits[:, :-1].reshape(-1, 5), tokens[1, :, 1:].reshape(-1))
    torch.testing.assert_close(batch.losses(theta, 3)[1], truth)


def test_sequences_follow_the_tasks_own_chain() -> None:
    batch = drawn(TransformerSpec(vocabulary=4, length=64, batch_size=256), tasks=2)
    assert isinstance(batch, MarkovBatch)
    tokens = batch._sequences(0)
    chain = torch.diff(batch.until, dim=2, prepend=torch.zeros(2, 4, 1))
    for task in range(2):
        pairs = torch.zeros(4, 4)
        pairs.index_put_((tokens[task, :, :-1].flatten(), tokens[task, :, 1:].flatten()), torch.ones(()), True)
        seen = pairs / pairs.sum(dim=1, keepdim=True)
        assert float((seen - chain[task]).abs().max()) < 5 * math.sqrt(0.25 / float(pairs.sum(dim=1).min()))
    assert not torch.equal(chain[0], chain[1])


def sequences(data_dir: Path, last: int) -> Table:
    lines = ["who,t0,t1,t2,y"] + [f"g{n % 9},{n % 3},{(n + 1) % 3},{last if n == 50 else n % 2},0.5" for n in range(90)]
    blobs = blobs_of(data_dir)
    with blobs.arriving() as arrival:
        arrival.write("\n".join(lines).encode())
        arrival.flush()
        seen = inspected(arrival.path, inputs=["t0", "t1", "t2"], target="y", group="who")
        found = table("tokens", arrival.sha256, seen)
        blobs.keep(arrival)
    return found


def test_rows_of_a_table_are_sequences_of_each_groups_task(tmp_path: Path) -> None:
    spec = TransformerSpec(dataset=sequences(tmp_path, 1), vocabulary=3, batch_size=4)
    batch = drawn(spec, tmp_path)
    assert batch._sequences(0).shape == (2, 4, 3)
    assert bool(((batch._sequences(0)[..., 0] + 1) % 3 == batch._sequences(0)[..., 1]).all())
    held = batch.held_out(batch.initial())
    assert held is not None
    assert float((held.losses - math.log(3)).abs().max()) < 0.5
    with pytest.raises(DatasetCorrupt, match="not all tokens from 0 to 2"):
        drawn(TransformerSpec(dataset=sequences(tmp_path, 3), vocabulary=3), tmp_path)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValidationError, match="3 heads do not divide a width of 16"):
        TransformerSpec(heads=3)
