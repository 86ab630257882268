"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner; `gradsmith.rules.hand_made.soap` has its steps."""

from __future__ import annotations

from models.baselines.base import MATRICES_LIMIT, Tunable, on_networks
from models.baselines.of_rules import of_rule

SOAP = Tunable(
    "soap",
    "SOAP",
    centre=-4,
    start=of_rule("soap", matrices=True),
    of_each=True,
    torch=None,
    matrices=True,
    usual=on_networks,
    limit=MATRICES_LIMIT,
    version=2,
)
