"""torch.optim's SGD, RMSprop, Adam, AdamW and Adagrad, with torch's defaults but for the learning rate."""

from __future__ import annotations

import torch
from torch import Tensor

from gradsmith.rules.hand_made.base import Method, Now, Remembered

MOMENTUM = 0.9  # of nag
BETAS, ALPHA = (0.9, 0.999), 0.99  # of adam and adamw; of rmsprop
EPSILON, ADAGRADS_EPSILON = 1e-8, 1e-10
WEIGHT_DECAY = 0.01  # of adamw


def _sgd(g: Tensor, own: Remembered, now: Now) -> tuple[Tensor, Remembered]:  # noqa: ARG001
    return -now.rates(g) * g, ()


def _nag(g: Tensor, own: Remembered, now: Now) -> tuple[Tensor, Remembered]:
    velocity = MOMENTUM * own[0] + g
    return -now.rates(g) * (g + MOMENTUM * velocity), (velocity,)


def _rmsprop(g: Tensor, own: Remembered, now: Now) -> tuple[Tensor, Remembered]:
    squares = ALPHA * own[0] + (1 - ALPHA) * g * g
    return -now.rates(g) * (g / (_root(squares) + EPSILON)), (squares,)


def _adagrad(g: Tensor, own: Remembered, now: Now) -> tuple[Tensor, Remembered]:
    total = own[0] + g * g
    return -now.rates(g) * (g / (_root(total) + ADAGRADS_EPSILON)), (total,)


def adam(g: Tensor, own: Remembered, now: Now) -> tuple[Tensor, Remembered]:
    """Adam's update; AdamW's without its decay."""
    mean, squares = (b * each + (1 - b) * new for b, each, new in zip(BETAS, own, (g, g * g), strict=True))
    of_tensors = torch.stack((*(1 - b**now.count for b in BETAS), -now.rate))
    begun, squares_begun, rate = now.segments.spread(of_tensors).to(g.dtype)
    return rate * (mean / begun / (_root(squares / squares_begun) + EPSILON)), (mean, squares)


def _root(squares: Tensor) -> Tensor:
    """The root, whose derivative at 0 is finite."""
    return squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt()


SGD, NAG, RMSPROP, ADAGRAD = (Method(step) for step in (_sgd, _nag, _rmsprop, _adagrad))
ADAM, ADAMW = Method(adam), Method(adam, decay=WEIGHT_DECAY)
