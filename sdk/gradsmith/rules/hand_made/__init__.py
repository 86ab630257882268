"""The steps of hand-made optimizers, as pure functions: what a rule of kind `tuned` does, one file for each family of
methods. Baselines of the service that look across coordinates run these very functions."""

from __future__ import annotations

from gradsmith.rules.hand_made.base import Method as Method
from gradsmith.rules.hand_made.base import Now as Now
from gradsmith.rules.hand_made.first_order import ADAGRAD, ADAM, ADAMW, NAG, RMSPROP, SGD
from gradsmith.rules.hand_made.lbfgs import LBFGS
from gradsmith.rules.hand_made.muon import MUON
from gradsmith.rules.hand_made.soap import SOAP

METHODS: dict[str, Method] = {
    "sgd": SGD,
    "nag": NAG,
    "rmsprop": RMSPROP,
    "adam": ADAM,
    "adamw": ADAMW,
    "adagrad": ADAGRAD,
    "muon": MUON,
    "soap": SOAP,
    "lbfgs": LBFGS,
}
"""Every method, by the name that a rule of kind `tuned` has for it."""
