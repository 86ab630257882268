"""What a kernel answers when it is asked for a rule: itself, bound to the rule's configuration, or a `Refusal`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """Why a kernel does not run a rule here. reason: a clause about the kernel, such as "it runs on the CPU alone"."""

    reason: str
