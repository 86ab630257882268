"""Muon: momentum, orthogonalized (Jordan et al. 2024), for matrices; AdamW for all else.

It is torch.optim.Muon with `match_rms_adamw`, by which one learning rate serves matrices and the rest (Liu et al. 2025,
"Muon is scalable for LLM training"), and with AdamW's weight decay. torch orthogonalizes in bfloat16; this does it in
the precision of the run, which is nearer to the iteration's own answer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradsmith.rules.hand_made.base import Method, Now, Remembered, apart, together
from gradsmith.rules.hand_made.first_order import WEIGHT_DECAY, adam
from gradsmith.rules.orthogonal import orthogonalized

MOMENTUM = 0.95


def _step(gradient: Tensor, own: Remembered, now: Now) -> tuple[Tensor, Remembered]:
    """own: momentum, and the running squares, which matrices leave at zero"""
    segments = now.segments
    gradients, means, squares = (segments.pieces(each) for each in (gradient, *own))
    updates = list(gradients)
    rates, counts = (each.view(segments.count, -1) for each in (now.rate, now.count))
    for (rows, columns), places in segments.matrices.items():
        g, mean, rate = (together(each, places) for each in (gradients, means, rates.t()))
        mean = mean.lerp(g, 1 - MOMENTUM)
        direction = orthogonalized(g.lerp(mean, MOMENTUM).view(-1, rows, columns)).reshape(g.shape)
        rate = rate[:, None].to(g.dtype)
        update = direction * (rate * (-0.2 * math.sqrt(max(rows, columns))))
        split = (apart(each, places, segments.count) for each in (update, mean))
        for place, moved, kept in zip(places, *split, strict=True):
            updates[place], means[place] = moved, kept
    if others := segments.others:
        own_segments = segments.only(others)
        rest = [own_segments.joined([each[place] for place in others]) for each in (gradients, means, squares)]
        count, rate = (torch.stack([each[:, place] for place in others], dim=1).flatten() for each in (counts, rates))
        update, kept_of_rest = adam(rest[0], (rest[1], rest[2]), Now(count, rate, own_segments))
        found = (own_segments.pieces(each) for each in (update, *kept_of_rest))
        for place, moved, mean, square in zip(others, *found, strict=True):
            updates[place], means[place], squares[place] = moved, mean, square
    return segments.joined(updates), (segments.joined(means), segments.joined(squares))


MUON = Method(_step, decay=WEIGHT_DECAY)
