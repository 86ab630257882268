"""L-BFGS (Liu and Nocedal 1989), one gradient a step: no line search, the step length is the tuned learning rate.

It is torch.optim.LBFGS with one iteration a call and ten pairs. Each task has pairs of its own, over all of its
tensors. A pair is made of two gradients of successive steps, which on minibatches are of different images: the usual
way of such runs, and one reason why it does badly there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradsmith.rules.configs import LBFGS_PAIRS as PAIRS
from gradsmith.rules.hand_made.base import Method, Now, Remembered

LEAST_CURVATURE = 1e-10
"""A pair with a smaller product is left out."""


def _step(gradient: Tensor, own: Remembered, now: Now) -> tuple[Tensor, Remembered]:
    """own: the moves of PAIRS pairs, the newest last, and the changes of the gradient over them, (PAIRS, coordinates)
    both; the last gradient and the move that it gave. A place without a pair has zeros and adds nothing."""
    tasks = now.segments.count
    g, last, move = (each.view(tasks, -1) for each in (gradient, *own[2:]))
    moves, changes = (each.reshape(PAIRS, tasks, -1) for each in own[:2])
    rate, fresh = now.segments.spread(torch.stack((now.rate, (now.count == 1).to(now.rate)))).to(g.dtype).unbind()
    fresh = fresh.view(tasks, -1) > 0  # what has come in mid-training has no change yet
    change = (g - last).masked_fill(fresh, 0)
    taken = (change * move).sum(1, keepdim=True) > LEAST_CURVATURE
    moves, changes = (_shifted(each, new, taken) for each, new in ((moves, move), (changes, change)))
    direction = _direction(g, moves, changes)
    first = (1 / g.abs().sum(1, keepdim=True)).clamp(max=1).where(fresh.all(1, keepdim=True), g.new_ones(()))
    downhill = (g * direction).sum(1, keepdim=True) <= 0
    update = (direction * first * rate.view(tasks, -1)).where(downhill, g.new_zeros(())).flatten()
    return update, (moves.flatten(1), changes.flatten(1), gradient, update)


def _shifted(kept: Tensor, new: Tensor, taken: Tensor) -> Tensor:
    """The newest one added and the oldest one dropped, for the tasks that take it."""
    if bool(taken.all()):
        return torch.cat((kept[1:], new[None]))
    return torch.cat((kept[1:], new[None])).where(taken, kept) if bool(taken.any()) else kept


def _direction(g: Tensor, moves: Tensor, changes: Tensor) -> Tensor:
    """The two loops, over the pairs of each task: (tasks, its coordinates)."""
    curvatures = (moves * changes).sum(2, keepdim=True)  # (PAIRS, tasks, 1)
    inverses = curvatures.reciprocal().where(curvatures > 0, g.new_zeros(()))
    squares = changes[-1].square().sum(1, keepdim=True)
    scale = (curvatures[-1] / squares).where(curvatures[-1] > 0, g.new_ones(()))
    pairs = list(zip(moves.unbind(), changes.unbind(), inverses.unbind(), strict=True))
    found, weights = -g, []
    for move, change, inverse in reversed(pairs):
        weights.append((move * found).sum(1, keepdim=True) * inverse)
        found = torch.addcmul(found, weights[-1], change, value=-1)
    found = found * scale
    for (move, change, inverse), weight in zip(pairs, reversed(weights), strict=True):
        found = torch.addcmul(found, weight - (change * found).sum(1, keepdim=True) * inverse, move)
    return found


LBFGS = Method(_step, widths=(PAIRS, PAIRS, 1, 1), across_groups=True)
