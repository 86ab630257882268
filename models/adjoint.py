"""The meta-gradient of a window: what every update is worth, and the rule differentiated with that.

Let the meta-loss count phi_s at theta_s, for each s = 1 .. T; G_out[s] is the gradient of phi_s there, over the number
of tasks. What update_t is worth, D[t] = dL / d(update_t), comes in two modes.

detached: the gradient that enters the rule counts as a constant (Andrychowicz et al. 2016). D is a suffix sum of what
the inner loop has computed anyway,

    D[t] = sum over s > t of G_out[s].

exact: the gradient moves with theta, H_t = d g_t / d theta_t being the Hessian of the step's own loss, so that the
window is gone through once more from its end:

    D[t] = lam_(t+1),    lam_T = G_out[T],    lam_t = G_out[t] + lam_(t+1) + H_t q_t,

where q_t = dL / d g_t is what the rule makes of D[t] and of what its state is worth to later steps. That costs one
product with a Hessian a step, but no graph of the optimizee.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from models.backends import ExactWindow


def exact(window: ExactWindow, outer: Tensor, product: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Flat, in the order of the backend's parameters.

    window: what the window's steps were made with
    outer: (steps, coordinates), G_out[1] .. G_out[T]
    product: H_t q, (coordinates,), of t = 1 .. T - 1 and q (coordinates,)
    """
    last = outer.shape[0] - 1
    worth = outer[last]
    for t in range(last, 0, -1):
        q = window.back(worth)
        worth = worth + outer[t - 1] + product(t, q)
    window.back(worth)  # theta_0 was there before: how its gradient moves is nobody's matter
    return window.gradient()


def suffix_sums(outer: Tensor) -> Tensor:
    """D[t] = sum of outer[s] over s >= t: (steps, coordinates) -> (steps, coordinates)."""
    return outer.flip(0).cumsum_(0).flip(0)
