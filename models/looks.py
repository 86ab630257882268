"""When held-out losses are measured along a run. No import of torch: a job's price is counted from it."""

from __future__ import annotations

LOOKS = 10
"""How often the held-out loss is measured along a curve: each time takes as long as several inner steps."""


def looks(horizon: int) -> tuple[int, ...]:
    """The steps of a run after which held-out losses are measured: 0, and LOOKS more, the last one the horizon."""
    return (0, *sorted({max(1, round(horizon * look / LOOKS)) for look in range(1, LOOKS + 1)}))
