"""Muon for matrices and AdamW for all else; `gradsmith.rules.hand_made.muon` has its steps."""

from __future__ import annotations

from models.baselines.base import MATRICES_LIMIT, Tunable, on_networks
from models.baselines.of_rules import of_rule

MUON = Tunable(
    "muon",
    "Muon",
    centre=-4,
    start=of_rule("muon", matrices=True),
    of_each=True,
    torch=None,
    matrices=True,
    usual=on_networks,
    limit=MATRICES_LIMIT,
    version=2,
)
