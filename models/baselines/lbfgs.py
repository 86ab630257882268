"""L-BFGS, one gradient a step; `gradsmith.rules.hand_made.lbfgs` has its steps."""

from __future__ import annotations

from models.baselines.base import Tunable, on_exact_gradients
from models.baselines.of_rules import of_rule

LBFGS = Tunable(
    "lbfgs",
    "L-BFGS",
    centre=0,
    start=of_rule("lbfgs"),
    of_each=True,
    torch=None,
    usual=on_exact_gradients,
    limit="With minibatches, or a group's `lr` other than 1. It learns of curvature from its updates and the changes "
    "of the gradient over them, which have to be of one function.",
    version=2,
)
